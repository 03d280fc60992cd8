"""What every HTTP exchange passes: a request id, the counters, errors nobody foresaw, and bodies nobody read.

And HEAD, which is GET without the body (RFC 9110, section 9.3.2): the server leaves the body out.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from secrets import token_hex

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import tracing
from service.errors import Unavailable
from service.log import about
from service.metrics import Metrics
from service.routes.problems import problem_response
from service.routes.under_path import own_path, root_path
from service.tracing import Span, Tracer

log = logging.getLogger(__name__)

HEADER = b"x-request-id"
_VALID_ID = re.compile(rb"[A-Za-z0-9._~-]{1,128}")
# After a refusal, how long and how much of the rest of the body to take and throw away: a client still
# sending into a closed connection would see a reset, and never our answer. As much as a good upload may have.
LINGER_S = 2.0
LINGER_BYTES = 32 << 20
# Asked every few seconds by those who watch; in a collector they would bury what callers asked.
_UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})


class Edge:
    """Pure ASGI, around the whole application.

    Args:
        access_log: whether there is a line in the log for each request.
        tracer: None: nothing is traced.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, *, access_log: bool = False, tracer: Tracer | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        span = self._begin(scope, exchange) if self._tracer else None
        with about(request_id=exchange.request_id), tracing.within(span):
            await self._pass(scope, exchange, span)

    async def _pass(self, scope: Scope, exchange: "_Exchange", span: Span | None) -> None:
        started = time.monotonic()
        method = str(scope["method"])
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: in its own the server still sees HEAD
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        self._metrics.request_began()
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
            took_s, route, method = time.monotonic() - started, _route(scope), _label(method)
            self._metrics.request_ended(route, method, exchange.status, took_s, exchange.received)
            if span:
                _conclude(span, method, route, exchange.status)
            if self._access_log:
                log.info("request", extra=_facts(exchange, method, route, took_s))

    def _begin(self, scope: Scope, exchange: "_Exchange") -> Span | None:
        if self._tracer is None or own_path(scope) in _UNTRACED:
            return None
        facts = {"http.request.method": _label(str(scope["method"])), "clicv2.request_id": exchange.request_id}
        return self._tracer.begin("request", facts, "server", parent=exchange.traceparent)

    async def _answer(self, exchange: "_Exchange", error: Exception) -> None:
        response = problem_response(exchange.request_id, error)
        await response(exchange.scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its response on their way through.

    Attributes:
        status: of the response; 0 until it starts.
        received, sent: bytes of the bodies so far.
        traceparent: the caller's, if there is one; whatever it is.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(HEADER, b"")
        self.request_id = given.decode() if _VALID_ID.fullmatch(given) else token_hex(8)
        self.status = 0
        self.received = 0
        self.sent = 0
        self.traceparent = headers.get(b"traceparent", b"").decode("latin-1")
        self.scope = scope
        self._receive = receive
        self._send = send
        self._unread = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        self.sent += len(message.get("body", b""))
        if message["type"] == "http.response.start":
            self.status = int(message["status"])  # some give a member of HTTPStatus
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


def _route(scope: Scope) -> str:
    """The template of the request's path, also of a request that was refused before it came to its route."""
    route = scope.get("route")
    if route is None and "app" in scope:
        route = _matching(scope["app"].routes, {**scope, "root_path": root_path(scope)})
    return getattr(route, "path", "") or "unmatched"


def _matching(routes: Sequence[BaseRoute], scope: Scope) -> BaseRoute | None:
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            included = getattr(route, "original_router", None)  # FastAPI keeps a router that it includes as it is
            return _matching(included.routes, scope) if included else route
    return None


def _conclude(span: Span, method: str, route: str, status: int) -> None:
    """The template and not the path, nor the query: neither is ours to keep."""
    span.rename(f"{method} {route}")
    span.note({"http.route": route, "http.response.status_code": status})
    if status >= 500:
        span.fail("")


def _facts(exchange: _Exchange, method: str, route: str, took_s: float) -> dict[str, str | int | float]:
    """Of an answer, for the log; see `service.log.FACTS`. A status of 0: the caller left before there was one."""
    return {
        "method": method,
        "route": route,
        "status": exchange.status,
        "duration_s": round(took_s, 6),
        "received_bytes": exchange.received,
        "sent_bytes": 0 if method == "HEAD" else exchange.sent,
    }


def _label(method: str) -> str:
    """Bounded, as a label must be; callers may invent methods."""
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
