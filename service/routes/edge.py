"""What every HTTP exchange passes: a request id, the counters, errors nobody foresaw, and bodies nobody read.

And HEAD, which is GET without the body (RFC 9110, section 9.3.2): the server leaves the body out.
"""

import asyncio
import logging
import re
import time
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Unavailable
from service.metrics import Metrics
from service.routes.problems import problem_response

log = logging.getLogger(__name__)

HEADER = b"x-request-id"
_VALID_ID = re.compile(rb"[A-Za-z0-9._~-]{1,128}")
# After a refusal, how long and how much of the rest of the body to take and throw away: a client still
# sending into a closed connection would see a reset, and never our answer. As much as a good upload may have.
LINGER_S = 2.0
LINGER_BYTES = 32 << 20


class Edge:
    """Pure ASGI, around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        method = str(scope["method"])
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: in its own the server still sees HEAD
        exchange = _Exchange(scope, receive, send)
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:  # by the server, when the drain has lasted too long
            if exchange.status:
                raise
            await self._answer(exchange, Unavailable("the process ended before there was an answer"))
        except Exception as error:
            log.exception("request %s failed", exchange.request_id)
            if exchange.status:
                raise
            await self._answer(exchange, error)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.requests.labels(route, _label(method), str(exchange.status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.monotonic() - started)

    async def _answer(self, exchange: "_Exchange", error: Exception) -> None:
        response = problem_response(exchange.request_id, error)
        await response(exchange.scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its response on their way through.

    Attributes:
        status: of the response; 0 until it starts.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(HEADER, b"")
        self.request_id = given.decode() if _VALID_ID.fullmatch(given) else token_hex(8)
        self.status = 0
        self.scope = scope
        self._receive = receive
        self._send = send
        self._unread = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (HEADER, self.request_id.encode())]
            if self._unread:
                message["headers"].append((b"connection", b"close"))
        elif self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _linger(self) -> None:
        taken = 0
        try:
            async with asyncio.timeout(LINGER_S):
                while self._unread and taken < LINGER_BYTES:
                    taken += len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass


def _label(method: str) -> str:
    """Bounded, as a label must be; callers may invent methods."""
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
