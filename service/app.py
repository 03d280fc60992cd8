"""The composition root: which queue, which backend, and how everything is put together.

    embedded (the default)   gateway and worker in one process, a queue in its memory
    over Redis               gateways, and workers in processes of their own

Either kind of worker runs the model on ONNX Runtime in its own process, or asks Triton.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service import choices, keys, tracing
from service.allowance import Allowance
from service.answering import Answering
from service.backend.protocol import Backend
from service.cache.results import ResultCache
from service.catalog import Catalog
from service.door import Door
from service.health import Readiness, Supervisor
from service.idempotency import Idempotency
from service.jobs.parts import Jobs
from service.jobs.runner import Runner
from service.keys import KeyFile
from service.metrics import Metrics
from service.queue.protocol import Queue
from service.routes import batch, compare, complexity, document, jobs, models, operations, page, problem_pages, problems
from service.routes.access import Access
from service.routes.edge import Edge
from service.routes.headers import SecurityHeaders, with_cors
from service.routes.parts import Parts
from service.routes.under_path import UnderPath
from service.scoring import Scorer
from service.settings import Settings
from service.tracing import Tracer
from service.worker import Worker

if TYPE_CHECKING:
    from service.fetch import Fetcher


@dataclass(frozen=True, slots=True)
class Service:
    """A gateway put together but not running, and in the embedded default its worker too.

    Attributes:
        backend: None where workers are processes of their own.
        tracer: None: nothing is traced. To be closed when all has ended.
    """

    settings: Settings
    catalog: Catalog
    backend: Backend | None
    queue: Queue
    pool: ThreadPoolExecutor
    metrics: Metrics
    door: Door
    scorer: Scorer
    results: ResultCache | None
    supervisor: Supervisor
    tracer: Tracer | None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the queue's ear, and the worker if there is one, running meanwhile."""
        try:
            async with _running(self.supervisor, self.results, self.queue, self.backend):
                yield
        finally:
            self.pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Workplace:
    """A worker in a process of its own, put together but not running."""

    settings: Settings
    backend: Backend
    queue: Queue
    metrics: Metrics
    worker: Worker
    supervisor: Supervisor
    tracer: Tracer | None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the worker running meanwhile."""
        async with _running(self.supervisor, self.queue, self.backend):
            yield


def build(settings: Settings) -> Service:
    """A gateway over Redis if the settings name one, else the embedded service. Raises ContractError."""
    if settings.redis_url:
        return assemble(settings, choices.catalog(settings), choices.redis_queue(settings, settings.redis_url), None)
    return assemble(settings, choices.catalog(settings), choices.memory_queue(settings), choices.backend(settings))


def build_worker(settings: Settings) -> Workplace:
    """A worker that leases from Redis. Raises ContractError, or ValueError when the settings name no Redis."""
    if not settings.redis_url:
        raise ValueError("a worker of its own needs a queue that others reach: set CLICV2_REDIS_URL")
    queue = choices.redis_queue(settings, settings.redis_url)
    backend, metrics = choices.backend(settings), Metrics(tracing.trace_id)
    metrics.serves(backend.manifest)
    tracer = choices.tracer(settings, "worker")
    worker = choices.worker(settings, queue, backend, metrics, tracer)
    return Workplace(settings, backend, queue, metrics, worker, Supervisor(worker.run, _end_process), tracer)


def assemble(settings: Settings, catalog: Catalog, queue: Queue, backend: Backend | None) -> Service:
    """The gateway around any queue, with a worker inside if there is a backend."""
    metrics = Metrics(tracing.trace_id)
    tracer = choices.tracer(settings, "gateway")
    metrics.serves(catalog.current)
    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="decode")
    worker = choices.worker(settings, queue, backend, metrics, tracer) if backend else None
    results = choices.results(settings, catalog, metrics)

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(queue.listen(), name="listen for answers")
            if worker:
                tasks.create_task(worker.run(), name="worker")

    return Service(
        settings=settings,
        catalog=catalog,
        backend=backend,
        queue=queue,
        pool=pool,
        metrics=metrics,
        door=Door(settings.max_in_flight),
        scorer=Scorer(pool, queue, metrics, catalog, settings.limits, results=results),
        results=results,
        supervisor=Supervisor(run, _end_process),
        tracer=tracer,
    )


def create_app(service: Service) -> FastAPI:
    """HTTP in front of a service, which runs from the application's start to its end."""
    settings = service.settings

    guards = keys.wanted(settings.auth, settings.host)
    known = KeyFile(settings.keys_file, time.monotonic, service.metrics.keys_unusable) if guards else None
    limiter = choices.limiter(settings, service.metrics)
    ledger = choices.ledger(settings)
    fetcher = choices.fetcher(settings, service.metrics) if settings.url_input else None
    for_later = _jobs(service, fetcher, guarded=known is not None)

    def end() -> None:
        service.supervisor.alive = False  # for /livez and the exit status
        _end_process()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as after:
            await after.enter_async_context(service.running())
            for each in (limiter, ledger, fetcher, for_later.webhooks):
                if each:
                    after.push_async_callback(each.close)
            # Entered last, so left first: what it drives is released while all that this takes is still there.
            driving = Supervisor(for_later.runner.run, end, what="what drives jobs")
            await after.enter_async_context(_running(driving, for_later.store))
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
        service.catalog.preprocess,
        ready_for_s=settings.ready_for_s,
        deadline_s=settings.ready_deadline_s,
    )
    parts = Parts(
        settings=settings,
        door=service.door,
        scorer=service.scorer,
        pool=service.pool,
        metrics=service.metrics,
        idempotency=Idempotency(ledger),
        fetch=fetcher.fetch if fetcher else None,
    )
    app.include_router(complexity.routes(parts))
    app.include_router(batch.routes(parts))
    app.include_router(compare.routes(parts))
    app.include_router(jobs.routes(parts, for_later))
    app.include_router(models.routes(service.catalog))
    app.include_router(operations.routes(service.supervisor, readiness, service.queue, service.metrics))
    app.include_router(problem_pages.routes())
    page.install(app)
    problems.install(app, service.metrics)
    anonymous = Allowance.parse(settings.anonymous_rate) if settings.anonymous_rate else None
    # From the inside to the outside.
    app.add_middleware(Access, keys=known, limiter=limiter, anonymous=anonymous, on_refused=service.metrics.refused)
    app.add_middleware(with_cors, origins=settings.origins)
    app.add_middleware(Edge, metrics=service.metrics, access_log=settings.access_log, tracer=service.tracer)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(UnderPath)
    app.openapi = lambda: app.openapi_schema or document.describe(FastAPI.openapi(app), guarded=guards)  # type: ignore[method-assign]
    return app


