"""The log's lines: each a JSON object in production, and in columns for people on a terminal.

The code logs as ever, by the loggers of the standard library. What is here gives each line its form, and says what it
is about: `with about(request_id=...)` is in every line of the work within, also in tasks that it starts and in the
threads that decode and render for it.

    what may be in a line   ends up there as
    newlines, escapes       \\n, \\u001b: nobody who names a file or sends a header can forge a line
    a traceback             frames without their variables, which hold pictures and keys
    keys, credentials,      ***: no line is to hold them, and should one do so nevertheless, they are taken out
      queries, pictures

A line has few kilobytes, for what keeps logs of containers cuts lines of 16 kB in two, and a half is no JSON.
"""

import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Literal, TextIO

import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars, reset_contextvars
from structlog.processors import JSONRenderer, TimeStamper
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

log = logging.getLogger(__name__)

Form = Literal["json", "console", "auto"]
Level = Literal["debug", "info", "warning", "error"]

# What a line may say by `extra=`. What libraries put there is left out: of uvicorn its message again, in colours.
FACTS = ("method", "route", "status", "duration_s", "received_bytes", "sent_bytes")

_OURS = ("service", "clicv2")
_LONGEST_TEXT = 2000
_SHORT_TEXT = 200  # of a line that is too long; a character may become six
_LONGEST_LINE = 12_000
_FRAMES = 16

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"://[^\s\"']*@"), "://***@"),
    (re.compile(r"(://[^\s\"'?#]*)\?[^\s\"']*"), r"\1?***"),
    (re.compile(r"\b(clicv2_[a-z0-9]{8})_[0-9A-Za-z]+"), r"\1_***"),  # the id of an API key is public
    (re.compile(r"\bwhsec_[\w+/=-]+"), "whsec_***"),
    (re.compile(r"\b(bearer|basic) +[^\s\"']+", re.IGNORECASE), r"\1 ***"),
    # Bytes, as Python and as JSON write them.
    (re.compile(r"\bb(['\"])(?:\\.|(?!\1).){16,}\1?", re.DOTALL), "b'***'"),
    (re.compile(r"[A-Za-z0-9+/_-]{120,}={0,2}"), "***"),
)


class about:  # noqa: N801  # reads as `with about(job_id=...)`
    """Each line that is logged within has these, also in tasks that begin there; costs 2 us."""

    def __init__(self, **facts: str) -> None:
        self._facts = facts

    def __enter__(self) -> None:
        self._before = bind_contextvars(**self._facts)

    def __exit__(self, *_: object) -> None:
        reset_contextvars(**self._before)


def configure(
    form: Form, level: Level, *, trace_id: Callable[[], str | None] = lambda: None, to: TextIO | None = None
) -> None:
    """Give whatever this process logs from now on its form; also warnings, and errors that nobody caught.

    Args:
        form: auto: for people where `to` is a terminal, else JSON.
        level: of our own lines. Those of libraries are never lower than info: at debug they may hold parts of pictures.
        trace_id: of what is being worked on now.
        to: None: standard error.
    """
    stream = to or sys.stderr
    people = form == "console" or (form == "auto" and stream.isatty())
    begin: list[Processor] = [
        merge_contextvars,
        _tracing(trace_id),
        add_logger_name,
        add_log_level,
        ExtraAdder(allow=FACTS),
        TimeStamper(fmt="iso", utc=True),
        ProcessorFormatter.remove_processors_meta,
    ]
    end: list[Processor] = (
        [_clean, _visible, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_indented)]
        if people
        else [_traceback, _clean, _one_line]
    )
    handler = _Handler(stream)
    handler.setFormatter(ProcessorFormatter(processors=[*begin, *end]))
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(number)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = lambda what: _log_uncaught(what.exc_type, what.exc_value, what.exc_traceback)
    threading.excepthook = lambda what: _log_uncaught(what.exc_type, what.exc_value, what.exc_traceback)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """The standard library would print the arguments, over several lines."""
        with suppress(Exception):  # there is nobody left to tell
            where = f"a line of {record.name} could not be written: {record.filename}:{record.lineno}"
            error = logging.LogRecord(__name__, logging.ERROR, "", 0, where, (), None)
            self.stream.write(self.format(error) + self.terminator)


def _uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
    else:
        _log_uncaught(kind, error, where)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    log.critical("an error that nobody caught", exc_info=(kind, error or kind(), where))


def _tracing(trace_id: Callable[[], str | None]) -> Processor:
    def add(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
        found = trace_id()
        if found:
            line["trace_id"] = found
        return line

    return add


_frames_of = ExceptionDictTransformer(show_locals=False, max_frames=_FRAMES, use_rich=False)


def _traceback(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    error = line.pop("exc_info", None)
    if error and error[0] is not None:
        line["exception"] = _frames_of(error)
    return line


def _clean(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Without what no line may hold, and no text too long."""
    return {key: value if key == "exc_info" else _each(value, _without_secrets) for key, value in line.items()}


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # of whatever somebody logs; the line is worth more than this
        return f"a {type(value).__name__}"


_json = JSONRenderer(default=_text)


def _one_line(logger: WrappedLogger, name: str, line: EventDict) -> str | bytes:
    """As JSON in ASCII; if that is too long, with what texts begin with and where errors came from."""
    text = _json(logger, name, line)
    if len(text) <= _LONGEST_LINE:
        return text
    stacks = line.get("exception", ())
    if stacks:
        kept = ("exc_type", "exc_value")
        line["exception"] = [
            {key: stack[key] for key in kept} | {"frames": stack["frames"][-2:]} for stack in stacks[:4]
        ]
    return _json(logger, name, {key: _each(value, lambda one: one[:_SHORT_TEXT]) for key, value in line.items()})


def _visible(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """What would move a terminal's cursor is written as Python would."""
    return {key: value if key == "exc_info" else _each(value, _printable) for key, value in line.items()}


def _indented(to: TextIO, error: ExcInfo) -> None:
    """A traceback whose every line shows that it belongs to one, whatever the error's text pretends."""
    text = _without_secrets("".join(traceback.format_exception(*error)), 4 * _LONGEST_LINE)
    to.write("\n".join(f"  | {_printable(line)}" for line in text.splitlines()))


def _each(value: object, change: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_each(one, change) for one in value]
    return value if isinstance(value, bool | int | float | None) else change(_text(value))


def _without_secrets(text: str, longest: int = _LONGEST_TEXT) -> str:
    text = text[: 2 * longest]  # before the search, whose time is bounded by it; the end may hold half a secret
    for secret, instead in _SECRETS:
        text = secret.sub(instead, text)
    return text if len(text) <= longest else text[:longest] + "..."


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
