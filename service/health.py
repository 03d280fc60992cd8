"""Health that tells the truth: the worker is kept alive or the process ends; readiness is proved by an answer."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import numpy as np

from clicv2.imaging import Pixels
from clicv2.spec import PreprocessSpec
from service.errors import Draining, NotReady, ServiceError

log = logging.getLogger(__name__)

RESTART_DELAY_S = 0.1


class Supervisor:
    """Runs a core task for as long as the process lives, and starts it again when it dies.

    Attributes:
        alive: False once it has died more than `restarts` times within `within_s` seconds; then
            `give_up` has been called, which is to end the process.
    """

    def __init__(
        self,
        run: Callable[[], Awaitable[None]],
        give_up: Callable[[], None],
        *,
        what: str = "the worker",
        restarts: int = 3,
        within_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.alive = True
        self._run = run
        self._give_up = give_up
        self._what = what
        self._restarts = restarts
        self._within_s = within_s
        self._clock = clock

    async def watch(self) -> None:
        deaths: deque[float] = deque()
        while True:
            try:
                await self._run()
                log.error("%s ended without a reason", self._what)
            except Exception:
                log.exception("%s died", self._what)
            deaths.append(self._clock())
            while deaths[0] < deaths[-1] - self._within_s:
                deaths.popleft()
            if len(deaths) > self._restarts:
                log.critical("%s died %d times within %g s: giving up", self._what, len(deaths), self._within_s)
                self.alive = False
                self._give_up()
                return
            await asyncio.sleep(RESTART_DELAY_S)


class Drained(Protocol):
    """Whatever takes nothing new once it drains."""

    @property
    def draining(self) -> bool: ...


class Road(Protocol):
    """The road that pictures take.

    Attributes:
        answered_at: instant of the last answer to anybody.
    """

    @property
    def answered_at(self) -> float: ...

    async def prove(self, pixels: Pixels, deadline: float) -> None:
        """Take a picture along it by `deadline`. Raises ServiceError."""
        ...


class Readiness:
    """Ready means: a picture has just gone the whole road and was answered, a caller's or our own."""

    def __init__(
        self,
        door: Drained,
        road: Road,
        spec: PreprocessSpec,
        *,
        ready_for_s: float,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._door = door
        self._road = road
        self._picture = _golden_picture(spec)
        self._ready_for_s = ready_for_s
        self._deadline_s = deadline_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self._failed_at = float("-inf")
        self._failure = ""

    async def check(self) -> None:
        """Raises Draining or NotReady."""
        if self._door.draining:
            raise Draining
        async with self._lock:  # one probe at a time, whose finding the others share
            now = self._clock()
            if now - self._road.answered_at < self._ready_for_s:
                return
            if now - self._failed_at >= self._ready_for_s:
                await self._probe(now)
        if self._failure:
            raise NotReady(self._failure)

    async def _probe(self, now: float) -> None:
        try:
            await self._road.prove(self._picture, now + self._deadline_s)
            self._failure = ""
        except ServiceError as error:
            self._failed_at = self._clock()
            self._failure = f"a trial picture got no answer: {error}"


def _golden_picture(spec: PreprocessSpec) -> Pixels:
    """Smooth on the left and busy on the right, so that no part of the model is idle."""
    rows, columns = np.mgrid[0 : spec.height, 0 : spec.width]
    checkers = (rows + columns) % 2 * (columns > spec.width // 2)
    levels = (255 * columns / spec.width * (1 - checkers)).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)
