"""A job's progress as server-sent events: the HTML standard, section 9.2."""

import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, suppress
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.sse import format_sse_event
from starlette.types import Receive, Scope, Send

from service.door import Door
from service.errors import (
    ClientGone,
    InvalidParameter,
    Unavailable,
    UnknownJob,
)
from service.ingest import unless_gone
from service.jobs.parts import Jobs
from service.jobs.protocol import Event, Facts
from service.routes import job_examples

EVENT_STREAM = "text/event-stream"
LAST_EVENT = "Last-Event-ID"
# How long a browser waits before it comes back for the events that it has missed.
_RETRY_MS = 1000
# How soon a stream notices that the process drains.
_GLANCE_S = 0.5


class EventStream(Response):
    """Sends events as they come, until there are no more or nobody listens."""

    media_type = EVENT_STREAM

    def __init__(self, request: Request, events: AsyncGenerator[bytes, None], inside: ExitStack) -> None:
        # X-Accel-Buffering: nginx would keep events until it has 4 kB of them.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._request = request
        self._events = events
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        with self._inside, suppress(ClientGone):
            async with unless_gone(self._request), aclosing(self._events) as events:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": b""})


async def events_after(jobs: Jobs, door: Door, facts: Facts, owner: str, after: int) -> AsyncGenerator[bytes, None]:
    """The events of a job that come after one, as they are sent."""
    first = _data({"status": facts.status}, facts.items, facts.scored, facts.failed)
    yield format_sse_event(event="job", data_str=first, retry=_RETRY_MS)
    said_at = time.monotonic()
    while not door.draining:
        try:
            found = await jobs.store.events(facts.id, owner, after, _GLANCE_S)
        except UnknownJob:
            left = _data({"status": "deleted"}, facts.items, facts.scored, facts.failed)
            yield format_sse_event(event="end", data_str=left)
            return
        except Unavailable:
            return
        for event in found:
            yield _sent(event, facts.items)
            after = event.id
            if event.kind == "end":
                return
        now = time.monotonic()
        if found:
            said_at = now
        elif now - said_at >= jobs.limits.heartbeat_s:
            said_at = now
            yield format_sse_event(comment="still here")


def _sent(event: Event, items: int) -> bytes:
    of = {"status": event.summary.decode()} if event.kind == "end" else orjson.loads(event.summary)
    return format_sse_event(event=event.kind, data_str=_data(of, items, event.scored, event.failed), id=str(event.id))


def _data(of: dict[str, object], items: int, scored: int, failed: int) -> str:
    counts = {"items": items, "scored": scored, "failed": failed, "left": items - scored - failed}
    return orjson.dumps({**of, "counts": counts}).decode()


def last_event(request: Request) -> int:
    """Raises InvalidParameter."""
    given = request.headers.get(LAST_EVENT, "0")
    if not (given.isascii() and given.isdigit() and len(given) <= 9):
        raise InvalidParameter(LAST_EVENT, f"the number of an event, not {given[:40]!r}")
    return int(given)


EVENTS: dict[str, Any] = {
    "description": "Events, each with a `JobEvent` as its data; a comment when there is nothing to tell.",
    "content": {
        EVENT_STREAM: {
            # No type: of such a stream OpenAPI 3.1 means the whole text, 3.2 and its tools each event.
            "schema": {"description": "See the HTML standard, server-sent events."},
            "example": job_examples.EVENTS,
        }
    },
}
LAST_EVENT_PARAMETER: dict[str, Any] = {
    "name": LAST_EVENT,
    "in": "header",
    "required": False,
    "description": "The id of the last event that was received; a browser sends it by itself when it comes back.",
    "schema": {"type": "string", "pattern": r"^\d{1,9}$"},
    "example": "17",
}
