"""The Triton backend and the registry with the real server: answers, versions, and every way to die."""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from triton_server import ROOT, TritonServer, install_configs, triton_server

from clicv2 import contract, triton
from clicv2.contract import Manifest
from clicv2.errors import ContractError
from clicv2.imaging import Pixels
from service.backend import triton as module
from service.backend.onnx import OnnxBackend
from service.backend.protocol import BackendDown, BackendError
from service.backend.triton import TritonBackend
from service.registry import Registry
from service.triton_client import TritonClient

pytestmark = pytest.mark.anyio

SIDE = tiny_model.SIDE
# On a busy machine a healthy Triton may be silent for long.
STALL_S = 10.0


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository with the tiny model as version 1."""
    return install_configs(tiny_model.write(tmp_path))


@pytest.fixture
def server(models: Path) -> Iterator[TritonServer]:
    with triton_server(models) as running:
        yield running


@asynccontextmanager
async def connected(
    server: TritonServer, *, version: int | None = None, stall_s: float = STALL_S, heal: bool = True
) -> AsyncIterator[TritonBackend]:
    backend = TritonBackend(server.url, server.repository / "clicv2", version=version, timeout_s=30.0, stall_s=stall_s)
    try:
        if heal:
            await asyncio.wait_for(backend.heal(), 30)
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def registry_of(server: TritonServer) -> AsyncIterator[Registry]:
    client = TritonClient(server.url)
    try:
        yield Registry(client)
    finally:
        await client.close()


def pictures(count: int, side: int = SIDE) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def add_version(models: Path, version: int, **changes: object) -> None:
    """Version 1 again under another number, its manifest changed."""
    folder, target = models / "clicv2/1", models / "clicv2" / str(version)
    partial = target.with_name(f".{version}")  # as export does: a server never sees half of a version
    shutil.copytree(folder, partial)
    manifest = Manifest.load(folder / contract.MANIFEST_FILE)
    replace(manifest, version=version, **changes).save(partial / contract.MANIFEST_FILE)
    partial.rename(target)


async def never_ready(backend: TritonBackend, because: str) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(backend.heal(), 2)
    assert not backend.healthy
    with pytest.raises(BackendDown, match=because):
        await backend.infer(pictures(1))


async def test_batching_changes_nothing(tmp_path: Path) -> None:
    """The shipped model with its shipped configs: alone and in company, here and in Triton (promise 8)."""
    repository = shutil.copytree(ROOT / "model_repository", tmp_path / "repository")
    reference = OnnxBackend(contract.open_version(repository / "clicv2"), threads=1)
    images = pictures(8, reference.manifest.preprocess.height)
    alone = [(await reference.infer(image[None])).at(0) for image in images]
    await reference.close()
    with triton_server(repository) as server:
        async with connected(server) as backend:
            for order in (range(1), range(8), range(7, -1, -3), range(2, 7)):
                predictions = await backend.infer(images[list(order)])
                predictions.check_shapes(len(order), backend.manifest)
                for row, index in enumerate(order):
                    found, expected = predictions.at(row), alone[index]
                    assert found.version == 1
                    assert found.score == pytest.approx(expected.score, abs=1e-4)
                    assert found.entropy == pytest.approx(expected.entropy, abs=1e-4)
                    np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=1e-4)
                    np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-4)
            assert (backend.counts.calls, backend.opened) == (4, 0)


async def test_the_right_answer_to_the_right_caller(server: TritonServer) -> None:
    images = np.stack([np.full((SIDE, SIDE, 3), 0, np.uint8)] * 64)
    images[:, :, 1::2] = np.arange(64, dtype=np.uint8)[:, None, None, None]  # each its own contrast
    async with connected(server) as backend:
        expected = (await backend.infer(images[:32])).score.tolist() + (await backend.infer(images[32:])).score.tolist()
        assert len(set(expected)) == 64
        replies = await asyncio.gather(*(backend.infer(image[None]) for image in images))
    assert [reply.at(0).score for reply in replies] == pytest.approx(expected, abs=1e-6)
    assert "Traceback" not in server.printed()  # what numpy's own DLPack would print for every answer


async def test_too_large_a_batch_is_not_sent(server: TritonServer) -> None:
    async with connected(server) as backend:
        with pytest.raises(BackendError, match="takes 32"):
            await backend.infer(pictures(triton.MAX_BATCH_SIZE + 1))
        assert backend.counts.calls == 0
        (await backend.infer(pictures(triton.MAX_BATCH_SIZE))).check_shapes(triton.MAX_BATCH_SIZE, backend.manifest)


async def test_a_wrong_request_says_nothing_of_the_backend(server: TritonServer) -> None:
    async with connected(server) as backend:
        for _ in range(20):
            with pytest.raises(BackendError, match="unexpected shape") as caught:
                await backend.infer(pictures(1, side=7))
            assert not isinstance(caught.value, BackendDown)
        assert backend.healthy


async def test_a_picture_that_fails_and_a_model_that_fails_for_half_of_them(models: Path) -> None:
    line = "            values = "
    patch_model(models, line, f"            assert image.numpy().flat[0] != 13, 'indigestible'\n{line}")
    good, bad = np.full((1, SIDE, SIDE, 3), 12, np.uint8), np.full((1, SIDE, SIDE, 3), 13, np.uint8)
    with triton_server(models) as server:
        async with connected(server) as backend:
            for _ in range(10):
                with pytest.raises(BackendError, match="indigestible") as caught:
                    await backend.infer(bad)
                assert not isinstance(caught.value, BackendDown)
                await backend.infer(good)
                await backend.infer(good)
            assert backend.healthy
            kinds = [await ending(backend, picture) for picture in [good, bad] * 10]
            assert Counter(kinds[: kinds.index("BackendDown")]).keys() == {"Predictions", "BackendError"}
            assert set(kinds[kinds.index("BackendDown") :]) == {"BackendDown"}
            assert backend.opened == 1
            await asyncio.wait_for(backend.heal(), 30)
            await backend.infer(good)


async def ending(backend: TritonBackend, images: Pixels) -> str:
    try:
        return type(await backend.infer(images)).__name__
    except BackendError as error:
        return type(error).__name__


async def test_answers_without_contents(models: Path) -> None:
    """What a model.py that knows nothing of numpy 2 sends, with status OK."""
    patch_model(models, "triton.Tensor.from_dlpack(n, value)", "triton.Tensor(n, value.numpy())")
    with triton_server(models) as server:
        async with connected(server, heal=False) as backend:
            await never_ready(backend, "numpy 2")


def patch_model(models: Path, old: str, new: str) -> None:
    path = models / "clicv2/1" / triton.PYTHON_MODEL
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new))


async def test_a_full_queue_is_no_illness(tmp_path: Path) -> None:
    models = install_configs(tiny_model.write(tmp_path, work=8))
    config = models / "clicv2" / triton.CPU_CONFIG
    config.write_text(
        config.read_text()
        + "dynamic_batching { preferred_batch_size: [ 1 ] default_queue_policy { max_queue_size: 1 } }\n"
    )
    with triton_server(models) as server:
        async with connected(server) as backend:
            kinds = Counter(await asyncio.gather(*(ending(backend, pictures(1)) for _ in range(40))))
            assert kinds.keys() <= {"Predictions", "BackendDown"}
            assert kinds["Predictions"] > 0
            assert backend.counts.refused > 0
            assert backend.healthy


async def test_triton_may_come_later(models: Path) -> None:
    with triton_server(models) as server:
        server.kill()
        async with connected(server, heal=False) as backend:
            assert backend.manifest.version == 1
            await never_ready(backend, "Connection refused")
            healing = [asyncio.create_task(backend.heal()) for _ in range(5)]
            await asyncio.to_thread(server.start)
            await asyncio.wait_for(asyncio.gather(*healing), 30)
            assert backend.counts.probes == 1  # the five shared it; those before met no server
            await backend.infer(pictures(1))


async def test_killed_and_started_again(server: TritonServer) -> None:
    async with connected(server) as backend:
        await backend.infer(pictures(2))
        server.kill()
        with pytest.raises(BackendDown):
            await backend.infer(pictures(2))
        assert not backend.healthy  # one refusal is enough
        calls = backend.counts.calls
        for _ in range(100):
            with pytest.raises(BackendDown):
                await backend.infer(pictures(2))
        assert backend.counts.calls == calls
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(backend.heal(), 30)
        await backend.infer(pictures(2))
        assert backend.opened == 1


async def test_stopped_and_resumed(server: TritonServer) -> None:
    """SIGSTOP: nothing is refused and nothing is answered. All calls that wait are given up together."""
    async with connected(server, stall_s=1.0) as backend:
        server.stop()
        calls = [asyncio.create_task(backend.infer(pictures(1))) for _ in range(4)]
        done, _ = await asyncio.wait(calls, timeout=20)
        assert len(done) == 4
        for call in calls:
            assert isinstance(call.exception(), BackendDown)
        assert not backend.healthy
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.heal(), 1.5)
        server.resume()
        await healed(backend, server)
        await backend.infer(pictures(1))


async def test_a_dead_stub_is_started_again(server: TritonServer, models: Path) -> None:
    """Triton calls itself ready, answers nothing, and starts no other process."""
    add_version(models, 2)
    async with connected(server) as backend, registry_of(server) as registry:
        await registry.load("clicv2", [1])  # a pin, which must survive
        assert (await backend.infer(pictures(1))).version == 1
        await asyncio.sleep(0.2)  # the stub tidies up; one killed with a lock in its hand takes Triton along
        server.kill_stub()
        with pytest.raises(BackendDown):
            await backend.infer(pictures(1))
        if not await healed(backend, server):
            assert backend.counts.reloads == 1
            assert (await backend.infer(pictures(1))).version == 1
        await backend.infer(pictures(1))


async def test_a_dead_stub_is_known_by_the_first_call_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton tells one after the other, 1 s each: to wait until a probe is told takes longer the more there are."""
    for name in ("PROBE_S", "WITNESS_S"):
        monkeypatch.setattr(module, name, 60)
    with triton_server(install_configs(tiny_model.write(tmp_path, work=60))) as server:
        async with connected(server, stall_s=0.9) as backend:
            calls = [asyncio.create_task(backend.infer(pictures(1))) for _ in range(5)]
            await asyncio.sleep(0.05)
            server.kill_stub()
            await until(lambda: not backend.healthy)
            if not await healed(backend, server):
                told = [str(error) for error in await asyncio.gather(*calls, return_exceptions=True)]
                assert sum("stub dead" in message for message in told) == 1
                assert sum("given up" in message for message in told) >= 2, "once it was known nobody waited longer"
                assert (backend.counts.reloads, backend.counts.probes) == (1, 3)
            await asyncio.gather(*calls, return_exceptions=True)
            await backend.infer(pictures(1))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.01)


