"""The queue between processes: gateways and workers share one Redis.

Each step is one script (`scripts/`), so Redis does it whole or not at all. Nobody polls. An answer comes to the
gateway that waits: `finish` appends it to that gateway's own stream, on which `listen` blocks; what was not read
stays there, so a gateway that loses its connection loses no answer. A worker without jobs blocks on the stream of
jobs, but only to hear that there is one: it then asks for a lease. Were the job handed to it by the blocking read
(XREADGROUP), a worker that is just then cancelled would keep it from the others for a lease.

Hosts' clocks are never compared. A gateway says how long there is until the deadline, Redis adds its own
clock; to a worker Redis says how long there is left, and the worker adds its own clock as of before it asked,
so that a deadline may come out early by a network delay but never late.
"""

import asyncio
import itertools
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import cast

from service.errors import NoWorker, Overloaded, ServiceError, Unavailable
from service.queue.keys import Keys
from service.queue.link import Fields, Link
from service.queue.protocol import Answer, Census, Failure, Job, Lease, Outcome, Reason
from service.queue.wire import (
    WireError,
    decode_outcome,
    decode_pixels,
    encode_outcome,
    encode_pixels,
    name_caller,
    trace_of,
)

log = logging.getLogger(__name__)

_READ_S = 1.0  # how long one blocking read lasts: a dead connection is noticed after it
_ANSWERS_AT_ONCE = 100
_ANSWERS_KEPT = 100  # how many may lie in Redis that have been read: deleting each at once costs a round trip
# How long answers wait for a gateway that lost its connection: longer than anybody's deadline should be.
_ANSWERS_MS = 60_000
# How long pixels outlive their deadline: whoever looks after that finds the job gone, never a job without pixels.
_PIXELS_MS = 10_000
# A consumer that has done nothing for so long is a worker that has gone.
_CONSUMER_MS = 60_000

_BEGINNING = b"0"
_EXPIRED = Failure(Reason.EXPIRED, "the deadline passed before there was an answer")

_Row = tuple[bytes, int, bytes, int, int, bytes]  # what lease.lua returns for each lease


@dataclass(frozen=True, slots=True)
class _Call:
    """Somebody here who waits for a job; `caller` names it in Redis."""

    caller: str
    outcome: asyncio.Future[Outcome]


