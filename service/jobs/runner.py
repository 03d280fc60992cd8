"""Drives jobs: takes one after the other, a few at a time, and scores their pictures as a batch's are scored.

A job takes what callers who wait leave. It has at most `lanes` pictures inside; with the door more than half full
only one, which waits for room like those of a batch, and is never shed. What is wrong with a picture is its result;
what is wrong with the service (no room, no worker, no Redis) is waited for until the job is too old.

A picture may kill its driver, by the memory that it takes or by a defect of a decoder. The next driver cannot know
which of those that were under way it was, so it takes these alone, one after the other, before all others. So an
innocent one has its result after the second driver, and the guilty one is given up after `max_attempts`.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import TypeVar

import orjson
from pydantic import ValidationError

from clicv2.errors import ImageError
from service import tracing
from service.answering import Answering, complexity
from service.archives import refuse_archive
from service.door import Door
from service.errors import DeadlineExceeded, InferenceFailed, Overloaded, ServiceError, Unavailable, UrlInputDisabled
from service.jobs.protocol import End, JobLimits, Lease, LeaseLost, Source, Store
from service.jobs.webhook import Webhooks
from service.log import about
from service.metrics import Metrics
from service.schemas import Complexity, Options
from service.tracing import Facts, Span, Tracer

log = logging.getLogger(__name__)

T = TypeVar("T")

# From a URL and a deadline to the bytes that are there.
Fetch = Callable[[str, float], Awaitable[bytes]]
# From the id of a request and an error to the problem document.
Describe = Callable[[str, Exception], Mapping[str, object]]

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
# How long a lane looks away from a door that is more than half full.
_COURTESY_S = 0.05
# How soon it is noticed that the process drains.
_GLANCE_S = 0.1
# Webhooks on their way at once: a receiver that does not answer holds up one of them for its timeout.
_DELIVERIES = 4
# Times that a picture may miss its deadline, because the service is busy or because the picture is slow.
_DEADLINES = 3


class Runner:
    """Drives the jobs of a store until the door drains, and then lets go of them at once.

    Args:
        door: of the gateway; jobs enter by it as everybody does.
        crowd: so many inside, and a job has one picture there at most.
        deadline_s: of one picture, as if it had come alone.
        describe: makes an item's problem.
        fetch: None: no picture is taken by its URL.
        webhooks: None: none are sent.
        tracer: None: nothing is traced.

    Attributes:
        driven: how many jobs it drives now.
    """

    def __init__(
        self,
        store: Store,
        answering: Answering,
        door: Door,
        metrics: Metrics,
        limits: JobLimits,
        describe: Describe,
        *,
        crowd: int,
        deadline_s: float,
        fetch: Fetch | None = None,
        webhooks: Webhooks | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._store = store
        self._answering = answering
        self._door = door
        self._metrics = metrics
        self._limits = limits
        self._describe = describe
        self._crowd = crowd
        self._deadline_s = deadline_s
        self._fetch = fetch
        self._webhooks = webhooks
        self._tracer = tracer
        self._bell = asyncio.Event()
        self.driven = 0

    def wake(self) -> None:
        """There is a job."""
        self._bell.set()

    async def run(self) -> None:
        """Until cancelled; whatever escapes is a defect. Cancelled, it releases what it drives before it ends."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._limits.driven):
                tasks.create_task(self._drive_all(), name=f"drive jobs {number}")
            if self._webhooks:
                for number in range(_DELIVERIES):
                    tasks.create_task(self._deliver_all(self._webhooks), name=f"deliver webhooks {number}")

    async def _drive_all(self) -> None:
        while True:
            lease: Lease | None = None
            if not self._door.draining:
                with suppress(Unavailable):
                    lease = await self._store.claim()
            if lease is None:
                await self._idle()
            else:
                with about(api_job_id=lease.job_id, request_id=lease.request_id):
                    await self._drive(lease)

    async def _idle(self) -> None:
        """Until there is a job here, or perhaps one that another gateway let go of."""
        self._bell.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.poll_s * random.uniform(0.5, 1.0)):
                await self._bell.wait()

    async def _drive(self, lease: Lease) -> None:
        try:
            drive = _Drive(lease)
        except ValidationError as error:  # made by a newer release, during a roll-out: its gateways will drive it
            log.warning("job %s waits for a gateway that knows its options: %s", lease.job_id, error)
            with suppress(Unavailable):
                await self._store.release(lease, [])
            await asyncio.sleep(self._limits.lease_s)
            return
        self.driven += 1
        self._metrics.job_driven(lease.abandoned)
        work = asyncio.create_task(self._work(drive))
        keep = asyncio.create_task(self._keep(drive))
        try:
            await asyncio.wait({work, keep}, return_when=asyncio.FIRST_COMPLETED)
            for task in (work, keep):
                if task.done():
                    task.result()
        except LeaseLost:
            pass  # whoever drives it now has all that is needed
        finally:
            await _end(work, keep)
            self.driven -= 1
            self._metrics.job_released()
            # After its end, or a lease that was lost, this does nothing.
            with suppress(Unavailable):
                await self._store.release(lease, sorted(drive.under_way))

    async def _keep(self, drive: "_Drive") -> None:
        """Renew the lease, and watch whether the job is to give way."""
        began = renewed = time.monotonic()
        while True:
            await asyncio.sleep(_GLANCE_S)
            now = time.monotonic()
            drive.stopping |= self._door.draining
            if now - renewed < self._limits.lease_s / 3:
                continue
            with suppress(Unavailable):  # as long as nobody else gets it either, it is held
                found = await self._store.renew(drive.lease)
                if not found.held:
                    raise LeaseLost
                drive.stopping |= found.waiting > 0 and now - began >= self._limits.slice_s
            renewed = now

    async def _work(self, drive: "_Drive") -> None:
        suspects = deque(place for place, attempts in drive.lease.left if attempts)
        others = deque(place for place, attempts in drive.lease.left if not attempts)
        await self._lane(drive, suspects, first=True)
        lanes = [
            asyncio.create_task(self._lane(drive, others, first=not number)) for number in range(self._limits.lanes)
        ]
        try:
            await asyncio.gather(*lanes)
        finally:
            await _end(*lanes)

    async def _lane(self, drive: "_Drive", places: deque[int], *, first: bool) -> None:
        while places and not drive.stopping:
            # Before it has an item, so that the first lane, which is not so polite, may take all of them.
            if not first and self._door.in_flight >= self._crowd:
                await asyncio.sleep(_COURTESY_S * random.uniform(0.5, 1.5))
                continue
            place = places.popleft()
            drive.under_way.add(place)
            try:
                with tracing.within(self._trace(drive.lease, place)):
                    await self._item(drive, place)
            except _LetGo:
                return  # it stays under way, so that the release says so
            drive.under_way.remove(place)

    def _trace(self, lease: Lease, place: int) -> Span | None:
        """Of its own for each picture: that of the request has long ended, and a thousand pictures are no trace."""
        facts: Facts = {"clicv2.api_job_id": lease.job_id, "clicv2.request_id": lease.request_id, "clicv2.item": place}
        return self._tracer.begin("item", facts, "consumer") if self._tracer else None

    async def _item(self, drive: "_Drive", place: int) -> None:
        """Take an item to its end, and write that down. Raises LeaseLost."""
        lease = drive.lease
        taken = await self._patiently(drive, lambda: self._store.take(lease, place))
        if taken is None:
            return
        if taken.attempt > self._limits.max_attempts:
            killed = InferenceFailed(f"{self._limits.max_attempts} gateways ended while they worked on this picture")
            end = self.failed(lease.request_id, place, taken.source.name, killed)
        else:
            end = await self._score(drive, place, taken.source)
        await self._patiently(drive, lambda: self._store.finish(lease, place, end))
        self._metrics.job_item(end.scored)

    async def _score(self, drive: "_Drive", place: int, source: Source) -> End:
        expired = 0
        pauses = _pauses()
        while True:
            try:
                scored = await self._answer(drive, source)
            except DeadlineExceeded as error:
                expired += 1
                if expired >= _DEADLINES:
                    return self.failed(drive.lease.request_id, place, source.name, error)
            except (Overloaded, Unavailable):
                pass  # not the picture's fault, and it will be over
            except (ServiceError, ImageError) as error:
                return self.failed(drive.lease.request_id, place, source.name, error)
            except Exception as error:  # one picture's, and not the runner's with all of its jobs
                log.exception("a picture of job %s failed", drive.lease.job_id)
                return self.failed(drive.lease.request_id, place, source.name, error)
            else:
                return _scored(place, source.name, scored)
            await drive.pause(next(pauses))

    async def _answer(self, drive: "_Drive", source: Source) -> Complexity:
        """Raises ServiceError, ImageError."""
        began = time.monotonic()
        until = began + self._deadline_s
        data = source.data
        if data is None:
            if self._fetch is None:  # no longer: the job was made before this gateway was started
                raise UrlInputDisabled("this server takes no pictures by URL")
            data = await self._fetch(source.url or "", until)
        refuse_archive(data)
        with self._door.entered():
            now = time.monotonic()
            answered = await self._answering.answer(data, drive.options, now + self._deadline_s)
        return complexity(answered, drive.options, began)

    async def _patiently(self, drive: "_Drive", call: Callable[[], Awaitable[T]]) -> T:
        """Until the store is back; whoever has lost his lease meanwhile is told then."""
        pauses = _pauses()
        while True:
            try:
                return await call()
            except Unavailable:
                await drive.pause(next(pauses))

    def failed(self, request_id: str, place: int, name: str, error: Exception) -> End:
        """The end of an item that has a problem."""
        if isinstance(error, ImageError):
            self._metrics.undecodable(error)
        problem = self._describe(request_id, error)
        head = {"index": place, "name": name}
        summary = orjson.dumps({**head, "problem": problem["type"]})
        return End(False, orjson.dumps({**head, "problem": problem}), summary)

    async def _deliver_all(self, webhooks: Webhooks) -> None:
        while True:
            hook = None
            if not self._door.draining:
                with suppress(Unavailable):
                    hook = await self._store.claim_hook(webhooks.claim_s)
            if hook is None:
                await asyncio.sleep(self._limits.poll_s * random.uniform(0.5, 1.0))
                continue
            try:
                verdict = await webhooks.deliver(hook)
            except asyncio.CancelledError:  # this process ends; another one may try at once
                with suppress(Unavailable):
                    await self._store.settle_hook(hook, "pending", "interrupted")
                raise
            self._metrics.webhook(verdict.state)
            with suppress(Unavailable):  # then it is delivered once more
                await self._store.settle_hook(hook, verdict.state, verdict.detail, verdict.again_in_s)


class _LetGo(Exception):
    """The drive ends before the item does."""


class _Drive:
    """One lease of a job, and what is done with it.

    Attributes:
        stopping: no further item is begun.
        under_way: places of the items that are.
    """

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.options = Options.model_validate_json(lease.options)
        self.stopping = False
        self.under_way: set[int] = set()

    async def pause(self, pause_s: float) -> None:
        """Wait before an item is tried again. Raises _LetGo when it shall not be."""
        if self.stopping:
            raise _LetGo
        await asyncio.sleep(pause_s)


def _scored(place: int, name: str, found: Complexity) -> End:
    quoted = orjson.dumps(name)
    body = found.model_dump_json(exclude_none=True).encode()
    result = b'{"index":%d,"name":%s,"result":%s}' % (place, quoted, body)
    summary = b'{"index":%d,"name":%s,"score":%s}' % (place, quoted, orjson.dumps(found.score))
    return End(True, result, summary)


def _pauses() -> Iterator[float]:
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s * random.uniform(0.5, 1.0)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


async def _end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # whoever was to know of it has been told