async def healed(backend: TritonBackend, server: TritonServer) -> bool:
    """Wait for the backend while Triton is supervised; whether Triton had to be started again."""
    healing = asyncio.create_task(backend.heal())
    restarted = False
    async with asyncio.timeout(60):
        while not (await asyncio.wait([healing], timeout=0.1))[0]:
            restarted |= await asyncio.to_thread(server.supervise)
    return restarted


async def test_a_dead_stub_that_may_not_be_started_again(models: Path) -> None:
    with triton_server(models, control="none") as server:
        async with connected(server) as backend:
            await asyncio.sleep(0.2)
            server.kill_stub()
            with pytest.raises(BackendDown):
                await backend.infer(pictures(1))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(backend.heal(), 6)
            if server.process.poll() is not None:
                pytest.skip("Triton aborted, which revives the stub as well")
            with pytest.raises(BackendDown, match="model-control-mode=explicit"):
                await backend.infer(pictures(1))


async def test_versions_come_and_go_without_a_lost_request(server: TritonServer, models: Path) -> None:
    seen: list[int] = []

    async def ask(backend: TritonBackend) -> None:
        while True:
            predictions = await backend.infer(pictures(2))
            assert backend.manifest.version == predictions.version
            seen.append(predictions.version)

    async def until_seen(version: int) -> None:
        async with asyncio.timeout(30):
            while seen[-1:] != [version]:
                assert not any(client.done() for client in clients)
                await asyncio.sleep(0.02)

    async with connected(server) as backend, registry_of(server) as registry:
        clients = [asyncio.create_task(ask(backend)) for _ in range(4)]
        await until_seen(1)
        for version, versions in ((2, []), (1, [1]), (2, []), (1, [1, 2]), (2, [2]), (3, [])):
            if version > 1 and not (models / "clicv2" / str(version)).exists():
                add_version(models, version)
            await registry.load("clicv2", versions)
            await until_seen(max(versions, default=version))
        states = {entry.version: entry.state for entry in await registry.list("clicv2")}
        assert states[3] == "READY"
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        assert set(seen) == {1, 2, 3}
        assert (backend.opened, backend.counts.calls - len(seen)) == (0, len(clients))  # no call but those cut off


