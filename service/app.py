"""The composition root: which queue, which backend, and how everything is put together."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from clicv2 import contract
from service.backend.onnx import OnnxBackend
from service.backend.protocol import Backend
from service.batcher import BatchLimits
from service.door import Door
from service.health import Readiness, Supervisor
from service.metrics import Metrics
from service.queue.memory import MemoryQueue
from service.queue.protocol import Queue
from service.routes import complexity, models, operations, problems
from service.routes.edge import Edge
from service.scoring import Scorer
from service.settings import Settings
from service.worker import Worker


@dataclass(frozen=True, slots=True)
class Service:
    """Everything that scores pictures, put together but not running."""

    settings: Settings
    backend: Backend
    queue: Queue
    pool: ThreadPoolExecutor
    metrics: Metrics
    door: Door
    scorer: Scorer
    supervisor: Supervisor

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the worker running meanwhile."""
        watching = asyncio.create_task(self.supervisor.watch(), name="supervisor")
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await self.backend.close()
            self.pool.shutdown(wait=False, cancel_futures=True)


def build(settings: Settings) -> Service:
    """The embedded service: memory queue and ONNX Runtime, all in this process. Raises ContractError."""
    version = contract.open_version(settings.model_repository / settings.model, settings.model_version)
    backend = OnnxBackend(version, settings.threads)
    queue = MemoryQueue(
        capacity=settings.max_in_flight,
        lease_s=settings.lease_s,
        max_attempts=settings.max_attempts,
        clock=time.monotonic,
    )
    return assemble(settings, queue, backend)


def assemble(settings: Settings, queue: Queue, backend: Backend) -> Service:
    """The same around any queue and backend."""
    metrics = Metrics()
    metrics.serves(backend.manifest)
    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="decode")
    worker = Worker(
        queue,
        backend,
        metrics,
        BatchLimits(settings.max_batch_size, settings.max_batch_delay_s, backend.slots),
        renew_every_s=settings.lease_s / 3,
    )
    return Service(
        settings=settings,
        backend=backend,
        queue=queue,
        pool=pool,
        metrics=metrics,
        door=Door(settings.max_in_flight),
        scorer=Scorer(pool, queue, metrics, backend.manifest.preprocess, settings.limits),
        supervisor=Supervisor(worker.run, give_up=partial(signal.raise_signal, signal.SIGTERM)),
    )


def create_app(service: Service) -> FastAPI:
    """HTTP in front of a service, which runs from the application's start to its end."""
    settings, manifest = service.settings, service.backend.manifest

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPIOffline(  # FastAPI whose /docs needs no internet
        title="CLICv2 complexity service",
        summary="How visually complex a picture is, and where.",
        version=version("clicv2-complexity"),
        redoc_url=None,
        lifespan=lifespan,
    )
    readiness = Readiness(
        service.door,
        service.scorer,
        manifest.preprocess,
        ready_for_s=settings.ready_for_s,
        deadline_s=settings.ready_deadline_s,
    )
    app.include_router(
        complexity.routes(service.door, service.scorer, service.pool, manifest, service.metrics, settings)
    )
    app.include_router(models.routes(manifest))
    app.include_router(operations.routes(service.supervisor, readiness, service.queue, service.metrics))
    problems.install(app, service.metrics)
    app.add_middleware(Edge, metrics=service.metrics)
    return app
