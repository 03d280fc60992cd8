"""Lines of the log: who they are about, what is in none of them, and that nobody forges one."""

import asyncio
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import log
from service.decoding import off_loop
from service.log import Form, about

pytestmark = pytest.mark.anyio

ours = logging.getLogger("service.test")
PICTURE = b"the picture"
KEY = "clicv2_4k7x9m2p_" + "Vn3T" * 8 + "q8Zc41"


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Whatever a test configures is undone."""
    root = logging.getLogger()
    kept = (root.handlers[:], root.level, sys.excepthook, sys.unraisablehook)
    levels = {name: logging.getLogger(name).level for name in ("service", "clicv2")}
    yield
    root.handlers[:], root.level, sys.excepthook, sys.unraisablehook = kept
    logging.captureWarnings(False)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def written(to: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in to.getvalue().splitlines()]


def configured(form: Form = "json", to: StringIO | None = None, **options: Any) -> StringIO:
    to = to or StringIO()
    log.configure(form, options.pop("level", "info"), to=to, **options)
    return to


async def test_a_line_says_what_it_is_about() -> None:
    to = configured(trace_id=lambda: "ab" * 16)

    async def within() -> None:
        with about(job_id="j1"):
            await asyncio.sleep(0)
            ours.info("one of %d", 2)

    with about(request_id="r1"):
        await asyncio.gather(within(), asyncio.create_task(within()))
        with about(request_id="r2"):
            ours.info("inner")
        ours.info("outer")
    ours.info("nothing")
    first, second, inner, outer, nothing = written(to)
    for line in (first, second):
        assert (line["event"], line["request_id"], line["job_id"]) == ("one of 2", "r1", "j1")
        assert (line["level"], line["logger"], line["trace_id"]) == ("info", "service.test", "ab" * 16)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", first["timestamp"])
    assert inner["request_id"] == "r2"
    assert outer["request_id"] == "r1"
    assert "job_id" not in outer
    assert "request_id" not in nothing


async def test_what_a_thread_says_while_it_decodes_is_about_the_request_too() -> None:
    """Also the warnings of libraries; and a thread says no more of a request that it has left."""
    to = configured()

    def decode() -> None:
        ours.info("decoding")
        warnings.warn_explicit("of Pillow's", UserWarning, "ImageFile.py", 1)

    with ThreadPoolExecutor(1) as pool, warnings.catch_warnings():
        warnings.simplefilter("always")
        with about(request_id="r1"):
            await off_loop(pool, 60, decode)
        await off_loop(pool, 60, ours.info, "nobody's")
    line, warning, nobodys = written(to)
    assert line["request_id"] == warning["request_id"] == "r1"
    assert warning["logger"] == "py.warnings"
    assert "request_id" not in nobodys


def test_a_terminal_is_for_people() -> None:
    terminal, file = configured("auto", Terminal()), StringIO()
    ours.info("hello")
    assert "\x1b[" in terminal.getvalue()  # in colours
    configured("auto", file)
    ours.info("hello")
    assert written(file)[0]["event"] == "hello"


def test_levels_are_of_our_lines() -> None:
    """What libraries say at debug is never logged: python-multipart and Pillow tell of the bytes."""
    to = configured(level="debug")
    ours.debug("ours")
    logging.getLogger("PIL.PngImagePlugin").debug("theirs")
    logging.getLogger("uvicorn.error").info("theirs too", extra={"color_message": "in colours", "status": 1})
    assert [line["event"] for line in written(to)] == ["ours", "theirs too"]
    assert "color_message" not in written(to)[1]
    assert written(to)[1]["status"] == 1
    to = configured(level="error")
    ours.warning("no")
    ours.error("yes")
    assert [line["event"] for line in written(to)] == ["yes"]


def fails(picture: bytes, key: str) -> None:
    try:
        assert int(key)
    except ValueError as error:
        raise RuntimeError(f"no picture of {len(picture)} bytes\nforged") from error


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_has_no_variables(form: Form) -> None:
    to = configured(form)
    try:
        fails(PICTURE, KEY)
    except RuntimeError:
        ours.exception("it failed")
    assert PICTURE.decode() not in to.getvalue()
    assert KEY not in to.getvalue()
    assert "test_log.py" in to.getvalue()
    if form == "json":
        (line,) = written(to)
        outer, inner = line["exception"]
        assert (outer["exc_type"], inner["exc_type"]) == ("RuntimeError", "ValueError")
        assert outer["frames"][-1].keys() == {"filename", "lineno", "name"}
        assert outer["frames"][-1]["name"] == "fails"
    else:
        first, *rest = to.getvalue().splitlines()
        assert "it failed" in first
        assert all(one.startswith("  | ") for one in rest)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("redis://me:pa/ss@word@host:6379/0 is away", "redis://***@host:6379/0 is away"),
        ("https://hooks.example/a?token=t0p#x is away", "https://hooks.example/a?*** is away"),
        (f"with {KEY}", "with clicv2_4k7x9m2p_***"),
        (f"with {KEY[:30]}", "with clicv2_4k7x9m2p_***"),
        ("whsec_AAECAwQFBgcICQoLDA0ODw==", "whsec_***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        (f"got {bytes(range(64))!r}", "got b'***'"),
        ("x" * 121 + "==", "***"),
        ("sha256 " + "ab" * 32, "sha256 " + "ab" * 32),
        ("b'short' " + "words " * 400, "b'short' " + "words " * 400),
    ],
)
def test_what_no_line_holds(text: str, instead: str) -> None:
    to = configured()
    ours.warning(text)
    ours.warning("%s", {"a": [text]})
    with suppress(RuntimeError):
        try:
            raise ValueError(text)
        except ValueError:
            ours.exception("failed")
            raise RuntimeError from None
    event, nested, failed = written(to)
    assert event["event"] == (instead if len(instead) <= 2000 else instead[:2000] + "...")
    assert text not in nested["event"] or text == instead
    assert failed["exception"][0]["exc_value"] == event["event"]


HOSTILE = st.text(st.characters(), max_size=50) | st.sampled_from(
    ["\n{}", "\r", "\x1b[2J", "\x9b1m", "\u2028", "\u202e", "\ud800", "\x00", '"}\n{"event": "forged"}']
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HOSTILE, HOSTILE)
@pytest.mark.parametrize("form", ["json", "console"])
def test_nobody_forges_a_line(form: Form, message: str, value: str) -> None:
    to = configured(form)
    with about(request_id=value):
        ours.info("%s", message, extra={"route": value, "method": [value]})
    assert to.getvalue().count("\n") == 1
    assert to.getvalue().endswith("\n")
    line = to.getvalue()[:-1]
    assert line.isprintable()
    if form == "json":
        assert line.isascii()
        assert json.loads(line)["route"] == value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HOSTILE)
def test_nor_by_an_error(message: str) -> None:
    to = configured("console")
    try:
        raise ValueError(message)
    except ValueError:
        ours.exception("failed")
    first, *rest = to.getvalue()[:-1].split("\n")
    assert "failed" in first
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)


def nested(depth: int, word: str) -> None:
    if depth:
        nested(depth - 1, word)
    raise ExceptionGroup(word * 1000, [ValueError(word * 10) for _ in range(300)])


@pytest.mark.parametrize("word", ["word ", "\u00e9\u00e9 ", "\U0001f600 "])
def test_a_line_is_short(word: str) -> None:
    """Who keeps logs of containers cuts lines of 16 kB."""
    to = configured()
    try:
        try:
            nested(300, word)
        except ExceptionGroup as error:
            raise RuntimeError(word * 10_000) from error
    except RuntimeError:
        with about(request_id=word * 1000, job_id=word * 1000):
            ours.exception(word * 10_000)
    (line,) = to.getvalue().splitlines()
    assert len(line) < 16_000
    assert json.loads(line)["exception"][0]["exc_type"] == "RuntimeError"


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    "wrong", [lambda: ours.info("%d", KEY), lambda: ours.info("%s %s", 1), lambda: ours.info("%s", Unprintable())]
)
def test_a_line_that_cannot_be_written_says_so(wrong: Callable[[], None]) -> None:
    to = configured()
    wrong()
    (line,) = written(to)
    assert "could not be written: test_log.py:" in line["event"]
    assert line["level"] == "error"


def test_nobody_to_write_to() -> None:
    to = configured()
    to.close()
    ours.info("into the void")


def test_warnings_are_lines() -> None:
    to = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("something is old", DeprecationWarning, stacklevel=1)
    (line,) = written(to)
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "something is old" in line["event"]


def test_what_nobody_caught_is_a_line() -> None:
    """At the top, in a thread, and where nobody could have caught it."""
    script = """
import sys, threading
from service import log
log.configure("json", "info")
threading.Thread(target=lambda: 1 / 0).start()
class Bad:
    def __del__(self):
        raise OSError("unraisable")
Bad()
secret = "hunter2"
raise RuntimeError("top")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert {line["exception"][0]["exc_type"] for line in lines} == {"ZeroDivisionError", "OSError", "RuntimeError"}
    assert {line["level"] for line in lines} == {"critical"}
    assert "hunter2" not in ended.stderr
