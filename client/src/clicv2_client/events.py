"""A job's events: server-sent events (HTML standard, 9.2) read without I/O, and when to come back for more of them.

A stream that ends without the event `end` has more to tell: `Listening` says after which event to go on, and when.
"""

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic_core import from_json

from clicv2_client.errors import Clicv2Error, InvalidAnswer, TimedOut
from clicv2_client.results import JobEvent
from clicv2_client.retry import Retry


@dataclass(frozen=True, slots=True)
class ServerSent:
    """An event as the standard has it."""

    kind: str
    data: str
    id: str | None


class Parser:
    """Takes a stream in pieces, and gives its events.

    Attributes:
        retry_s: how long to wait before coming back, if the stream has said.
    """

    def __init__(self) -> None:
        self.retry_s: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._kind = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, piece: bytes) -> Iterator[ServerSent]:
        """The events that are whole by now."""
        text = self._line + self._decoder.decode(piece)
        # A "\r" at the very end may be the first half of "\r\n".
        held = "\r" if text.endswith("\r") else ""
        lines = text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._line = lines.pop() + held
        for line in lines:
            if line:
                self._field(line)
            elif self._data:
                yield ServerSent(self._kind or "message", "\n".join(self._data), self._id)
                self._begin()
            else:
                self._begin()

    def _begin(self) -> None:
        self._kind, self._data, self._id = "", [], None

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000


class Listening:
    """What is known of a job's events, over all the streams that they come in.

    Args:
        after: the last event that is known; 0: none.
        luck: uniform in [0, 1).
        patience_s: how long new streams are asked for when none says anything.

    Attributes:
        ended: there is nothing more to come.
    """

    def __init__(
        self, after: int, retry: Retry, luck: Callable[[], float], clock: Callable[[], float], patience_s: float
    ) -> None:
        self.ended = False
        self._after = after
        self._retry = retry
        self._luck = luck
        self._clock = clock
        self._patience_s = patience_s
        self._silent_since: float | None = None
        self._failures = 0
        self._said_s: float | None = None
        self._parser = Parser()

    def headers(self) -> dict[str, str]:
        """Of the request for the next stream."""
        self._parser = Parser()
        return {"Last-Event-ID": str(self._after)} if self._after else {}

    def feed(self, piece: bytes) -> Iterator[JobEvent]:
        """Raises InvalidAnswer."""
        self._silent_since = None
        for sent in self._parser.feed(piece):
            event = _read(sent)
            if event.id is not None:
                self._after = event.id
            self._failures = 0
            self.ended = self.ended or event.kind == "end"
            yield event

    def pause_s(self, error: Clicv2Error | None) -> float:
        """How long to wait until the next stream. Raises the error, or TimedOut, if there is to be none.

        Args:
            error: None: a stream was there, and has ended too soon.
        """
        now = self._clock()
        self._silent_since = now if self._silent_since is None else self._silent_since
        if now - self._silent_since > self._patience_s:
            raise error or TimedOut(f"no word of the service for {self._patience_s:g} s")
        self._failures += 1
        self._said_s = self._parser.retry_s or self._said_s
        if error is not None and not (error.retryable and self._retry.allows(self._failures)):
            raise error
        asked_s = self._said_s if error is None else error.retry_after_s
        return self._retry.pause_s(self._failures, asked_s, self._luck())


def _read(sent: ServerSent) -> JobEvent:
    event_id = int(sent.id) if sent.id and sent.id.isascii() and sent.id.isdigit() else None
    try:
        return JobEvent.model_validate({**from_json(sent.data), "kind": sent.kind, "id": event_id})
    except (ValueError, TypeError) as error:  # ValidationError is a ValueError
        raise InvalidAnswer(f"no event of a job: {sent.kind}: {sent.data[:200]}") from error
