"""Gateways, workers and Redis as processes of their own, which are killed, stopped and replaced under load."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest
import tiny_model
from fleet import Fleet, ask, asking, caller_of, fleet, judge, scores_of, until_more, until_ready
from redis_server import RedisServer
from serving import Server
from sizes import SIZES, Figures, spread

from service.queue.keys import GROUP, Keys

pytestmark = pytest.mark.anyio

KEYS = Keys("clicv2")
DEADLINE_S = 60.0
CALLERS = SIZES.callers
COMPUTED, FENCED = "clicv2_batch_size_sum", "clicv2_finishes_fenced_total"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 15 ms a picture, so that a kill finds something under way."""
    return tiny_model.write(tmp_path_factory.mktemp("model"), work=3)


@pytest.fixture(scope="module")
def scores(repository: Path) -> list[float]:
    return scores_of(repository)


@pytest.fixture
def processes(repository: Path, redis: RedisServer) -> Iterator[Fleet]:
    with fleet(
        repository, redis, max_in_flight=1000, queue_capacity=1000, max_batch_size=4, deadline_s=DEADLINE_S
    ) as processes:
        yield processes


def jobs(gateway: Server) -> tuple[float, float]:
    """Admitted so far, and of those answered."""
    answered = gateway.metric("clicv2_jobs_finished_total", outcome="answered")
    return gateway.metric("clicv2_jobs_admitted_total"), answered


def since(before: tuple[float, float], gateway: Server) -> tuple[float, float]:
    """What has been admitted since then, and answered."""
    admitted, answered = jobs(gateway)
    return admitted - before[0], answered - before[1]


def held_by(worker: Server, redis: RedisServer) -> set[bytes]:
    """The jobs that are leased by it."""
    pending = redis.client.xpending_range(KEYS.jobs, GROUP, "-", "+", 1000)
    return {entry["message_id"] for entry in pending if f"-{worker.process.pid}-" in str(entry["consumer"])}


async def until_taken_over(worker: Server, redis: RedisServer) -> list[float]:
    """How long after now each job of a dead worker's is leased by another."""
    went = time.monotonic()
    left = await asyncio.to_thread(held_by, worker, redis)
    took_s: list[float] = []
    async with asyncio.timeout(30):
        while left:
            await asyncio.sleep(0.02)
            before, left = left, await asyncio.to_thread(held_by, worker, redis)
            took_s += [time.monotonic() - went] * len(before - left)
    return took_s


async def test_a_killed_workers_jobs_are_answered_by_another(
    processes: Fleet, redis: RedisServer, scores: list[float], figures: Figures
) -> None:
    """Promise 1."""
    gateway, workers = processes.gateway(), [processes.worker(), processes.worker()]
    random = Random(SIZES.kills)
    took_s: list[float] = []
    async with caller_of(gateway) as client:
        await until_ready(client)
        before = jobs(gateway)
        async with asking(client, CALLERS, pause_s=0) as replies:
            for kill in range(SIZES.kills):
                await until_more(replies, random.randint(20, 100))
                await asyncio.to_thread(workers[kill % 2].kill)
                took_s += await until_taken_over(workers[kill % 2], redis)
                workers[kill % 2] = await asyncio.to_thread(processes.worker)
        met = judge(replies, scores, within_s=DEADLINE_S)
        admitted, answered = since(before, gateway)
    assert set(met) == {200}
    assert admitted == answered == met[200]
    assert took_s, "no worker was killed with jobs"
    figures.add(1, f"{SIZES.kills} workers killed under {CALLERS} callers: lost or answered twice", f"0 of {met[200]}")
    figures.add(1, "from the kill until another has the job", spread(took_s))


async def test_a_worker_that_was_thought_dead_answers_nobody(
    processes: Fleet, redis: RedisServer, scores: list[float], figures: Figures
) -> None:
    """Promise 2: what it brings after its leases were lost is refused, and counted."""
    # With batches so large that whenever it is stopped with jobs, it is most likely in the midst of computing them.
    gateway, zombie = processes.gateway(), processes.worker(max_batch_size=32)
    async with caller_of(gateway) as client:
        await until_ready(client)
        begun, computed = jobs(gateway), zombie.metric(COMPUTED)
        async with asking(client, CALLERS, pause_s=0) as replies:
            await until_more(replies, CALLERS)
            zombie.pause()
            while not held_by(zombie, redis):
                zombie.resume()
                await asyncio.sleep(0.1)
                zombie.pause()
            successor = await asyncio.to_thread(processes.worker)
            await until_more(replies, 2 * CALLERS)
        assert set(judge(replies, scores, within_s=DEADLINE_S)) == {200}
        before = jobs(gateway)
        zombie.resume()
        await asyncio.to_thread(zombie.wait_for, FENCED, 1)
        assert jobs(gateway) == before
        async with asking(client, CALLERS, pause_s=0) as replies:
            await until_more(replies, 2 * CALLERS)
        assert set(judge(replies, scores, within_s=DEADLINE_S)) == {200}
        _, answered = since(begun, gateway)
    computed = zombie.metric(COMPUTED) + successor.metric(COMPUTED) - computed
    late, fenced = computed - answered, zombie.metric(FENCED)
    assert fenced == late, "some late finish was not refused"
    assert successor.metric(FENCED) == 0
    figures.add(2, "late finishes of a worker that was stopped; of them refused", f"{late:.0f}; {fenced:.0f}")


