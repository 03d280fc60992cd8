"""Promises 8, 9 and 13 from a caller's side: gateway, worker, Redis and Triton as processes, Triton at fault."""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from fleet import PICTURES, Reply, ask_all, asking, caller_of, fleet, judge, until_more, until_ready
from redis_server import RedisServer
from serving import COMMAND, Server, serving
from sizes import QUICK, SIZES, Figures, spread
from triton_server import TritonServer, install_configs, triton_server

from clicv2 import contract
from clicv2.contract import Manifest

pytestmark = pytest.mark.anyio

DEADLINE_S = 20.0
UNAVAILABLE = frozenset({503})
MODEL = "clicv2"


@dataclass(frozen=True)
class Stack:
    """One gateway and one worker on a Triton."""

    repository: Path
    triton: TritonServer
    gateway: Server
    worker: Server

    def load(self, *options: str) -> None:
        """`clicv2 models load`."""
        environment = os.environ | {
            "CLICV2_MODEL_REPOSITORY": str(self.repository),
            "CLICV2_TRITON_URL": self.triton.url,
        }
        subprocess.run([*COMMAND, "models", "load", *options], env=environment, check=True, timeout=60)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return install_configs(tiny_model.write(tmp_path))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What the service without other servers answers for each picture."""
    with serving(tiny_model.write(tmp_path_factory.mktemp("model"))) as server:
        found = [server.score(picture, heatmap="grid").raise_for_status().json() for picture in PICTURES]
    assert len({answer["score"] for answer in found}) == len(found)
    return found


@pytest.fixture(scope="module")
def scores(embedded: list[dict[str, object]]) -> list[float]:
    return [float(answer["score"]) for answer in embedded]


# On a busy machine a Triton that is well may be silent for long. At full size it is the default that is measured.
PATIENCE: dict[str, object] = {"backend_stall_s": 2} if SIZES is QUICK else {}


@pytest.fixture
def stack(repository: Path, redis: RedisServer) -> Iterator[Stack]:
    with (
        triton_server(repository) as triton,
        fleet(
            repository,
            redis,
            triton_url=triton.url,
            max_batch_size=4,
            deadline_s=DEADLINE_S,
            **PATIENCE,
        ) as processes,
    ):
        yield Stack(repository, triton, processes.gateway(), processes.worker())


async def test_the_same_answers_as_embedded(stack: Stack, embedded: list[dict[str, object]]) -> None:
    """Promise 8: whoever computes, and in whatever company."""
    async with caller_of(stack.gateway) as client:
        await until_ready(client)
        replies = await ask_all(client, heatmap="grid")
    for reply, expected in zip(replies, embedded, strict=True):
        answer = reply.response.raise_for_status().json()
        for name in ("score", "entropy"):
            assert answer[name] == pytest.approx(expected[name], abs=1e-4)
        assert answer["percentile"] == pytest.approx(expected["percentile"], abs=0.02)
        assert (answer["model"], answer["image"]) == (expected["model"], expected["image"])
        np.testing.assert_allclose(answer["heatmap"]["values"], expected["heatmap"]["values"], atol=1e-4)
    sizes = stack.worker.metric("clicv2_batch_size_sum"), stack.worker.metric("clicv2_batch_size_count")
    assert sizes[0] >= len(PICTURES), "not all of them came this way"
    assert sizes[0] > sizes[1], "none had company"


FAULTS: dict[str, tuple[Callable[[TritonServer], None], Callable[[TritonServer], object]]] = {
    "killed and started again": (TritonServer.kill, TritonServer.start),
    "stopped and resumed": (TritonServer.stop, TritonServer.resume),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failing_triton_is_contained(stack: Stack, scores: list[float], figures: Figures, fault: str) -> None:
    """Promise 13: meanwhile everybody is told at once, and soon after it is as before."""
    harm, mend = FAULTS[fault]
    async with caller_of(stack.gateway) as client:
        await until_ready(client)
        seen_s, over_s = [], []
        for _ in range(SIZES.deaths):
            async with asking(client, 6) as replies:
                await asyncio.sleep(1)
                before = len(replies)
                harmed = time.monotonic()
                await asyncio.to_thread(harm, stack.triton)
                refused = await until_ready(client, False)
                seen_s.append(time.monotonic() - harmed)
                assert refused.json()["type"] == "urn:clicv2:problem:not-ready"
                assert (await asyncio.to_thread(stack.worker.client.get, "/readyz")).status_code == 503
                await asyncio.sleep(2)
                await asyncio.to_thread(mend, stack.triton)
                mended = time.monotonic()
                await until_ready(client)
                over_s.append(time.monotonic() - mended)
                await asyncio.sleep(1)
            met = judge(replies, scores, within_s=DEADLINE_S, allowed=UNAVAILABLE)
            assert before > 0
            assert met[503] > 0
            assert judge(await ask_all(client), scores, within_s=DEADLINE_S) == {200: len(PICTURES)}
    figures.add(13, f"Triton {fault}: not ready after", spread(seen_s))
    figures.add(13, f"Triton {fault}: when it is mended, ready after", spread(over_s))


async def test_a_dead_stub_is_replaced(stack: Stack, scores: list[float], figures: Figures) -> None:
    """Promise 13, where nobody else mends it: perhaps before anybody finds that the gateway is not ready."""
    async with caller_of(stack.gateway) as client:
        await until_ready(client)
        over_s = []
        for _ in range(SIZES.deaths):
            async with asking(client, 6) as replies:
                await until_more(replies, 20)
                killed = time.monotonic()
                stack.triton.kill_stub()
                await supervised(until_more(replies, 1, status=503), stack.triton)
                await supervised(until_more(replies, 1), stack.triton)
                over_s.append(time.monotonic() - killed)
                await asyncio.sleep(1)
            judge(replies, scores, within_s=DEADLINE_S, allowed=UNAVAILABLE)
            assert judge(await ask_all(client), scores, within_s=DEADLINE_S) == {200: len(PICTURES)}
    figures.add(13, "Triton's stub killed: answers again after", spread(over_s))


async def supervised(waiting: Coroutine[None, None, None], triton: TritonServer) -> None:
    """Wait while Triton is supervised."""
    task = asyncio.create_task(waiting)
    while not (await asyncio.wait([task], timeout=0.1))[0]:
        await asyncio.to_thread(triton.supervise)
    await task


async def test_a_new_version_is_taken_up_under_load(stack: Stack, scores: list[float]) -> None:
    """Nobody is refused, and each answer's percentile is by the reference of the version that made it."""
    first = Manifest.load(stack.repository / MODEL / "1" / contract.MANIFEST_FILE)
    second = replace(add_version(stack.repository), reference=tuple(score**2 for score in first.reference))
    second.save(stack.repository / MODEL / "2" / contract.MANIFEST_FILE)
    async with caller_of(stack.gateway) as client:
        await until_ready(client)
        async with asking(client, 6, pause_s=0.01) as replies:
            await until_version(replies, 1)
            await asyncio.to_thread(stack.load)
            await until_version(replies, 2)
    assert versions(replies) == {1, 2}
    assert set(judge(replies, scores, within_s=DEADLINE_S)) == {200}
    for reply in replies:
        answer = reply.response.json()
        manifest = {1: first, 2: second}[answer["model"]["version"]]
        assert answer["percentile"] == pytest.approx(manifest.percentile(answer["score"]), abs=0.02)


