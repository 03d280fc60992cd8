"""HTTP before there is a request: its head is bounded in bytes and time, and what is no HTTP is told so as a problem.

uvicorn keeps a head in memory until it is complete, however long that takes and however large it becomes: one
connection could hold all of it. Measured: 300 MB sent as headers were 330 MB held.
"""

import asyncio
from collections.abc import Mapping
from secrets import token_hex

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import Problem

# Others allow 8 to 80 KiB; all that this service reads fits into one. A head that comes in one piece may be larger, by
# as much as is read from a socket at once.
MAX_HEAD_BYTES = 64 << 10
# From the first byte to the empty line, and for a new connection to its first byte.
HEAD_TIMEOUT_S = 10.0

MALFORMED = Problem(400, "malformed-request", "Not a valid HTTP request")
TOO_LARGE = Problem(431, "headers-too-large", "The request's headers are too large")
TOO_SLOW = Problem(408, "headers-timeout", "The request's headers took too long")


class BoundedHttp(HttpToolsProtocol):
    """For `uvicorn.Config(http=...)`."""

    _head_bytes = 0
    _in_head = True
    _started = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and self._started and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(TOO_LARGE, f"the method, path and headers may have {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        self._in_head = self._started = True
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = self._started = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for whatever its parser does not take."""
        self._refuse(MALFORMED, msg)

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._started:
            self._refuse(TOO_SLOW, f"they did not arrive within {HEAD_TIMEOUT_S:g} s")
        else:
            self.transport.close()  # a connection that was opened for later, or for nothing

    def _refuse(self, problem: Problem, detail: str) -> None:
        self._stop_timer()
        self.transport.write(_response(problem, detail, self.root_path))
        self.transport.close()


def _response(problem: Problem, detail: str, root_path: str) -> bytes:
    request_id = token_hex(8)
    body = orjson.dumps(
        {
            "type": problem.type,
            "title": problem.title,
            "status": problem.status,
            "detail": detail,
            "instance": f"urn:clicv2:request:{request_id}",
        }
    )
    headers: Mapping[str, str] = {
        "content-type": "application/problem+json",
        "content-length": str(len(body)),
        "link": f'<{root_path}/errors/{problem.slug}>; rel="help"',
        "x-request-id": request_id,
        "x-content-type-options": "nosniff",
        "connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[problem.status] + lines.encode() + b"\r\n" + body
