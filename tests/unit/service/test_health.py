import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted import ScriptedBackend, pixels

from clicv2.headers import Limits
from service import health
from service.batcher import BatchLimits
from service.catalog import Catalog
from service.door import Door
from service.errors import Draining, NotReady
from service.health import Readiness, Supervisor
from service.metrics import Metrics
from service.queue.memory import MemoryQueue
from service.scoring import Scorer
from service.worker import Worker

pytestmark = pytest.mark.anyio


def failing(times: int, deaths: list[int]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        if len(deaths) < times:
            deaths.append(1)
            raise RuntimeError("died")
        await asyncio.Event().wait()

    return run


async def test_a_task_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "RESTART_DELAY_S", 0.0)
    deaths: list[int] = []
    supervisor = Supervisor(failing(3, deaths), lambda: pytest.fail("gave up"), restarts=3)
    watching = asyncio.create_task(supervisor.watch())
    await asyncio.sleep(0.05)
    assert len(deaths) == 3
    assert supervisor.alive
    assert not watching.done()
    watching.cancel()


async def test_a_task_that_keeps_dying_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "RESTART_DELAY_S", 0.0)
    gave_up: list[bool] = []
    deaths: list[int] = []
    supervisor = Supervisor(failing(99, deaths), lambda: gave_up.append(True), restarts=3)
    await asyncio.wait_for(supervisor.watch(), 1)
    assert (len(deaths), gave_up, supervisor.alive) == (4, [True], False)


async def test_deaths_long_ago_are_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "RESTART_DELAY_S", 0.0)
    deaths: list[int] = []
    supervisor = Supervisor(
        failing(20, deaths), lambda: pytest.fail("gave up"), restarts=1, within_s=10, clock=lambda: 20.0 * len(deaths)
    )
    watching = asyncio.create_task(supervisor.watch())
    await asyncio.sleep(0.05)
    assert len(deaths) == 20
    watching.cancel()


class Road:
    """Queue, worker and a scripted backend, with a readiness in front.

    Attributes:
        queue: where the worker says that it is there.
    """

    def __init__(self, catalog: Catalog, backend: ScriptedBackend) -> None:
        metrics = Metrics()
        self.queue = queue = MemoryQueue(capacity=10, lease_s=1, max_attempts=3, clock=time.monotonic)
        spec = catalog.preprocess
        self.door = Door(10)
        self.scorer = Scorer(ThreadPoolExecutor(1), queue, metrics, catalog, Limits())
        self.worker = Worker(queue, backend, metrics, BatchLimits(8, 0.0, 1), renew_every_s=0.3)
        self.readiness = Readiness(self.door, self.scorer, spec, ready_for_s=0.2, deadline_s=0.2)


async def test_readiness_is_proved_by_an_inference(catalog: Catalog, scripted: ScriptedBackend) -> None:
    road = Road(catalog, scripted)
    working = asyncio.create_task(road.worker.run())
    await asyncio.sleep(0)  # until it has said that it is there
    await asyncio.gather(*(road.readiness.check() for _ in range(20)))
    assert len(scripted.calls) == 1, "one probe serves all who ask"
    await asyncio.sleep(0.25)
    await road.readiness.check()
    assert len(scripted.calls) == 2, "an old proof is none"
    working.cancel()


async def test_an_answer_to_somebody_is_a_proof(catalog: Catalog, scripted: ScriptedBackend) -> None:
    road = Road(catalog, scripted)
    road.scorer.answered_at = time.monotonic()
    await road.readiness.check()
    assert scripted.calls == []


async def test_a_broken_backend_is_not_ready(catalog: Catalog, scripted: ScriptedBackend) -> None:
    road = Road(catalog, scripted)
    working = asyncio.create_task(road.worker.run())
    await asyncio.sleep(0)  # until it has said that it is there
    await road.readiness.check()
    intact = scripted.infer
    scripted.infer = lambda _: intact(pixels(ScriptedBackend.IS_DOWN)[None])  # type: ignore[method-assign]
    await asyncio.sleep(0.25)
    for _ in range(5):
        with pytest.raises(NotReady, match="no power"):
            await road.readiness.check()
    assert len(scripted.calls) == 2, "a failure is remembered as long as a proof"
    scripted.infer = intact  # type: ignore[method-assign]
    await asyncio.sleep(0.25)
    await road.readiness.check()
    working.cancel()


async def test_a_worker_that_hangs_is_not_ready(catalog: Catalog, scripted: ScriptedBackend) -> None:
    road = Road(catalog, scripted)
    await road.queue.present(True)
    started = time.monotonic()
    with pytest.raises(NotReady, match="deadline"):
        await road.readiness.check()
    assert time.monotonic() - started < 2


async def test_without_a_worker_it_is_not_ready(catalog: Catalog, scripted: ScriptedBackend) -> None:
    road = Road(catalog, scripted)
    with pytest.raises(NotReady, match="no worker is ready"):
        await road.readiness.check()
    working = asyncio.create_task(road.worker.run())
    await asyncio.sleep(0.25)
    await road.readiness.check()
    working.cancel()
    await asyncio.sleep(0.25)  # the old proof is none any more
    with pytest.raises(NotReady, match="no worker is ready"):
        await road.readiness.check()


async def test_draining_is_not_ready(catalog: Catalog, scripted: ScriptedBackend) -> None:
    road = Road(catalog, scripted)
    road.scorer.answered_at = time.monotonic()
    road.door.draining = True
    with pytest.raises(Draining):
        await road.readiness.check()