async def test_a_version_for_other_preprocessing_is_refused_and_says_why(stack: Stack, scores: list[float]) -> None:
    """Promise 9: while Triton serves it nobody is answered; to load the one before heals."""
    manifest = add_version(stack.repository)
    spec = replace(manifest.preprocess, background=(0, 0, 0))
    foreign = replace(manifest, preprocess=spec, fingerprint=spec.fingerprint())
    foreign.save(stack.repository / MODEL / "2" / contract.MANIFEST_FILE)
    async with caller_of(stack.gateway) as client:
        await until_ready(client)
        async with asking(client, 6) as replies:
            await asyncio.to_thread(stack.load)
            await until_ready(client, False)
            detail = (await asyncio.to_thread(stack.worker.client.get, "/readyz")).json()["detail"]
            assert foreign.fingerprint in detail
            assert "clicv2 models load" in detail
            await asyncio.to_thread(stack.load, "--version", "1")
            await until_ready(client)
            await until_version(replies, 1)
    assert judge(replies, scores, within_s=DEADLINE_S, allowed=UNAVAILABLE)[503] > 0
    assert versions(replies) == {1}


def add_version(repository: Path) -> Manifest:
    """Version 2, which is version 1 once more."""
    tiny_model.write(repository, version=2)
    install_configs(repository)
    return Manifest.load(repository / MODEL / "2" / contract.MANIFEST_FILE)


async def until_version(replies: Sequence[Reply], version: int) -> None:
    """Wait for an answer of that version from now on."""
    seen = len(replies)
    async with asyncio.timeout(60):
        while version not in versions(replies[seen:]):  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.05)


def versions(replies: Sequence[Reply]) -> set[int]:
    """Those that answered."""
    return {reply.response.json()["model"]["version"] for reply in replies if reply.ok}