def create_worker_app(workplace: Workplace) -> FastAPI:
    """A worker's own /livez, /readyz and /metrics; it runs from the application's start to its end."""
    settings = workplace.settings

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with workplace.running():
            yield

    app = FastAPI(
        title="CLICv2 worker", version=version("clicv2-complexity"), docs_url=None, redoc_url=None, lifespan=lifespan
    )
    readiness = Readiness(
        workplace.worker,
        workplace.worker,
        workplace.backend.manifest.preprocess,
        ready_for_s=settings.ready_for_s,
        deadline_s=settings.ready_deadline_s,
    )
    app.include_router(operations.routes(workplace.supervisor, readiness, workplace.queue, workplace.metrics))
    problems.install(app, workplace.metrics)
    app.add_middleware(Edge, metrics=workplace.metrics, access_log=settings.access_log)
    return app


class _Closable(Protocol):
    async def close(self) -> None: ...


@asynccontextmanager
async def _running(supervisor: Supervisor, *used: _Closable | None) -> AsyncIterator[None]:
    """Keep what is supervised running meanwhile; then close all that it used, in this order, whatever fails."""
    async with AsyncExitStack() as after:
        for each in reversed(used):
            if each:
                after.push_async_callback(each.close)
        watching = asyncio.create_task(supervisor.watch(), name="supervisor")
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


def _jobs(service: Service, fetcher: "Fetcher | None", *, guarded: bool) -> Jobs:
    settings = service.settings
    limits = choices.job_limits(settings)
    store = choices.job_store(settings, limits)
    webhooks = choices.webhooks(settings, settings.webhook_secret) if settings.webhook_secret else None
    runner = Runner(
        store,
        Answering(service.scorer, service.pool, service.metrics),
        service.door,
        service.metrics,
        limits,
        problems.problem_document,
        crowd=max(1, settings.max_in_flight // 2),
        deadline_s=settings.deadline_s,
        fetch=fetcher.fetch if fetcher else None,
        webhooks=webhooks,
        tracer=service.tracer,
    )
    return Jobs(store, runner, limits, guarded, webhooks)


_end_process = partial(signal.raise_signal, signal.SIGTERM)
