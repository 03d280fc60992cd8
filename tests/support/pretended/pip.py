"""In place of pip, which would change this environment: has it what is to be installed?"""

import re
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

HERE = re.compile(r"(\./?[\w/]*?)(?:\[([\w,]+)\])?")


def main(arguments: list[str]) -> None:
    install, wanted = arguments
    assert install == "install"
    if match := HERE.fullmatch(wanted):
        project = tomllib.loads((Path(match[1]) / "pyproject.toml").read_text())["project"]
        extras = set(match[2].split(",")) if match[2] else set()
        assert extras <= project.get("optional-dependencies", {}).keys(), wanted
        wanted = project["name"]
    distribution(wanted)


if __name__ == "__main__":
    main(sys.argv[1:])
