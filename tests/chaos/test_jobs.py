"""Jobs while the gateways that drive them are killed, stopped and replaced; all of them are processes of their own."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_model
from fleet import PICTURES, Fleet, caller_of, fleet, scores_of, until_ready
from redis_server import RedisServer
from serving import Server

pytestmark = pytest.mark.anyio

LEASE_S = 1.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 15 ms a picture, so that a kill finds something under way."""
    return tiny_model.write(tmp_path_factory.mktemp("model"), work=3)


@pytest.fixture(scope="module")
def scores(repository: Path) -> list[float]:
    return scores_of(repository)


@pytest.fixture
def servers(repository: Path, redis: RedisServer) -> Iterator[Fleet]:
    with fleet(repository, redis, deadline_s=60, job_lease_s=LEASE_S) as started:
        yield started


async def post(client: httpx.AsyncClient, copies: int = 1) -> str:
    """A job of each of PICTURES so many times; its path."""
    files = [("file", (f"{number}", PICTURES[number % len(PICTURES)])) for number in range(copies * len(PICTURES))]
    accepted = await client.post("/v1/jobs", files=files)
    assert accepted.status_code == 202, accepted.text
    assert accepted.json()["durable"] is True
    return str(accepted.headers["location"])


async def until(client: httpx.AsyncClient, path: str, scored: int) -> Any:
    """Ask until so many have their score; the document without results."""
    async with asyncio.timeout(120):
        while True:
            document = (await client.get(path, params={"limit": 0})).raise_for_status().json()
            if document["counts"]["scored"] >= scored:
                return document
            await asyncio.sleep(0.05)


async def judge(client: httpx.AsyncClient, path: str, scores: list[float], copies: int = 1) -> None:
    """The job ends, and each picture has one result: its own score."""
    count = copies * len(PICTURES)
    document = await until(client, path, count)
    assert document["status"] == "done"
    assert document["counts"] == {"items": count, "scored": count, "failed": 0, "left": 0}
    results = (await client.get(path, params={"limit": count})).json()["results"]
    assert sorted(item["index"] for item in results) == list(range(count))
    for item in results:
        assert item["result"]["score"] == pytest.approx(scores[item["index"] % len(PICTURES)], abs=1e-4)
    progress = await client.get(f"{path}/events", timeout=60)
    ids = [line[4:] for line in progress.text.splitlines() if line.startswith("id: ")]
    assert ids == [str(number) for number in range(1, count + 2)]


async def two(servers: Fleet, **settings: object) -> tuple[Server, Server]:
    """Two gateways and a worker, ready."""
    gateways = servers.gateway(**settings), servers.gateway(**settings)
    servers.worker()
    for gateway in gateways:
        async with caller_of(gateway) as client:
            await until_ready(client)
    return gateways


async def test_a_gateway_is_killed(servers: Fleet, scores: list[float]) -> None:
    """Whichever drives the job, the other one goes on."""
    first, second = await two(servers)
    async with caller_of(first) as one, caller_of(second) as other:
        path = await post(one, copies=4)
        await until(one, path, 10)
        driving = first if first.metric("clicv2_api_jobs_driven") else second
        heir, client = (second, other) if driving is first else (first, one)
        driving.kill()
        await judge(client, path, scores, copies=4)
        assert heir.metric("clicv2_api_jobs_taken_over_total") == 1


async def test_every_gateway_is_killed_and_one_starts_anew(servers: Fleet, scores: list[float]) -> None:
    first = servers.gateway()
    servers.worker()
    async with caller_of(first) as client:
        await until_ready(client)
        path = await post(client)
        await until(client, path, 3)
    first.kill()
    async with caller_of(servers.gateway()) as client:
        await judge(client, path, scores)


async def test_a_gateway_stands_still_and_wakes_up(servers: Fleet, scores: list[float]) -> None:
    first, second = await two(servers)
    async with caller_of(first) as one, caller_of(second) as other:
        path = await post(one, copies=2)
        await until(one, path, 5)
        driving = first if first.metric("clicv2_api_jobs_driven") else second
        client = other if driving is first else one
        driving.pause()
        await judge(client, path, scores, copies=2)
        driving.resume()
        await asyncio.sleep(1)
        await judge(client, path, scores, copies=2)


async def test_gateways_are_replaced_and_the_job_moves_on_at_once(servers: Fleet, scores: list[float]) -> None:
    """SIGTERM under a lease of a minute: each gateway lets go of the job, and exits in time."""
    first, second = await two(servers, job_lease_s=60)
    async with caller_of(first) as one, caller_of(second) as other:
        path = await post(one, copies=4)
        await until(one, path, 5)
        driving = first if first.metric("clicv2_api_jobs_driven") else second
        client = other if driving is first else one
        async with client.stream("GET", f"{path}/events", timeout=120) as stream:
            assert stream.status_code == 200
            assert driving.end() == 0
            kinds = [line async for line in stream.aiter_lines() if line.startswith("event: ")]
        assert kinds[-1] == "event: end"
        await judge(client, path, scores, copies=4)


async def test_a_stream_of_events_does_not_keep_a_gateway_from_its_end(servers: Fleet) -> None:
    gateway = servers.gateway()  # and no worker, so that the job waits for ever
    async with caller_of(gateway) as client:
        path = await post(client)
        async with client.stream("GET", f"{path}/events", timeout=120) as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: job"
            assert await asyncio.to_thread(gateway.end) == 0
            assert "event: end" not in [line async for line in lines], "it ends, and with no error"


async def test_redis_is_killed(servers: Fleet, redis: RedisServer, scores: list[float]) -> None:
    gateway = servers.gateway(redis_timeout_s=0.5)
    servers.worker()
    async with caller_of(gateway) as client:
        await until_ready(client)
        path = await post(client, copies=2)
        await until(client, path, 5)
        redis.kill()
        assert (await client.get(path)).status_code == 503
        redis.start()
        await until_ready(client)
        await judge(client, path, scores, copies=2)
