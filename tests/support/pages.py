"""Pages of the documentation as readers follow them: their commands, in order, in one shell.

Before a fenced block a page may say, in comments that nobody else sees, what the test cannot know:

    <!-- test: stays PORT -->    the command does not end; go on when it listens there
    <!-- test: prints REGEX -->  what must be found in the block's standard output
    <!-- test: refused -->       a curl of this block is answered with an error, as the page says
    <!-- test: file NAME -->     not a command: what the reader saves under that name
    <!-- test: options -->       not run, for it takes hardware or hours; its options must exist
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ports import free_port

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SHELL = "sh"
_BLOCK = re.compile(
    r"(?P<asked>(?:<!-- test: [^\n]*? -->\n)*)^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_PORT = re.compile(r"(127\.0\.0\.1\W{1,3}|--port )(\d{4})\b")
_LISTENING = """
until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do kill -0 $! || exit 70; sleep 0.1; done
"""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: in its page, of the fence.
        asked: what the comments before it say, by their first word.
    """

    line: int
    language: str
    text: str
    asked: Mapping[str, str]

    @property
    def runs(self) -> bool:
        return self.language == SHELL and "options" not in self.asked


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page. Raises ValueError for a comment before none, or with words unknown."""
    found = []
    for match in _BLOCK.finditer(text):
        asked = dict(words.partition(" ")[::2] for words in re.findall(r"<!-- test: (.*?) -->", match["asked"]))
        if unknown := asked.keys() - {"stays", "prints", "refused", "file", "options"}:
            raise ValueError(f"unknown: {unknown}")
        line = text.count("\n", 0, match.end("asked")) + 1
        found.append(Block(line, match["language"], match["text"], asked))
    if text.count("<!-- test:") != sum(len(block.asked) for block in found):
        raise ValueError("a comment `test:` stands before no block, or two say the same")
    return found


def lines_of(text: str, section: str) -> tuple[int, int]:
    """The first line of the section of the second level with that title, and that of the next; of all, without one."""
    titles = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.startswith("## ")]
    if not section:
        return 1, text.count("\n") + 2
    begin = next(number for number, line in titles if line == f"## {section}")
    return begin, next((number for number, _ in titles if number > begin), text.count("\n") + 2)


def calls(text: str, program: str) -> list[list[str]]:
    """The words behind a program's name wherever shell text calls it, up to a pipe, a redirection or a comment."""
    found = re.findall(
        rf"(?:^|[\s(]|bin/|-m ){re.escape(program)}((?: +[^\s|;&<>()#]+)+)", text.replace("\\\n", " "), re.MULTILINE
    )
    return [words.split() for words in found]


class Reader:
    """Follows one page in a folder that looks like a fresh clone.

    Args:
        folder: empty or not; what is needed of the project is linked into it.
        replaced: of the page's text, what must be another here, and by what; ports are replaced by themselves.
        prelude: shell functions in place of programs that are not there, or that would change this machine.
        ports: by the page's, those that are settled; each other becomes a free one.
        environment: of the shell, beside this one's own.
    """

    def __init__(
        self,
        folder: Path,
        replaced: Mapping[str, str],
        prelude: str,
        ports: Mapping[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._replaced = replaced
        self._prelude = prelude
        self._ports = dict(ports or {})
        self._environment = environment or {}

    def port(self, named: str) -> int:
        """A free one in place of the page's."""
        if named not in self._ports:
            self._ports[named] = free_port()
        return self._ports[named]

    def follow(self, page: Path, within_s: float, section: str = "") -> None:
        """Run what the page, or its section of that title, tells its reader to run.

        Raises AssertionError with the block that failed, or if there is none to run.
        """
        text = page.read_text()
        begin, end = lines_of(text, section)
        found = [block for block in blocks(text) if begin <= block.line < end]
        assert any(block.runs for block in found), f"nothing to run in {page}"
        script = [self._prelude, "set -euo pipefail"]
        for block in found:
            text = self._here(block.text)
            if "file" in block.asked:
                (self._folder / block.asked["file"]).write_text(text)
            elif block.runs or block.language == "python":
                script.append(self._step(block, text))
        done = self._run("\n".join(script), within_s)
        for block in found:
            self._judge(page, block, done)

    def _here(self, text: str) -> str:
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        return _PORT.sub(lambda match: f"{match[1]}{self.port(match[2])}", text)

    def _step(self, block: Block, text: str) -> str:
        if block.language == "python":
            text = f"python - <<'END OF BLOCK'\n{text}END OF BLOCK\n"
        curls = "refused" if "refused" in block.asked else "answered"
        step = f"export CURL_HOME=curl/{curls}\n{{\n{text}}} >out/{block.line} 2>err/{block.line}"
        if port := block.asked.get("stays"):
            step += " &" + _LISTENING.format(port=self.port(port))
        return step + "\n"

    def _run(self, script: str, within_s: float) -> int | None:
        """The exit status; None: it took too long."""
        for name in ("out", "err"):
            (self._folder / name).mkdir()
        (self._folder / "page.sh").write_text(script)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLICV2_")}
        environment |= {
            "HOME": str(self._folder),
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "PORT": str(self.port("8000")),
            "CLICV2_URL": f"http://127.0.0.1:{self.port('8000')}",
            "CLICV2_THREADS": "1",
            "CLICV2_DEADLINE_S": "60",
            "OMP_NUM_THREADS": "1",
            **self._environment,
        }
        with subprocess.Popen(
            ["bash", "page.sh"], cwd=self._folder, env=environment, start_new_session=True
        ) as process:
            try:
                return process.wait(within_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _end(process)

    def _judge(self, page: Path, block: Block, status: int | None) -> None:
        out, err = (self._folder / name / str(block.line) for name in ("out", "err"))
        where = f"{page.relative_to(ROOT)}, line {block.line}:\n{block.text}"
        if out.exists():
            last = not any(int(each.name) > block.line for each in out.parent.iterdir())
            printed = f"\nprinted: {out.read_text(errors='replace')[-3000:]}\n{err.read_text(errors='replace')[-3000:]}"
            assert status == 0 or not last, f"status {status} in {where}{printed}"
            assert re.search(block.asked.get("prints", ""), out.read_text(errors="replace")), where + printed


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to all that the page has started, and SIGKILL to what does not end."""
    for sign, patience_s in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
        until = time.monotonic() + patience_s
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
            while time.monotonic() < until:
                process.poll()  # what is not waited for is still there
                os.killpg(process.pid, 0)
                time.sleep(0.05)
            continue
        return
