"""In place of docker, whose engine few test machines have: are the files, the services and the options there?

`docker compose run --rm SERVICE ...` does what the container would: its entrypoint runs here. Really run they are by
tests/compose/documented.py.
"""

import subprocess
import sys
from pathlib import Path

import yaml

OPTIONS = {"up": {"--build", "--wait"}, "down": set(), "run": {"--rm"}, "exec": set()}


class Loader(yaml.SafeLoader):
    """Of compose files: what compose's own tags mean matters to compose alone."""


Loader.add_multi_constructor("!", lambda *_: None)


def main(arguments: list[str]) -> int:
    compose, *arguments = arguments
    assert compose == "compose", f"docker {compose} is not known here"
    files = []
    while arguments[0] == "-f":
        files.append(Path(arguments[1]))
        arguments = arguments[2:]
    services: dict[str, dict[str, list[str]]] = {}
    for file in files or [Path("docker-compose.yml")]:
        for name, service in yaml.load(file.read_text(), Loader)["services"].items():  # noqa: S506  # a SafeLoader
            services.setdefault(name, {}).update(service)
    command, *rest = arguments
    while rest and rest[0].startswith("-"):
        assert rest.pop(0) in OPTIONS[command], arguments
    if not rest:
        return 0
    service, *rest = rest
    assert service in services, f"no service {service!r} among {sorted(services)}"
    return subprocess.call([*services[service]["entrypoint"], *rest]) if command == "run" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
