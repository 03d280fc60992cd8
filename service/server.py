"""uvicorn, with a drain: SIGTERM -> refuse new requests, finish old ones, exit within a bounded time."""

import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.door import Door
from service.settings import Settings

# After the drain, how long uploads that are still under way may take. With the longest drain: below 20 s.
UPLOADS_S = 3


class DrainingServer(uvicorn.Server):
    """On the first signal the door refuses and /readyz says so; the port closes once those inside have gone.

    A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, door: Door, settings: Settings) -> None:
        super().__init__(config)
        self._door = door
        self._notice_s = settings.drain_notice_s
        self._timeout_s = settings.drain_timeout_s
        self._draining_since: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining_since is not None:
            super().handle_exit(sig, frame)
            return
        self._door.draining = True
        self._draining_since = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends its main loop."""
        return await super().on_tick(counter) or self._drained()

    def _drained(self) -> bool:
        if self._draining_since is None:
            return False
        drained_for = time.monotonic() - self._draining_since
        return drained_for >= self._timeout_s or (drained_for >= self._notice_s and self._door.in_flight == 0)


def make_server(app: FastAPI, door: Door, settings: Settings) -> DrainingServer:
    """An HTTP server for the application, by the settings."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http="httptools",
        loop="uvloop",
        ws="none",
        access_log=settings.access_log,
        server_header=False,
        timeout_graceful_shutdown=UPLOADS_S,
    )
    return DrainingServer(config, door, settings)