async def test_a_version_of_its_own(server: TritonServer, models: Path) -> None:
    """A backend that names a version is served that, or nothing."""
    add_version(models, 2)
    async with connected(server, version=1) as one, connected(server, version=2, heal=False) as two:
        assert (one.manifest.version, two.manifest.version) == (1, 2)
        await never_ready(two, r"not found.*clicv2 models load")
        async with registry_of(server) as registry:
            await registry.load("clicv2", [1, 2])
            await asyncio.wait_for(two.heal(), 30)
            assert [(await backend.infer(pictures(1))).version for backend in (one, two)] == [1, 2]
            await registry.load("clicv2", [2])
            async with asyncio.timeout(30):
                while await ending(one, pictures(1)) != "BackendDown":
                    pass


async def test_an_unloaded_model(server: TritonServer) -> None:
    async with connected(server) as backend, registry_of(server) as registry:
        await registry.unload("clicv2")
        with pytest.raises(BackendDown, match="clicv2 models load"):
            await backend.infer(pictures(1))
        await never_ready(backend, "--load-model=clicv2")
        await registry.load("clicv2", [1])
        await asyncio.wait_for(backend.heal(), 30)


async def test_a_model_made_for_other_preprocessing_never_becomes_ready(tmp_path: Path) -> None:
    """Promise 9. Graph and config agree with each other, but not with how pictures are prepared here."""
    models = install_configs(tiny_model.write(tmp_path, fingerprint="0123456789abcdef"))
    config = models / "clicv2" / triton.CPU_CONFIG
    config.write_text(config.read_text().replace(tiny_model.SPEC.fingerprint(), "0123456789abcdef"))
    with triton_server(models) as server:
        async with connected(server, heal=False) as backend:
            await never_ready(backend, "0123456789abcdef")


