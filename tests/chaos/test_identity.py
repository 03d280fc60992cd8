"""Promise 7: the right answer to the right caller, however many there are and whatever dies meanwhile."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import pytest
import tiny_model
from fleet import Fleet, caller_of, fleet, until_ready
from pictures import encode, noise
from redis_server import RedisServer
from serving import serving
from sizes import SIZES, Figures

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0
# Scores that are nearer to each other than this could be taken for one another.
APART = 1e-3
FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class Face:
    """A picture whose score is like no other's."""

    data: bytes
    media_type: str
    size: tuple[int, int]
    score: float


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def faces(repository: Path) -> list[Face]:
    """Of mixed sizes, shapes and formats."""
    found: list[Face] = []
    with serving(repository) as embedded:
        for number in range(400):
            width, height = 24 + 7 * number % 200, 24 + 11 * number % 150
            grey = noise(width, height, number) * (number / 400) + (255 - number) % 256 * (1 - number / 400)
            kind = FORMATS[number % len(FORMATS)]
            data, media_type = encode(grey.astype(np.uint8), kind), f"image/{kind.lower()}"
            score = float(embedded.score(data, media_type).raise_for_status().json()["score"])
            if all(abs(score - face.score) > APART for face in found):
                found.append(Face(data, media_type, (width, height), score))
    assert len(found) >= 100
    return found


async def score(client: httpx.AsyncClient, face: Face) -> httpx.Response:
    headers = {"Content-Type": face.media_type}
    async with asyncio.timeout(2 * DEADLINE_S):
        while True:
            response = await client.post("/v1/complexity", content=face.data, headers=headers)
            if response.status_code != 503:
                return response
            await asyncio.sleep(0.2)  # Redis is away


async def break_things(processes: Fleet, redis: RedisServer, kills: Counter[str]) -> None:
    """Kill a worker, and now and then Redis, until cancelled, and count it."""
    workers = [processes.worker(), processes.worker()]
    for number in count():
        await asyncio.sleep(1)
        await asyncio.to_thread(workers[number % 2].kill)
        workers[number % 2] = await asyncio.to_thread(processes.worker)
        kills["workers"] += 1
        if number % 5 == 1:
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
            kills["Redis"] += 1


@pytest.mark.timeout(3600)
async def test_no_answer_is_another_callers(
    repository: Path, redis: RedisServer, faces: list[Face], figures: Figures
) -> None:
    numbers = iter(range(SIZES.pictures))
    crossed, refused = [], []
    kills: Counter[str] = Counter()
    started = time.monotonic()
    with fleet(repository, redis, max_in_flight=1000, queue_capacity=1000, deadline_s=DEADLINE_S) as processes:
        gateways = processes.gateway(), processes.gateway()
        breaking = asyncio.create_task(break_things(processes, redis, kills))
        async with caller_of(gateways[0]) as one, caller_of(gateways[1]) as other:
            await until_ready(one)
            await until_ready(other)

            async def ask_on(client: httpx.AsyncClient) -> None:
                for number in numbers:
                    face = faces[number % len(faces)]
                    response = await score(client, face)
                    if not response.is_success:
                        refused.append(response.text)
                        continue
                    answer = response.json()
                    size = answer["image"]["width"], answer["image"]["height"]
                    if abs(answer["score"] - face.score) > APART / 3 or size != face.size:
                        crossed.append((number, answer["score"], face.score))

            async with asyncio.TaskGroup() as callers:
                for caller in range(SIZES.crowd):
                    callers.create_task(ask_on((one, other)[caller % 2]))
            breaking.cancel()
            with suppress(asyncio.CancelledError):
                await breaking
    assert not crossed
    assert not refused
    assert kills["workers"], "nothing was killed meanwhile"
    what = f"{SIZES.pictures} pictures of {len(faces)} kinds, {SIZES.crowd} at a time"
    figures.add(7, what, f"{len(crossed)} crossed in {time.monotonic() - started:.0f} s with kills of {dict(kills)}")
