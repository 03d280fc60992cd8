"""Gateways, workers and Redis as processes of their own, which are killed, stopped and replaced under load.

Every picture has a score of its own, so an answer that goes to the wrong caller is seen.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from random import Random

import httpx
import pytest
import tiny_model
from pictures import encode, noise
from redis_server import RedisServer, redis_server
from serving import HOST, Server, serving

pytestmark = pytest.mark.anyio

PICTURES = [encode(noise(64, 64, seed) // (seed + 1), "PNG") for seed in range(24)]
LEASE_S = 1.5
CONCURRENCY = 64


@dataclass(frozen=True)
class Stack:
    """What the settings of one queue have in common."""

    redis: RedisServer
    repository: Path

    def gateway(self) -> "Running":
        return self._start("serve", max_in_flight=1000, deadline_s=60, threads=1)

    def worker(self) -> "Running":
        return self._start("worker", threads=1, max_batch_size=4)

    def _start(self, command: str, **settings: object) -> "Running":
        # A busy machine is not a Redis out of reach.
        return Running(
            self.repository, command, redis_url=self.redis.url, redis_timeout_s=5, lease_s=LEASE_S, **settings
        )


class Running:
    """A process that a test starts, ends in its own way, and need not clean up after."""

    def __init__(self, repository: Path, command: str, **settings: object) -> None:
        self._stack = ExitStack()
        self.server: Server = self._stack.enter_context(serving(repository, command, **settings))

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 15 ms a picture, so that a kill finds something under way."""
    return tiny_model.write(tmp_path_factory.mktemp("model"), work=3)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def stack(redis: RedisServer, repository: Path) -> Iterator[Stack]:
    redis.client.flushall()
    yield Stack(redis, repository)
    left = redis.client.xlen("{clicv2}:jobs")
    assert left == 0, "a job was left in Redis"


@pytest.fixture(scope="module")
def scores(repository: Path) -> list[float]:
    """What each picture scores when nothing goes wrong."""
    with serving(repository) as server:
        found = [server.score(picture).raise_for_status().json()["score"] for picture in PICTURES]
    assert len(set(found)) == len(found)
    return found


@asynccontextmanager
async def client_of(gateway: Server) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=CONCURRENCY)
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{gateway.port}", timeout=120, limits=limits) as client:
        yield client


async def post(client: httpx.AsyncClient, picture: bytes) -> httpx.Response:
    return await client.post("/v1/complexity", content=picture, headers={"Content-Type": "image/png"})


async def until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while not (await client.get("/readyz")).is_success:  # noqa: ASYNC110  # another process has no event
            await asyncio.sleep(0.1)


def asking(client: httpx.AsyncClient, times: int) -> list[asyncio.Task[httpx.Response]]:
    """A request for each picture, over and over."""
    return [asyncio.create_task(post(client, picture)) for picture in islice(cycle(PICTURES), times)]


async def some_answered(tasks: Sequence[asyncio.Task[httpx.Response]], share: float) -> None:
    async with asyncio.timeout(60):
        while sum(task.done() for task in tasks) < share * len(tasks):  # noqa: ASYNC110  # any of them
            await asyncio.sleep(0.01)


def assert_right(answers: Sequence[httpx.Response], scores: Sequence[float]) -> None:
    """Each caller got an answer, and it was the one to its own picture."""
    assert [answer.status_code for answer in answers] == [200] * len(answers), [
        answer.text for answer in answers if not answer.is_success
    ][:3]
    for answer, score in zip(answers, cycle(scores), strict=False):
        assert answer.json()["score"] == pytest.approx(score, abs=1e-4)


async def test_a_killed_workers_jobs_are_answered_by_another(stack: Stack, scores: list[float], scale: int) -> None:
    """Promise 1."""
    gateway, workers = stack.gateway(), [stack.worker(), stack.worker()]
    random = Random(scale)
    try:
        async with client_of(gateway.server) as client:
            await until_ready(client)
            for kill in range(2 * scale):
                tasks = asking(client, 150)
                await some_answered(tasks, random.uniform(0.1, 0.6))
                victim = kill % 2
                await asyncio.to_thread(workers[victim].server.kill)
                workers[victim].close()
                workers[victim] = await asyncio.to_thread(stack.worker)
                assert_right(await asyncio.gather(*tasks), scores)
        gateway.server.assert_metrics_add_up()
        assert gateway.server.metric("clicv2_jobs_finished_total", outcome="answered") >= 300 * scale
    finally:
        for running in (gateway, *workers):
            running.close()