async def test_a_foreign_version_is_not_believed(server: TritonServer, models: Path) -> None:
    """It appears under load; pictures were prepared for the other one. Loading that again heals."""
    spec = replace(tiny_model.SPEC, background=(0, 0, 0))
    add_version(models, 2, preprocess=spec, fingerprint=spec.fingerprint())
    async with connected(server, version=None, heal=False) as backend, registry_of(server) as registry:
        with pytest.raises(TimeoutError):  # this process started with the newest, which Triton has not loaded
            await asyncio.wait_for(backend.heal(), 2)
    shutil.rmtree(models / "clicv2/2")
    async with connected(server) as backend, registry_of(server) as registry:
        add_version(models, 2, preprocess=spec, fingerprint=spec.fingerprint())
        await registry.load("clicv2")
        with pytest.raises(BackendDown, match=r"clicv2 models load"):
            await asyncio.wait_for(ask_until_down(backend), 30)
        assert backend.manifest.version == 1
        await registry.load("clicv2", [1])
        await asyncio.wait_for(backend.heal(), 30)
        assert (await backend.infer(pictures(1))).version == 1


async def ask_until_down(backend: TritonBackend) -> None:
    while True:
        assert (await backend.infer(pictures(1))).version == 1


async def test_a_graph_for_other_preprocessing_leaves_the_old_version_served(
    server: TritonServer, models: Path
) -> None:
    """The stub itself refuses the file, and Triton keeps what it has."""
    other = tiny_model.write(models / "other", fingerprint="0123456789abcdef")
    add_version(models, 2)
    shutil.copyfile(other / "clicv2/1/model.onnx", models / "clicv2/2/model.onnx")
    async with registry_of(server) as registry:
        with pytest.raises(Exception, match="0123456789abcdef"):
            await registry.load("clicv2")
        states = {entry.version: entry.state for entry in await registry.list("clicv2")}
    assert states == {1: "READY", 2: "UNAVAILABLE"}


async def test_after_the_end(server: TritonServer) -> None:
    async with connected(server) as backend:
        pass
    with pytest.raises(BackendDown, match="closed"):
        await backend.infer(pictures(1))


async def test_no_manifest_to_go_by(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no model version"):
        TritonBackend("127.0.0.1:1", tmp_path)


async def test_nobody_listens(models: Path) -> None:
    backend = TritonBackend("127.0.0.1:1", models / "clicv2")
    started = time.monotonic()
    with pytest.raises(BackendDown, match="not been asked"):
        await backend.infer(pictures(1))
    await never_ready(backend, "Connection refused")
    assert time.monotonic() - started < 30
    await backend.close()
