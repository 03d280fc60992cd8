"""uvicorn, with a drain: SIGTERM -> refuse new requests, finish old ones, exit within a bounded time."""

import time
from types import FrameType
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from service.framing import BoundedHttp
from service.settings import Settings

# After the drain, how long uploads that are still under way may take. With the longest drain: below 20 s.
UPLOADS_S = 3


class Drains(Protocol):
    """What ends before the port closes: the gateway's door, or a worker."""

    @property
    def in_flight(self) -> int: ...

    def drain(self) -> None:
        """Take nothing new."""
        ...


class DrainingServer(uvicorn.Server):
    """On the first signal nothing new is taken and /readyz says so; the port closes once what is inside has gone.

    A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, inside: Drains, settings: Settings) -> None:
        super().__init__(config)
        self._inside = inside
        self._notice_s = settings.drain_notice_s
        self._timeout_s = settings.drain_timeout_s
        self._draining_since: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining_since is not None:
            super().handle_exit(sig, frame)
            return
        self._inside.drain()
        self._draining_since = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends its main loop."""
        return await super().on_tick(counter) or self._drained()

    def _drained(self) -> bool:
        if self._draining_since is None:
            return False
        drained_for = time.monotonic() - self._draining_since
        return drained_for >= self._timeout_s or (drained_for >= self._notice_s and self._inside.in_flight == 0)


def make_server(app: FastAPI, inside: Drains, settings: Settings) -> DrainingServer:
    """An HTTP server for the application, by the settings."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedHttp,
        loop="uvloop",
        ws="none",
        log_config=None,  # its lines go the way of all others; see `service.log`
        access_log=False,  # `service.routes.edge` writes it, without paths and queries
        server_header=False,
        root_path=settings.root_path,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),  # of none, too: else uvicorn believes whoever is on this machine
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=UPLOADS_S,
    )
    return DrainingServer(config, inside, settings)
