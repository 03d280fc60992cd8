"""Pictures through shared memory with the real Triton: the same answers as by the wire, and nothing left behind."""

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from triton_server import TritonServer, install_configs, triton_server

from clicv2.imaging import Pixels
from service.backend.protocol import BackendDown
from service.backend.shared_memory import FOLDER, PREFIX, NotShared, Region, SharedMemory, new_name
from service.backend.triton import TritonBackend
from service.prediction import Predictions
from service.registry import Registry
from service.resilience import BreakerLimits
from service.triton_client import Kind, Shared, TritonClient, TritonError

pytestmark = pytest.mark.anyio

SIDE = tiny_model.SIDE
PICTURE = SIDE * SIDE * 3
# A breaker that no late call opens.
PATIENT = BreakerLimits(failures=1000, window=1000)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return install_configs(tiny_model.write(tmp_path))


@pytest.fixture
def server(models: Path) -> Iterator[TritonServer]:
    with triton_server(models) as running:
        yield running


@pytest.fixture
def slow_server(tmp_path: Path) -> Iterator[TritonServer]:
    """Eight pictures take it about half a second."""
    with triton_server(install_configs(tiny_model.write(tmp_path, work=10))) as running:
        yield running


@asynccontextmanager
async def connected(
    server: TritonServer,
    *,
    sharing: str = "on",
    share: Callable[[TritonClient], SharedMemory] = SharedMemory,
    timeout_s: float = 30.0,
) -> AsyncIterator[TritonBackend]:
    backend = TritonBackend(
        server.url,
        server.repository / "clicv2",
        timeout_s=timeout_s,
        stall_s=30.0,
        sharing=sharing,
        share=share,
        limits=PATIENT,
    )
    try:
        await asyncio.wait_for(backend.heal(), 30)
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def client_of(server: TritonServer) -> AsyncIterator[TritonClient]:
    client = TritonClient(server.url)
    try:
        yield client
    finally:
        await client.close()


def pictures(count: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8) // (seed + 1)


def ours() -> set[str]:
    """Names in the folder that this process or its child made."""
    return {path.name for path in FOLDER.glob(f"{PREFIX}*")}


async def registered(server: TritonServer) -> set[str]:
    async with client_of(server) as client:
        return set(await client.regions(10))


def same(found: Predictions, expected: Predictions) -> None:
    assert found.version == expected.version
    for name in ("score", "entropy", "heatmap", "embedding"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)


async def test_the_same_answers_as_by_the_wire_and_nothing_is_left(server: TritonServer) -> None:
    before = ours()
    async with connected(server, sharing="off") as wire, connected(server) as backend:
        assert (wire.shares_memory, backend.shares_memory) == (False, True)
        for count in (1, 2, 32, 3, 1, 32):  # growing and shrinking
            same(await backend.infer(pictures(count, count)), await wire.infer(pictures(count, count)))
        assert len(ours() - before) == 1, "one after the other, so one region is enough"
        assert await registered(server) == ours() - before
        images = [pictures(1, seed) for seed in range(64)]
        replies = await asyncio.gather(*(backend.infer(image) for image in images))
        for image, reply in zip(images, replies, strict=True):
            same(reply, await wire.infer(image))
        assert backend.shares_memory
        assert len(ours() - before) > 1
        assert await registered(server) == ours() - before
    assert ours() == before
    assert await registered(server) == set()


async def test_views_and_other_layouts_are_written_as_they_read(server: TritonServer) -> None:
    async with connected(server, sharing="off") as wire, connected(server) as backend:
        for images in (pictures(4)[::2], np.asfortranarray(pictures(2)), pictures(1)[:, ::-1]):
            same(await backend.infer(images), await wire.infer(images))


