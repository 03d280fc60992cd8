"""Gateways, workers and Redis as processes of their own, which are killed, stopped and replaced under load."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest
import tiny_model
from fleet import Fleet, ask, asking, caller_of, fleet, judge, scores_of, until_more, until_ready
from redis_server import RedisServer
from serving import Server

from service.queue.keys import GROUP, Keys

pytestmark = pytest.mark.anyio

KEYS = Keys("clicv2")
DEADLINE_S = 60.0
CALLERS = 64


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 15 ms a picture, so that a kill finds something under way."""
    return tiny_model.write(tmp_path_factory.mktemp("model"), work=3)


@pytest.fixture(scope="module")
def scores(repository: Path) -> list[float]:
    return scores_of(repository)


@pytest.fixture
def processes(repository: Path, redis: RedisServer) -> Iterator[Fleet]:
    with fleet(repository, redis, max_in_flight=1000, max_batch_size=4, deadline_s=DEADLINE_S) as processes:
        yield processes


def jobs(gateway: Server) -> tuple[float, float]:
    """Admitted so far, and of those answered."""
    answered = gateway.metric("clicv2_jobs_finished_total", outcome="answered")
    return gateway.metric("clicv2_jobs_admitted_total"), answered


async def test_a_killed_workers_jobs_are_answered_by_another(processes: Fleet, scores: list[float], scale: int) -> None:
    """Promise 1."""
    gateway, workers = processes.gateway(), [processes.worker(), processes.worker()]
    random = Random(scale)
    async with caller_of(gateway) as client:
        await until_ready(client)
        async with asking(client, CALLERS, pause_s=0) as replies:
            for kill in range(2 * scale):
                await until_more(replies, random.randint(20, 100))
                await asyncio.to_thread(workers[kill % 2].kill)
                workers[kill % 2] = await asyncio.to_thread(processes.worker)
        assert set(judge(replies, scores, within_s=DEADLINE_S)) == {200}


async def test_a_worker_that_was_thought_dead_answers_nobody(
    processes: Fleet, redis: RedisServer, scores: list[float]
) -> None:
    """Promise 2: what it brings after its leases were lost is refused, and counted."""
    # With batches so large that whenever it is stopped with jobs, it is most likely in the midst of computing them.
    gateway, zombie = processes.gateway(), processes.worker(max_batch_size=32)
    async with caller_of(gateway) as client:
        await until_ready(client)
        async with asking(client, CALLERS, pause_s=0) as replies:
            await until_more(replies, CALLERS)
            zombie.pause()
            while not redis.client.xpending(KEYS.jobs, GROUP)["pending"]:
                zombie.resume()
                await asyncio.sleep(0.1)
                zombie.pause()
            await asyncio.to_thread(processes.worker)
            await until_more(replies, 2 * CALLERS)
        assert set(judge(replies, scores, within_s=DEADLINE_S)) == {200}
        before = jobs(gateway)
        zombie.resume()
        await asyncio.to_thread(zombie.wait_for, "clicv2_finishes_fenced_total", 1)
        assert jobs(gateway) == before
        async with asking(client, CALLERS, pause_s=0) as replies:
            await until_more(replies, 2 * CALLERS)
        assert set(judge(replies, scores, within_s=DEADLINE_S)) == {200}


async def test_redis_may_die(processes: Fleet, redis: RedisServer, scores: list[float], scale: int) -> None:
    """Promise 3: each job that was admitted gets its one answer; who comes meanwhile is refused at once."""
    gateway = processes.gateway()
    for _ in range(2):
        processes.worker()
    async with caller_of(gateway) as client:
        await until_ready(client)
        before = jobs(gateway)
        async with asking(client, CALLERS) as replies:
            for _ in range(scale):
                await until_more(replies, 2 * CALLERS)
                await asyncio.to_thread(redis.kill)
                await until_more(replies, CALLERS, 503)
                await asyncio.to_thread(redis.start)
        met = judge(replies, scores, within_s=DEADLINE_S, allowed=frozenset({503}))
        admitted, answered = (after - count for after, count in zip(jobs(gateway), before, strict=True))
        assert admitted == answered == met[200]


async def test_workers_are_replaced_under_load_and_nobody_notices(
    processes: Fleet, scores: list[float], scale: int
) -> None:
    """Promise 14, for workers: each is told to end while the others go on."""
    gateway, workers = processes.gateway(), [processes.worker(), processes.worker()]
    async with caller_of(gateway) as client:
        await until_ready(client)
        async with asking(client, CALLERS, pause_s=0) as replies:
            for place in range(2 * scale):
                successor = await asyncio.to_thread(processes.worker)
                await until_more(replies, 20)
                assert await asyncio.to_thread(workers[place % 2].end) == 0
                workers[place % 2] = successor
        assert set(judge(replies, scores, within_s=DEADLINE_S)) == {200}


async def test_a_gateway_ends_with_all_its_callers_answered(processes: Fleet, scores: list[float]) -> None:
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
        leaving.process.terminate()
        await until_ready(client, False)
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