class RedisQueue:
    """See `service.queue.protocol.Queue`; one for each process, as gateway, as worker or as both.

    A job whose id is admitted already is joined: it is done once, and each caller gets the outcome. Once
    it is answered or dead, who admits it again within `result_ttl_s` gets the same outcome.

    Args:
        url: see `service.queue.connections.Pool`.
        prefix: of all keys; queues with different ones know nothing of each other.
        name: unique among all processes of the queue; None: made from host, process and chance.
        capacity: jobs admitted and not finished, by all gateways together.
        result_ttl_s: how long an outcome is kept for who asks again; 0: not at all.
        dead_letters: how many to keep; each holds its pixels, 0.4 MB at 352 x 352.
        timeout_s: after which Redis is out of reach.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "clicv2",
        name: str | None = None,
        capacity: int,
        lease_s: float,
        max_attempts: int,
        result_ttl_s: float,
        dead_letters: int = 1000,
        timeout_s: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = Keys(prefix)
        self._link = Link(url, timeout_s, keys=self._keys.for_scripts)
        self._name = name or f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"
        self._capacity = capacity
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._result_ms = _ms(result_ttl_s)
        self._dead_letters = dead_letters
        self._clock = clock
        self._numbers = itertools.count(1)
        self._calls: dict[Job, _Call] = {}  # until `result` or `cancel` takes them
        self._outcomes: dict[str, asyncio.Future[Outcome]] = {}  # by caller
        self._errands: set[asyncio.Task[None]] = set()
        self._leased: dict[str, float] = {}  # entry/attempt of each lease that we know of, and its job's deadline
        self._missed = False  # whether we may have been granted others
        self._last = _BEGINNING  # entry of the stream of jobs that was the last when this process looked
        self._more = True  # whether others may wait that came before it
        self._bell: asyncio.Task[list[tuple[bytes, Fields]]] | None = None  # rings when another one comes

    async def listen(self) -> None:
        answers = self._keys.answers(self._name)
        pauses = _pauses()
        read: list[bytes] = []  # and not deleted
        while True:
            try:
                entries = await self._link.read(answers, read[-1] if read else _BEGINNING, _ANSWERS_AT_ONCE, _READ_S)
                for entry, fields in entries:
                    self._deliver(fields)
                    read.append(entry)
                if len(read) >= _ANSWERS_KEPT or (read and not entries):
                    await self._link.delete(answers, read)
                    read = []
                pauses = _pauses()
            except Unavailable:
                read = []  # what is read twice finds nobody who waits
                await asyncio.sleep(next(pauses))

    async def admit(self, job: Job) -> None:
        caller = name_caller(self._name, next(self._numbers), job.trace)
        call = _Call(caller, asyncio.get_running_loop().create_future())
        # Before Redis knows of it: the answer may overtake the reply.
        self._calls[job] = call
        self._outcomes[caller] = call.outcome
        try:
            remaining_ms = _ms(job.deadline - self._clock())
            reply = await self._link.set_and_run(
                self._keys.pixels(caller),
                encode_pixels(job.pixels),
                remaining_ms + _PIXELS_MS,
                "admit",
                job.id,
                caller,
                self._name,
                remaining_ms,
                self._capacity,
                encode_outcome(_EXPIRED),
                _ANSWERS_MS,
                _PIXELS_MS,
            )
        except BaseException:
            # Whether it was admitted is not known: the reply may be what was lost.
            self._leave_later(job)
            raise
        status, *found = cast("list[bytes]", reply)
        if status == b"finished":
            self._resolve(caller, found[0])
        elif status not in (b"admitted", b"joined"):
            self._take(job)
            raise self._refusal(status)

    async def result(self, job: Job) -> Outcome:
        try:
            async with asyncio.timeout(max(0.0, job.deadline - self._clock())):
                outcome = await self._calls[job].outcome
        except TimeoutError:
            self._leave_later(job)  # not now: it may take longer than the caller has
            return _EXPIRED
        except asyncio.CancelledError:
            self._leave_later(job)
            raise
        self._take(job)
        return outcome

    async def cancel(self, job: Job) -> None:
        """As in the protocol; but nobody waits for it, so that it never raises: the deadline ends the job."""
        call = self._take(job)
        if call:
            await self._leave(job.id, call.caller)

    async def lease(self, at_most: int, until: float | None = None) -> Sequence[Lease]:
        pauses = _pauses()
        while True:
            wait_s = self._lease_s / 3  # then look again for jobs whose worker has died
            try:
                # None wait: to be told so once more is a way to Redis and back for each job of a calm day.
                if (asked := self._more) and (leases := await self._lease_now(at_most)):
                    return leases
                if until is not None:
                    wait_s = min(wait_s, until - self._clock())
                if wait_s > 0:
                    await self._bell_or(wait_s)
                elif asked:
                    return []
                self._more = True
                pauses = _pauses()
            except Unavailable:
                self._more = True
                pause_s = next(pauses)
                if until is not None and until - self._clock() < pause_s:
                    await asyncio.sleep(max(0.0, until - self._clock()))
                    return []
                await asyncio.sleep(pause_s)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        if not leases:
            return []
        asked = [part for lease in leases for part in _entry_and_attempt(lease.fence)]
        try:
            held = await self._link.run("renew", self._name, *asked)
        except Unavailable:
            return leases
        kept = []
        for lease, is_held in zip(leases, cast("list[int]", held), strict=True):
            if is_held:
                kept.append(lease)
            else:
                self._leased.pop(_known(lease), None)
        return kept

    async def finish(self, lease: Lease, outcome: Outcome) -> bool:
        entry, attempt = _entry_and_attempt(lease.fence)
        pauses = _pauses()
        try:
            while True:
                try:
                    return await self._finish(entry, attempt, lease.job.id, outcome)
                except Unavailable:
                    pause_s = next(pauses)
                    if self._clock() + pause_s >= lease.job.deadline:
                        return False
                    await asyncio.sleep(pause_s)
        finally:
            self._leased.pop(_known(lease), None)

    async def present(self, ready: bool) -> None:
        with suppress(Unavailable):  # it is soon repeated
            await self._link.run("present", self._name, int(ready), _ms(self._lease_s), _CONSUMER_MS)

    async def depth(self) -> int:
        return cast("int", await self._link.run("depth"))

    async def census(self) -> Census:
        """Raises Unavailable."""
        jobs, leased, dead, oldest_ms, workers = cast("list[int]", await self._link.run("census"))
        return Census(jobs - leased, leased, dead, oldest_ms / 1000, workers)

    async def close(self) -> None:
        if self._bell:
            self._bell.cancel()
            await asyncio.wait({self._bell})
        try:
            await asyncio.gather(*self._errands)
            with suppress(Unavailable):
                await self._link.drop(self._keys.answers(self._name))
        finally:
            await self._link.close()

    def _deliver(self, fields: Fields) -> None:
        """Hand an answer to the call that waits for it, if it still does."""
        self._resolve(fields.get(b"caller", b"").decode(errors="replace"), fields.get(b"outcome", b""))

    def _resolve(self, caller: str, outcome: bytes) -> None:
        waiting = self._outcomes.get(caller)
        if waiting and not waiting.done():
            try:
                waiting.set_result(decode_outcome(outcome))
            except WireError as error:
                log.error("an answer cannot be read: %s", error)
                waiting.set_result(Failure(Reason.UNAVAILABLE, f"the answer cannot be read: {error}"))

    def _take(self, job: Job) -> _Call | None:
        call = self._calls.pop(job, None)
        if call:
            del self._outcomes[call.caller]
        return call

    def _leave_later(self, job: Job) -> None:
        call = self._take(job)
        if call:
            self._run_errand(self._leave(job.id, call.caller))

    async def _leave(self, job_id: str, caller: str) -> None:
        with suppress(Unavailable):  # then the deadline ends the job
            await self._link.run("cancel", job_id, caller)

    def _run_errand(self, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _refusal(self, status: bytes) -> ServiceError:
        if status == b"full":
            return Overloaded("queue", self._capacity)
        return NoWorker() if status == b"no worker" else Unavailable("the queue has no room; try again later")

    async def _lease_now(self, at_most: int) -> list[Lease]:
        """Lease what was granted before and not heard of, what was abandoned, and what waits, as much as there is.

        Raises Unavailable.
        """
        asked_at = self._clock()
        self._leased = {known: deadline for known, deadline in self._leased.items() if deadline > asked_at}
        missed: tuple[int | str, ...] = (1, *self._leased) if self._missed else (0,)
        try:
            reply = await self._link.run(
                "lease",
                self._name,
                at_most,
                _ms(self._lease_s),
                self._max_attempts,
                encode_outcome(_EXPIRED),
                encode_outcome(self._exhausted),
                self._exhausted.detail,
                self._dead_letters,
                self._result_ms,
                _ANSWERS_MS,
                *missed,
            )
            self._last, more, granted = cast("tuple[bytes, int, list[_Row]]", reply)
            found = await self._link.get([row[-1] for row in granted]) if granted else []
        except BaseException:
            self._missed = True  # what was granted, if anything
            raise
        self._more, self._missed = more > 0, False
        readable = (self._lease(row, pixels, asked_at) for row, pixels in zip(granted, found, strict=True))
        leases = [lease for lease in readable if lease]
        self._leased.update({_known(lease): lease.job.deadline for lease in leases})
        return leases

    async def _bell_or(self, wait_s: float) -> None:
        """Wait until a job comes, at most so long. Raises Unavailable.

        Who waits no longer leaves the bell to the next who does; to end its read would cost the connection.
        """
        if self._bell is None or self._bell.done():
            self._bell = asyncio.create_task(self._link.read(self._keys.jobs, self._last, 1, _READ_S))
            self._bell.add_done_callback(lambda bell: bell.cancelled() or bell.exception())  # perhaps nobody asks
        bell = self._bell
        await asyncio.wait({bell}, timeout=wait_s)
        if bell.done():
            bell.result()

    def _lease(self, row: _Row, found: bytes | None, asked_at: float) -> Lease | None:
        """The lease that Redis granted; None if the job cannot be read, which then is its end."""
        entry, attempt, job_id, remaining_ms, age_ms, key = row
        try:
            pixels = decode_pixels(found or b"")
        except WireError as error:
            log.error("job %s cannot be read: %s", job_id.decode(), error)
            self._run_errand(self._bury(entry.decode(), attempt, job_id.decode(), str(error)))
            return None
        job = Job(
            id=job_id.decode(),
            pixels=pixels,
            deadline=asked_at + remaining_ms / 1000,
            admitted_at=asked_at - age_ms / 1000,
            attempt=attempt,
            trace=trace_of(key),
        )
        return Lease(job, _fence(entry, attempt))

    async def _bury(self, entry: str, attempt: int, job_id: str, why: str) -> None:
        with suppress(Unavailable):  # then it is leased again, and fails again
            await self._finish(entry, attempt, job_id, Failure(Reason.DEAD, f"the job cannot be read: {why}"))

    async def _finish(self, entry: str, attempt: int, job_id: str, outcome: Outcome) -> bool:
        """Raises Unavailable."""
        dead = isinstance(outcome, Failure) and outcome.reason is Reason.DEAD
        stored = await self._link.run(
            "finish",
            self._name,
            entry,
            attempt,
            job_id,
            encode_outcome(outcome),
            self._result_ms if dead or isinstance(outcome, Answer) else 0,
            _ANSWERS_MS,
            self._dead_letters if dead else 0,
            outcome.detail.encode(errors="replace") if isinstance(outcome, Failure) else "",
        )
        return bool(stored)

    @property
    def _exhausted(self) -> Failure:
        return Failure(Reason.DEAD, f"no worker finished the picture in {self._max_attempts} attempts")


def _fence(entry: bytes, attempt: int) -> int:
    """One number for the stream's entry, "milliseconds-sequence", and the attempt; it rises with each of them."""
    milliseconds, sequence = entry.split(b"-")
    return int(milliseconds) << 96 | int(sequence) << 32 | attempt


def _entry_and_attempt(fence: int) -> tuple[str, int]:
    return f"{fence >> 96}-{fence >> 32 & (1 << 64) - 1}", fence & (1 << 32) - 1


def _known(lease: Lease) -> str:
    entry, attempt = _entry_and_attempt(lease.fence)
    return f"{entry}/{attempt}"


def _ms(duration_s: float) -> int:
    return max(0, int(duration_s * 1000))


def _pauses() -> Iterator[float]:
    """Seconds between attempts while Redis is away: longer and longer, and not all processes at once."""
    return (min(0.5, 0.05 * 2**n) * random.uniform(0.5, 1.0) for n in itertools.count())