async def test_redis_may_die(processes: Fleet, redis: RedisServer, scores: list[float], figures: Figures) -> None:
    """Promise 3: each job that was admitted gets its one answer; who comes meanwhile is refused at once."""
    gateway = processes.gateway()
    for _ in range(2):
        processes.worker()
    async with caller_of(gateway) as client:
        await until_ready(client)
        before = jobs(gateway)
        back_s = []
        async with asking(client, CALLERS) as replies:
            for _ in range(SIZES.deaths):
                await until_more(replies, 2 * CALLERS)
                await asyncio.to_thread(redis.kill)
                await until_more(replies, 64, 503)
                await asyncio.to_thread(redis.start)
                back = time.monotonic()
                await until_more(replies, 1)
                back_s.append(time.monotonic() - back)
        met = judge(replies, scores, within_s=DEADLINE_S, allowed=frozenset({503}))
        admitted, answered = since(before, gateway)
        assert admitted == answered == met[200]
    figures.add(3, f"Redis killed {SIZES.deaths} times under {CALLERS} callers: lost", f"0 of {met[200]}")
    figures.add(3, "503 while it is down, after", spread([reply.took_s for reply in replies if not reply.ok]))
    figures.add(3, "answers again when it is back, after", spread(back_s))


async def test_workers_are_replaced_under_load_and_nobody_notices(
    processes: Fleet, scores: list[float], figures: Figures
) -> None:
    """Promise 14, for workers: each is told to end while the others go on."""
    gateway, workers = processes.gateway(), [processes.worker(), processes.worker()]
    async with caller_of(gateway) as client:
        await until_ready(client)
        ends_s = []
        async with asking(client, CALLERS, pause_s=0) as replies:
            for place in range(SIZES.kills):
                successor = await asyncio.to_thread(processes.worker)
                await until_more(replies, 20)
                told = time.monotonic()
                assert await asyncio.to_thread(workers[place % 2].end) == 0
                ends_s.append(time.monotonic() - told)
                workers[place % 2] = successor
        met = judge(replies, scores, within_s=DEADLINE_S)
    assert set(met) == {200}
    figures.add(14, f"{SIZES.kills} workers replaced under {CALLERS} callers: anything but 200", f"0 of {met[200]}")
    figures.add(14, "a worker that is told to end is gone after", spread(ends_s))


async def test_a_gateway_ends_with_all_its_callers_answered(
    processes: Fleet, scores: list[float], figures: Figures
) -> None:
    """Promise 14, for gateways: who is inside gets his score, who comes is sent away, and the other goes on."""
    leaving, staying, worker = processes.gateway(), processes.gateway(), processes.worker()
    async with caller_of(leaving) as client, caller_of(staying) as other:
        await until_ready(client)
        await until_ready(other)
        admitted, _ = jobs(leaving)
        inside = [asyncio.create_task(ask(client, number)) for number in range(2 * CALLERS)]
        await asyncio.to_thread(leaving.wait_for, "clicv2_jobs_admitted_total", admitted + len(inside))
        worker.pause()
        assert leaving.metric("clicv2_jobs_in_flight") > 0, "there is nobody whom it could forget"
        told = time.monotonic()
        leaving.process.terminate()
        while (await client.get("/readyz")).is_success:
            pass
        figures.add(
            14, "a gateway that is told to end says that it is not ready after", spread([time.monotonic() - told])
        )
        late = await ask(client, 0)
        assert (late.response.status_code, late.problem) == (503, "draining")
        await asyncio.sleep(5)  # longer than uvicorn waits for anybody by itself
        worker.resume()
        assert judge(await asyncio.gather(*inside), scores, within_s=DEADLINE_S) == {200: len(inside)}
        assert await asyncio.to_thread(leaving.process.wait, 30) == 0
        with pytest.raises(httpx.ConnectError):
            await ask(client, 0)
        await until_ready(other)
        async with asking(other, CALLERS, pause_s=0) as elsewhere:
            await until_more(elsewhere, CALLERS)
        assert set(judge(elsewhere, scores, within_s=DEADLINE_S)) == {200}