async def test_pictures_do_go_that_way(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Triton answers is of what lies in the region, not of what the call was given."""
    other = pictures(1, 7)
    write = Region.write
    async with connected(server) as backend:
        expected = await backend.infer(other)
        monkeypatch.setattr(Region, "write", lambda region, _: write(region, other))
        same(await backend.infer(pictures(1)), expected)


async def test_triton_forgets(server: TritonServer) -> None:
    """As when it was started anew while nobody asked: each call registers anew, and answers."""
    before = ours()
    async with connected(server) as backend, client_of(server) as client:
        expected = await backend.infer(pictures(2))
        await asyncio.gather(*(backend.infer(pictures(1)) for _ in range(8)))
        for name in await client.regions(10):
            await client.unregister(name, 10)
        for reply in await asyncio.gather(*(backend.infer(pictures(2)) for _ in range(8))):
            same(reply, expected)
        assert backend.shares_memory
        assert (backend.opened, await registered(server)) == (0, ours() - before)


async def test_started_anew_under_load(server: TritonServer) -> None:
    before = ours()
    images = [pictures(1, seed) for seed in range(12)]
    answered = 0

    async def ask(backend: TritonBackend, mine: list[tuple[Pixels, Predictions]]) -> None:
        nonlocal answered
        while True:
            for image, expected in mine:
                try:
                    same(await backend.infer(image), expected)
                    answered += 1
                except BackendDown:
                    await backend.heal()

    async def until_answered(more: int) -> None:
        enough = answered + more
        async with asyncio.timeout(60):
            while answered < enough:
                assert not any(caller.done() for caller in callers)
                await asyncio.sleep(0.02)

    async with connected(server) as backend:
        expected = [(image, await backend.infer(image)) for image in images]
        callers = [asyncio.create_task(ask(backend, expected[first::4])) for first in range(4)]
        await until_answered(50)
        for _ in range(2):
            await asyncio.to_thread(server.restart)
            await until_answered(50)
            assert backend.shares_memory
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await backend.infer(images[0])
        assert ours() - before >= await registered(server)
    assert ours() == before


async def test_a_connection_that_is_given_up_leaves_nothing(server: TritonServer) -> None:
    before = ours()
    async with connected(server) as backend:
        await asyncio.gather(*(backend.infer(pictures(1)) for _ in range(4)))
        assert len(ours() - before) == 4
        server.kill()
        with pytest.raises(BackendDown):
            await backend.infer(pictures(1))
        assert ours() == before, "of the others nobody has heard, and nobody will"
        assert not backend.shares_memory


async def test_the_end_may_follow_an_answer_at_once(slow_server: TritonServer) -> None:
    """A busy Triton refuses to let go of what it has just used."""
    async with client_of(slow_server) as client:
        for _ in range(6):
            memory = SharedMemory(client)
            await asyncio.gather(*(memory.infer("clicv2", None, pictures(2), 30) for _ in range(4)))
            await memory.close()
            assert await client.regions(10) == []


async def test_a_late_call_keeps_its_region_to_itself(slow_server: TritonServer) -> None:
    """Triton may read it until it has let go; until then nothing else is written there, and then it is gone."""
    async with connected(slow_server) as patient, connected(slow_server, timeout_s=0.05) as hasty:
        expected = [await patient.infer(pictures(1, seed)) for seed in range(6)]
        late: set[str] = set()
        for _ in range(3):
            before = ours()
            callers = [asyncio.create_task(hasty.infer(pictures(8, 9))) for _ in range(3)]
            await asyncio.sleep(0.02)
            late |= ours() - before
            for caller in callers:
                with pytest.raises(BackendDown, match="timeout"):
                    await caller
            assert not late & ours(), "a region of a late call can still be found, or is still used"
            replies = await asyncio.gather(*(patient.infer(pictures(1, seed)) for seed in range(6)))
            for reply, one in zip(replies, expected, strict=True):
                same(reply, one)
        assert len(late) >= 9
        assert hasty.shares_memory
        async with asyncio.timeout(60):
            # Each region that is made takes away those that Triton has let go of.
            while await registered(slow_server) & late:
                await asyncio.sleep(0.1)
                async with client_of(slow_server) as client:
                    memory = SharedMemory(client)
                    await memory.infer("clicv2", None, pictures(1), 30)
                    await memory.close()
        assert slow_server.process.poll() is None


async def test_triton_keeps_what_a_request_still_uses(slow_server: TritonServer) -> None:
    """What all of this rests on."""
    async with client_of(slow_server) as client:
        region = Region(FOLDER, new_name(), 8 * PICTURE)
        try:
            await client.register(region.name, region.size, 10)
            region.write(pictures(8))
            shared = Shared(region.name, (8, SIDE, SIDE, 3))
            calls = [asyncio.create_task(client.infer("clicv2", None, shared, 60)) for _ in range(3)]
            await asyncio.sleep(0.1)
            with pytest.raises(TritonError, match="in use"):
                await client.unregister(region.name, 10)
            assert await client.regions(10) == [region.name]
            await asyncio.gather(*calls)
            async with asyncio.timeout(10):
                while True:  # it holds a request a moment longer than its answer takes
                    try:
                        await client.unregister(region.name, 10)
                        break
                    except TritonError:
                        await asyncio.sleep(0.01)
            assert await client.regions(10) == []
        finally:
            region.drop()


DOOMED = """
import asyncio, sys
from pathlib import Path
from service.backend.triton import TritonBackend
import numpy as np

async def main():
    backend = TritonBackend(sys.argv[1], Path(sys.argv[2]), stall_s=30, timeout_s=30, sharing="on")
    await backend.heal()
    image = np.zeros((1, 64, 64, 3), np.uint8)
    await asyncio.gather(*(backend.infer(image) for _ in range(3)))
    print("shares" if backend.shares_memory else "does not", flush=True)
    while True:
        await backend.infer(image)

asyncio.run(main())
"""


async def test_what_a_killed_worker_leaves_is_cleared_away(server: TritonServer) -> None:
    before = ours()
    async with connected(server) as survivor:
        await survivor.infer(pictures(1))
        alive = ours() - before
        process = subprocess.Popen(  # noqa: ASYNC220  # it returns at once
            [sys.executable, "-c", DOOMED, server.url, str(server.repository / "clicv2")], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            assert await asyncio.to_thread(process.stdout.readline) == b"shares\n"
            left = ours() - before - alive
            assert left
            assert all(f"{PREFIX}{process.pid}-" in name for name in left)
            async with connected(server):  # while it lives nobody takes anything from it
                assert left <= ours()
                assert left <= await registered(server)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        assert left <= ours(), "the kernel takes no files away"
        stranger = FOLDER / f"clicv2-not-a-picture-{os.getpid()}"
        stranger.touch()
        try:
            async with asyncio.timeout(30):
                while left & await registered(server):  # its last call may still be read
                    async with connected(server):
                        assert not left & ours()
            assert stranger.exists()
        finally:
            stranger.unlink()
        assert alive <= ours()
        await survivor.infer(pictures(1))
        assert survivor.shares_memory
    assert ours() == before


async def test_another_machines_memory_is_no_reason_to_be_unready(
    server: TritonServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another folder is to Triton what another machine, or another container, is."""
    folder = tmp_path / "shm"
    folder.mkdir()
    for sharing, level in (("on", logging.WARNING), ("auto", logging.INFO)):
        with caplog.at_level(logging.INFO, "service.backend.triton"):
            caplog.clear()
            async with connected(server, sharing=sharing, share=partial(SharedMemory, folder=folder)) as backend:
                assert not backend.shares_memory
                await backend.infer(pictures(3))
                said = [record for record in caplog.records if "by the wire, not" in record.message]
                assert [record.levelno for record in said] == [level]
                assert "another machine" in said[0].message
    assert list(folder.iterdir()) == []
    assert await registered(server) == set()


async def test_a_region_of_the_same_name_that_is_not_ours(
    server: TritonServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Triton opens it and answers; but not to the picture that was written."""
    folder = tmp_path / "shm"
    folder.mkdir()
    decoys = []

    def name() -> str:
        decoys.append(FOLDER / new_name())
        with decoys[-1].open("wb") as decoy:
            fcntl.flock(decoy, fcntl.LOCK_EX)
            decoy.truncate(1 << 20)
        return decoys[-1].name

    try:
        async with connected(server, share=partial(SharedMemory, folder=folder, name=name)) as backend:
            assert not backend.shares_memory
            assert len(decoys) == 1
            assert "other memory under the same name" in caplog.text
            await backend.infer(pictures(1))
    finally:
        for decoy in decoys:
            decoy.unlink(missing_ok=True)
    assert list(folder.iterdir()) == []


async def test_no_room(server: TritonServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A full /dev/shm costs the speed, not the process, which would die of a page that cannot be had."""
    before = ours()
    async with connected(server, sharing="off") as wire, connected(server) as backend:
        assert backend.shares_memory

        def full(*_: int) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(os, "posix_fallocate", full)
        same(await backend.infer(pictures(32)), await wire.infer(pictures(32)))
        assert not backend.shares_memory
        assert "No space left" in caplog.text
        assert ours() == before


class Elsewhere(TritonClient):
    """Registers at one server and asks another, as a name for two of them would."""

    def __init__(self, url: str, other: TritonClient) -> None:
        super().__init__(url)
        self._other = other

    async def register(self, region: str, size: int, timeout_s: float) -> None:
        await self._other.register(region, size, timeout_s)


async def test_several_servers_behind_one_name(server: TritonServer, tmp_path: Path) -> None:
    before = ours()
    second = install_configs(tiny_model.write(tmp_path / "second"))
    with triton_server(second) as other:
        async with client_of(other) as elsewhere:
            client = Elsewhere(server.url, elsewhere)
            memory = SharedMemory(client)
            with pytest.raises(NotShared, match="several servers"):
                await memory.infer("clicv2", None, pictures(1), 30)
            memory.drop()
            await client.close()
    assert ours() == before


async def test_versions_come_and_go(server: TritonServer, models: Path) -> None:
    async with connected(server) as backend, client_of(server) as client:
        registry = Registry(client)
        expected = await backend.infer(pictures(2))
        tiny_model.write(models, version=2)
        install_configs(models)
        for versions in ([], [1], [2], [1, 2]):
            await registry.load("clicv2", versions)
            async with asyncio.timeout(30):
                while (found := await backend.infer(pictures(2))).version != max(versions, default=2):
                    pass
            np.testing.assert_allclose(found.score, expected.score, atol=1e-6)
        assert (backend.opened, backend.shares_memory) == (0, True)


async def test_an_error_of_the_model_ends_the_region_and_no_more(server: TritonServer) -> None:
    before = ours()
    async with connected(server) as backend, client_of(server) as client:
        await backend.infer(pictures(1))
        [first] = ours() - before
        memory = SharedMemory(client)
        with pytest.raises(TritonError) as caught:
            await memory.infer("clicv2", None, pictures(1)[:, :7], 30)
        assert caught.value.kind is Kind.BAD_REQUEST
        assert ours() - before == {first}
        await memory.infer("clicv2", None, pictures(1), 30)
        await memory.close()
        assert ours() - before == {first}
        assert await registered(server) == {first}