async def test_a_worker_that_was_thought_dead_answers_nobody(stack: Stack, scores: list[float]) -> None:
    """Promise 2: what it brings after its leases were lost is refused, and counted."""
    gateway, zombie = stack.gateway(), stack.worker()
    other = None
    try:
        async with client_of(gateway.server) as client:
            await until_ready(client)
            tasks = asking(client, 100)
            await some_answered(tasks, 0.2)
            zombie.server.pause()
            other = await asyncio.to_thread(stack.worker)
            assert_right(await asyncio.gather(*tasks), scores)
            finished = gateway.server.metric("clicv2_jobs_finished_total", outcome="answered")
            zombie.server.resume()
            await asyncio.to_thread(zombie.server.wait_for, "clicv2_finishes_fenced_total", 1)
            assert gateway.server.metric("clicv2_jobs_finished_total", outcome="answered") == finished
            assert_right(await asyncio.gather(*asking(client, 48)), scores)
    finally:
        for running in (gateway, zombie, other):
            if running:
                running.close()


async def test_redis_may_die(stack: Stack, scores: list[float], scale: int) -> None:
    """Promise 3: what was admitted is answered once Redis is back; what comes meanwhile is refused at once."""
    gateway, workers = stack.gateway(), [stack.worker(), stack.worker()]
    try:
        async with client_of(gateway.server) as client:
            await until_ready(client)
            for _ in range(scale):
                tasks = asking(client, 100)
                await some_answered(tasks, 0.2)
                await asyncio.to_thread(stack.redis.kill)
                refused = await post(client, PICTURES[0])
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                await asyncio.sleep(0.5)
                await asyncio.to_thread(stack.redis.start)
                answers = await asyncio.gather(*tasks)
                # Those that were still on their way to the queue were refused; nobody waited in vain.
                assert {answer.status_code for answer in answers} <= {200, 503}
                kept = [(a, s) for a, s in zip(answers, cycle(scores), strict=False) if a.is_success]
                assert_right([answer for answer, _ in kept], [score for _, score in kept])
                await until_ready(client)
                assert_right(await asyncio.gather(*asking(client, 48)), scores)
        gateway.server.assert_metrics_add_up()
        assert gateway.server.metric("clicv2_jobs_finished_total", outcome="expired") == 0
    finally:
        for running in (gateway, *workers):
            running.close()


async def test_workers_are_replaced_under_load_and_nobody_notices(stack: Stack, scores: list[float]) -> None:
    """Promise 14, for workers: each is told to end while the others go on."""
    gateway, workers = stack.gateway(), [stack.worker(), stack.worker()]
    try:
        async with client_of(gateway.server) as client:
            await until_ready(client)
            tasks = asking(client, 300)
            for place in range(2):
                successor = await asyncio.to_thread(stack.worker)
                assert await asyncio.to_thread(workers[place].server.end) == 0
                workers[place].close()
                workers[place] = successor
            assert_right(await asyncio.gather(*tasks), scores)
    finally:
        for running in (gateway, *workers):
            running.close()


async def test_a_gateway_ends_with_all_its_callers_answered(stack: Stack, scores: list[float]) -> None:
    """Promise 14, for gateways: who is inside gets an answer, and the other gateway takes the rest."""
    leaving, staying, worker = stack.gateway(), stack.gateway(), stack.worker()
    try:
        async with client_of(leaving.server) as first, client_of(staying.server) as second:
            await until_ready(first)
            await until_ready(second)
            inside, others = asking(first, CONCURRENCY), asking(second, 100)
            await some_answered(inside, 0.1)
            assert await asyncio.to_thread(leaving.server.end) == 0
            answers = []
            for ended in await asyncio.gather(*inside, return_exceptions=True):
                if isinstance(ended, httpx.Response):
                    answers.append(ended)
                else:  # a balancer asks another gateway; a connection that was cut would have been an answer lost
                    assert isinstance(ended, httpx.ConnectError)
            assert {answer.status_code for answer in answers} <= {200, 503}
            refused = [answer for answer in answers if answer.status_code == 503]
            assert {answer.json()["type"] for answer in refused} <= {"urn:clicv2:problem:draining"}
            assert_right(await asyncio.gather(*others), scores)
    finally:
        for running in (leaving, staying, worker):
            running.close()
