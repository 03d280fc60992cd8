"""The queue on a real Redis against a dict, in every order of steps that hypothesis thinks of.

Time passes when the model says so: it makes a lease idle and a deadline past in Redis itself, so that a run
neither waits nor depends on how fast the machine is.

`CLICV2_MODEL_RUNS` is how many runs there are; PROMISES asks for 10,000.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from queues import answer, new_job
from redis_server import RedisServer, redis_server

from service.errors import NoWorker, Overloaded, Unavailable
from service.queue.keys import GROUP, Keys
from service.queue.protocol import Answer, Failure, Job, Lease, Outcome, Reason
from service.queue.redis import RedisQueue

RUNS = int(os.environ.get("CLICV2_MODEL_RUNS", "60"))
CAPACITY, ATTEMPTS, LEASE_S, DEADLINE_S = 3, 2, 1000.0, 10_000.0
KEYS = Keys("clicv2")
GATEWAYS, WORKERS = ("gateway 1", "gateway 2"), ("worker 1", "worker 2", "worker 3")

names = st.sampled_from("abcde")
gateways = st.sampled_from(GATEWAYS)
workers = st.sampled_from(WORKERS)
choices = st.integers(0, 1000)  # modulo however many there are
Result = TypeVar("Result")


class World:
    """A Redis and the processes around it; the same for all runs, as connecting takes longer than a run."""

    def __init__(self, server: RedisServer) -> None:
        self.redis = server.client
        self.runner = asyncio.Runner()
        self.ends = {name: self._end(server, name) for name in (*GATEWAYS, *WORKERS)}
        self.listening = self.run(self._listen())

    def run(self, step: Coroutine[None, None, Result]) -> Result:
        return self.runner.run(step)

    def close(self) -> None:
        self.run(self._close())
        self.runner.close()

    async def _listen(self) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.ends[name].listen()) for name in GATEWAYS]

    async def _close(self) -> None:
        for task in self.listening:
            task.cancel()
        await asyncio.wait(self.listening)
        for end in self.ends.values():
            await end.close()

    @staticmethod
    def _end(server: RedisServer, name: str) -> RedisQueue:
        return RedisQueue(
            server.url,
            prefix=KEYS.prefix,
            name=name,
            capacity=CAPACITY,
            lease_s=LEASE_S,
            max_attempts=ATTEMPTS,
            result_ttl_s=1000,
            timeout_s=60,
        )


@dataclass
class Entry:
    """A job that is admitted and not finished; with `attempt` 0 it waits for its first lease."""

    number: int
    callers: list[tuple[str, Job]] = field(default_factory=list)
    dead_callers: int = 0  # their gateway died: they count, and hear nothing
    attempt: int = 0
    holder: str = ""
    lost: bool = False
    expired: bool = False


@dataclass(frozen=True)
class Held:
    """A lease that a worker has or had; it is good as long as the entry is there, on the same attempt."""

    worker: str
    lease: Lease
    entry: Entry


class QueueMachine(RuleBasedStateMachine):
    """Every step is taken in Redis and in the model, and both must say the same."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.redis = self.world.redis
        self.redis.flushall()
        self.entries: dict[str, Entry] = {}  # in order of admission
        self.results: dict[str, Outcome] = {}  # kept for who asks again
        self.finishers: dict[str, Held] = {}  # whose finish was the last of a name; none if nobody's was
        self.ready: set[str] = set()
        self.held: list[Held] = []
        self.numbers = 0
        self.dead = 0

    @initialize(ready=st.sets(workers, min_size=1), admitted=st.lists(st.tuples(gateways, names), max_size=4))
    def begin(self, ready: set[str], admitted: list[tuple[str, str]]) -> None:
        for worker in sorted(ready):
            self._present(worker, True)
        for gateway, name in admitted:
            self.admit(gateway, name)

    # Rare troubles share one rule: hypothesis takes every rule as often, and a run in which all is
    # destroyed at once finds nothing.
    @rule(
        kind=st.sampled_from(["present", "worker dies", "gateway dies", "deadline passes", "scripts are lost"]),
        choice=choices,
    )
    def trouble(self, kind: str, choice: int) -> None:
        worker, gateway = WORKERS[choice % len(WORKERS)], GATEWAYS[choice % len(GATEWAYS)]
        if kind == "present":
            self._present(worker, worker not in self.ready)
        elif kind == "worker dies":
            self._worker_dies(worker)
        elif kind == "gateway dies":
            self._gateway_dies(gateway)
        elif kind == "scripts are lost":
            self.redis.script_flush()
        elif self.entries:  # the deadline of one passes
            name = list(self.entries)[choice % len(self.entries)]
            self.redis.zadd(KEYS.deadlines, {name: 1})
            self.entries[name].expired = True

    @rule(gateway=gateways, name=names)
    def admit(self, gateway: str, name: str) -> None:
        self.numbers += 1
        job = new_job(name, DEADLINE_S, np.array([[[self.numbers >> 8, self.numbers & 255, 0]]], np.uint8))
        queue = self.world.ends[gateway]
        if name in self.results and (name not in self.entries or self.entries[name].expired):
            self._do(queue.admit(job))
            self._sweep()
            self._hears(gateway, job, self.results[name])
        elif name in self.entries and not self.entries[name].expired:
            self._do(queue.admit(job))
            self._sweep()
            self.entries[name].callers.append((gateway, job))
        elif not self.ready:
            with pytest.raises(NoWorker):
                self._do(queue.admit(job))
            self._sweep()
        elif sum(not entry.expired for entry in self.entries.values()) >= CAPACITY:
            with pytest.raises(Overloaded):
                self._do(queue.admit(job))
            self._sweep()
        else:
            self._do(queue.admit(job))
            self._sweep()
            self.entries[name] = Entry(self.numbers, [(gateway, job)])

    @rule(worker=workers, at_most=st.integers(1, 3))
    def lease(self, worker: str, at_most: int) -> None:
        leases = self._do(self.world.ends[worker].lease(at_most, time.monotonic()))
        self._sweep()
        self._is_leased(worker, leases, self._next(worker, at_most))

    @rule(worker=workers, at_most=st.integers(1, 3), thief=st.none() | workers, lost=st.sampled_from(["run", "get"]))
    def lease_again_as_a_reply_did_not_come(self, worker: str, at_most: int, thief: str | None, lost: str) -> None:
        """That of the leases, or that of their pixels."""
        queue = self.world.ends[worker]
        with pytest.MonkeyPatch.context() as broken, suppress(Unavailable):
            broken.setattr(queue._link, lost, losing_the_reply(getattr(queue._link, lost)))
            assert not self._do(queue._lease_now(at_most))
        self._sweep()
        granted = self._next(worker, at_most)
        attempts = [entry.attempt for _, entry in granted]
        if thief not in (None, worker) and granted:
            self._run_out(granted[0][0])
            self.lease(thief, 1)
        leases = self._do(queue._lease_now(at_most))
        self._sweep()
        kept = [
            (name, entry)
            for (name, entry), attempt in zip(granted, attempts, strict=True)
            if self.entries.get(name) is entry and (entry.attempt, entry.holder) == (attempt, worker)
        ]
        self._is_leased(worker, leases, kept, self._next(worker, at_most - len(kept)))

    @precondition(lambda self: self._leased())
    @rule(choice=choices)
    def lease_runs_out(self, choice: int) -> None:
        self._run_out(self._leased()[choice % len(self._leased())])

    @rule(worker=workers)
    def renew(self, worker: str) -> None:
        held = [one for one in self.held if one.worker == worker]
        renewed = self._do(self.world.ends[worker].renew([one.lease for one in held]))
        good = [one for one in held if self._is_good(one)]
        assert renewed == [one.lease for one in good]
        for one in good:
            one.entry.lost = False

    @precondition(lambda self: self.held)
    @rule(choice=choices, ending=st.sampled_from(["answer", *Reason]))
    def finish(self, choice: int, ending: str) -> None:
        one = self.held[choice % len(self.held)]
        name = one.lease.job.id
        outcome: Outcome = answer(one.entry.number) if ending == "answer" else Failure(Reason(ending), "because")
        stored = self._do(self.world.ends[one.worker].finish(one.lease, outcome))
        if not self._is_good(one):
            assert stored == (self.finishers.get(name) == one), "True only to who repeats what it did itself"
            return
        assert stored
        self.finishers[name] = one
        self._end(name, outcome)

    @precondition(lambda self: self._callers())
    @rule(choice=choices)
    def cancel(self, choice: int) -> None:
        name, (gateway, job) = self._callers()[choice % len(self._callers())]
        self._do(self.world.ends[gateway].cancel(job))
        entry = self.entries[name]
        entry.callers.remove((gateway, job))
        if not entry.callers and not entry.dead_callers:
            del self.entries[name]

    @invariant()
    def redis_holds_what_the_model_holds(self) -> None:
        found = {fields[b"id"].decode(): entry for entry, fields in self.redis.xrange(KEYS.jobs)}
        assert list(found) == list(self.entries)
        assert {key.decode() for key in self.redis.scan_iter(KEYS.job("*"), 1000)} == set(map(KEYS.job, self.entries))
        assert self._count(KEYS.pixels("*")) == len(self.entries)
        assert {name.decode() for name in self.redis.zrange(KEYS.deadlines, 0, -1)} == set(self.entries)
        assert {name.decode() for name in self.redis.zrange(KEYS.workers, 0, -1)} == self.ready
        assert self.redis.xlen(KEYS.dead) == self.dead
        if self.redis.exists(KEYS.jobs):
            pending = self.redis.xpending_range(KEYS.jobs, GROUP, "-", "+", 100)
            assert [(one["message_id"], one["consumer"].decode(), one["times_delivered"]) for one in pending] == [
                (found[name], entry.holder, entry.attempt) for name, entry in self.entries.items() if entry.attempt
            ]

    def teardown(self) -> None:
        for gateway in GATEWAYS:
            waiting = {job for entry in self.entries.values() for name, job in entry.callers if name == gateway}
            assert set(self.world.ends[gateway]._calls) == waiting
            assert len(self.world.ends[gateway]._outcomes) == len(waiting)
            self.world.ends[gateway]._calls.clear()
            self.world.ends[gateway]._outcomes.clear()

    def _present(self, worker: str, ready: bool) -> None:
        self._do(self.world.ends[worker].present(ready))
        self.ready = self.ready | {worker} if ready else self.ready - {worker}

    def _worker_dies(self, worker: str) -> None:
        """What is seen of it: it renews nothing and does not say that it is there."""
        self.redis.zrem(KEYS.workers, worker)
        self.ready.discard(worker)
        for name in self._leased():
            if self.entries[name].holder == worker:
                self._run_out(name)

    def _gateway_dies(self, gateway: str) -> None:
        """Its callers are still in Redis, and nobody will ever read their answers."""
        queue = self.world.ends[gateway]
        queue._calls.clear()
        queue._outcomes.clear()
        for entry in self.entries.values():
            entry.dead_callers += sum(name == gateway for name, _ in entry.callers)
            entry.callers = [caller for caller in entry.callers if caller[0] != gateway]

    def _count(self, keys: str) -> int:
        return sum(1 for _ in self.redis.scan_iter(keys, 1000))

    def _do(self, step: Coroutine[None, None, Result]) -> Result:
        return self.world.run(step)

    def _next(self, worker: str, at_most: int) -> list[tuple[str, Entry]]:
        """What a worker is to get: what was lost and may be tried again, then what waits, oldest first."""
        got: list[tuple[str, Entry]] = []
        for name, entry in list(self.entries.items()):
            if len(got) < at_most and entry.lost:
                if entry.attempt == ATTEMPTS:
                    self.finishers.pop(name, None)
                    self._end(name, Failure(Reason.DEAD, "no worker finished the picture in 2 attempts"))
                else:
                    got.append((name, entry))
        got += [(name, entry) for name, entry in self.entries.items() if not entry.attempt][: at_most - len(got)]
        for _, entry in got:
            entry.attempt, entry.holder, entry.lost = entry.attempt + 1, worker, False
        return got

    def _is_leased(self, worker: str, leases: list[Lease], *parts: list[tuple[str, Entry]]) -> None:
        expected = [one for part in parts for one in part]
        told = [(one.job.id, one.job.attempt, int(one.job.pixels[0, 0, 0]) << 8 | int(one.job.pixels[0, 0, 1]))
                for one in leases]  # fmt: skip
        assert told == [(name, entry.attempt, entry.number) for name, entry in expected]
        for lease, (name, entry) in zip(leases, expected, strict=True):
            assert all(lease.fence > one.lease.fence for one in self.held if one.lease.job.id == name)
            self.held.append(Held(worker, lease, entry))

    def _is_good(self, one: Held) -> bool:
        entry = self.entries.get(one.lease.job.id)
        return entry is one.entry and (entry.attempt, entry.holder) == (one.lease.job.attempt, one.worker)

    def _leased(self) -> list[str]:
        return [name for name, entry in self.entries.items() if entry.attempt and not entry.lost]

    def _callers(self) -> list[tuple[str, tuple[str, Job]]]:
        return [(name, caller) for name, entry in self.entries.items() for caller in entry.callers]

    def _run_out(self, name: str) -> None:
        entry = self.entries[name]
        found = {fields[b"id"].decode(): at for at, fields in self.redis.xrange(KEYS.jobs)}
        idle_ms = int(2 * LEASE_S * 1000)
        self.redis.xclaim(KEYS.jobs, GROUP, entry.holder, 0, [found[name]], idle=idle_ms, justid=True)
        entry.lost = True

    def _sweep(self) -> None:
        for name in [name for name, entry in self.entries.items() if entry.expired]:
            self._end(name, Failure(Reason.EXPIRED, "the deadline passed before there was an answer"))

    def _end(self, name: str, outcome: Outcome) -> None:
        entry = self.entries.pop(name)
        if isinstance(outcome, Answer) or outcome.reason is Reason.DEAD:
            self.results[name] = outcome
            self.dead += isinstance(outcome, Failure)
        for gateway, job in entry.callers:
            self._hears(gateway, job, outcome)

    def _hears(self, gateway: str, job: Job, outcome: Outcome) -> None:
        heard = self._do(asyncio.wait_for(self.world.ends[gateway].result(job), 60))
        if isinstance(outcome, Failure):
            assert heard == outcome
        else:
            assert isinstance(heard, Answer)
            assert heard.prediction.score == outcome.prediction.score


def losing_the_reply(call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """The call reaches Redis, and what Redis says to it does not come back."""

    async def cut(*arguments: object) -> object:
        await call(*arguments)
        raise Unavailable("cut")

    return cut


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with redis_server() as server:
        world = World(server)
        yield world
        world.close()


@pytest.mark.timeout(0)
def test_redis_obeys_the_model(world: World) -> None:
    class Machine(QueueMachine):
        pass

    Machine.world = world
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=RUNS, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
