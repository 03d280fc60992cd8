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

from clicv2 import contract
from service import keys
from service.allowance import Allowance
from service.backend.protocol import Backend
from service.batcher import BatchLimits
from service.cache.memory import MemoryStore
from service.cache.protocol import Store
from service.cache.results import ResultCache, entry_bytes
from service.catalog import Catalog
from service.door import Door
from service.health import Readiness, Supervisor
from service.idempotency import Idempotency
from service.keys import KeyFile
from service.ledger.memory import MemoryLedger
from service.ledger.protocol import Ledger
from service.limits import Limiter, RedisCounts
from service.metrics import Metrics
from service.queue.memory import MemoryQueue
from service.queue.protocol import Queue
from service.routes import batch, compare, complexity, document, models, operations, page, problem_pages, problems
from service.routes.access import Access
from service.routes.edge import Edge
from service.routes.headers import SecurityHeaders, with_cors
from service.routes.parts import Parts
from service.scoring import Scorer
from service.settings import Settings
from service.worker import Worker

if TYPE_CHECKING:
    from service.fetch import Fetcher


@dataclass(frozen=True, slots=True)
class Service:
    """A gateway put together but not running, and in the embedded default its worker too.

    Attributes:
        backend: None where workers are processes of their own.
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

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the worker running meanwhile."""
        async with _running(self.supervisor, self.queue, self.backend):
            yield


def build(settings: Settings) -> Service:
    """A gateway over Redis if the settings name one, else the embedded service. Raises ContractError."""
    if settings.redis_url:
        return assemble(settings, _catalog(settings), _redis_queue(settings, settings.redis_url), None)
    return assemble(settings, _catalog(settings), _memory_queue(settings), _backend(settings))


def build_worker(settings: Settings) -> Workplace:
    """A worker that leases from Redis. Raises ContractError, or ValueError when the settings name no Redis."""
    if not settings.redis_url:
        raise ValueError("a worker of its own needs a queue that others reach: set CLICV2_REDIS_URL")
    queue = _redis_queue(settings, settings.redis_url)
    backend, metrics = _backend(settings), Metrics()
    metrics.serves(backend.manifest)
    worker = _worker(settings, queue, backend, metrics)
    return Workplace(settings, backend, queue, metrics, worker, Supervisor(worker.run, _end_process))


def assemble(settings: Settings, catalog: Catalog, queue: Queue, backend: Backend | None) -> Service:
    """The gateway around any queue, with a worker inside if there is a backend."""
    metrics = Metrics()
    metrics.serves(catalog.current)
    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="decode")
    worker = _worker(settings, queue, backend, metrics) if backend else None
    results = _results(settings, catalog, metrics)

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
    )


def create_app(service: Service) -> FastAPI:
    """HTTP in front of a service, which runs from the application's start to its end."""
    settings = service.settings

    guards = keys.wanted(settings.auth, settings.host)
    known = KeyFile(settings.keys_file, time.monotonic, service.metrics.keys_unusable) if guards else None
    limiter = _limiter(settings, service.metrics)
    ledger = _ledger(settings)
    fetcher = _fetcher(settings, service.metrics) if settings.url_input else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as after:
            await after.enter_async_context(service.running())
            for each in (limiter, ledger, fetcher):
                if each:
                    after.push_async_callback(each.close)
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
    app.include_router(models.routes(service.catalog))
    app.include_router(operations.routes(service.supervisor, readiness, service.queue, service.metrics))
    app.include_router(problem_pages.routes())
    page.install(app)
    problems.install(app, service.metrics)
    anonymous = Allowance.parse(settings.anonymous_rate) if settings.anonymous_rate else None
    # From the inside to the outside.
    app.add_middleware(Access, keys=known, limiter=limiter, anonymous=anonymous, on_refused=service.metrics.refused)
    app.add_middleware(with_cors, origins=settings.origins)
    app.add_middleware(Edge, metrics=service.metrics)
    app.add_middleware(SecurityHeaders)
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
    app.add_middleware(Edge, metrics=workplace.metrics)
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


def _worker(settings: Settings, queue: Queue, backend: Backend, metrics: Metrics) -> Worker:
    limits = BatchLimits(settings.max_batch_size, settings.max_batch_delay_s, backend.slots)
    return Worker(queue, backend, metrics, limits, renew_every_s=settings.lease_s / 3)


def _catalog(settings: Settings) -> Catalog:
    return Catalog(settings.model_repository / settings.model, settings.model_version)


def _results(settings: Settings, catalog: Catalog, metrics: Metrics) -> ResultCache | None:
    if not settings.cache_bytes:
        return None
    if settings.redis_url:
        return ResultCache(_redis_store(settings, settings.redis_url, catalog, metrics))
    return ResultCache(MemoryStore(max_bytes=settings.cache_bytes, ttl_s=settings.cache_ttl_s))


# What is imported below is installed only where it is used: see the extras in pyproject.toml.


def _backend(settings: Settings) -> Backend:
    model = settings.model_repository / settings.model
    if settings.triton_url:
        from service.backend.triton import TritonBackend

        return TritonBackend(
            settings.triton_url,
            model,
            version=settings.model_version,
            calls=settings.triton_calls,
            timeout_s=settings.backend_timeout_s,
            stall_s=settings.backend_stall_s,
            sharing=settings.triton_shared_memory,
        )
    from service.backend.onnx import OnnxBackend

    return OnnxBackend(contract.open_version(model, settings.model_version), settings.threads)


def _memory_queue(settings: Settings) -> MemoryQueue:
    return MemoryQueue(
        capacity=settings.max_in_flight,
        lease_s=settings.lease_s,
        max_attempts=settings.max_attempts,
        clock=time.monotonic,
    )


def _limiter(settings: Settings, metrics: Metrics) -> Limiter:
    return Limiter(
        RedisCounts(settings.redis_url, settings.redis_timeout_s) if settings.redis_url else None,
        prefix=settings.queue_name,
        timeout_s=settings.redis_timeout_s,
        on_lost=metrics.counted_alone,
        on_exceeded=metrics.refused,
    )


def _ledger(settings: Settings) -> Ledger:
    if not settings.redis_url:
        return MemoryLedger(capacity=100_000, ttl_s=settings.idempotency_ttl_s, clock=time.monotonic)
    from service.ledger.redis import RedisLedger

    return RedisLedger(
        settings.redis_url,
        prefix=f"{{{settings.queue_name}}}:key:",
        ttl_s=settings.idempotency_ttl_s,
        timeout_s=settings.redis_timeout_s,
    )


def _redis_store(settings: Settings, url: str, catalog: Catalog, metrics: Metrics) -> Store:
    from service.cache.redis import OVERHEAD_BYTES, RedisStore

    return RedisStore(
        url,
        prefix=settings.queue_name,
        slots=max(1, settings.cache_bytes // (entry_bytes(catalog.current) + OVERHEAD_BYTES)),
        ttl_s=settings.cache_ttl_s,
        timeout_s=settings.redis_timeout_s,
        on_failure=metrics.cache_failed,
    )


def _redis_queue(settings: Settings, url: str) -> Queue:
    from service.queue.redis import RedisQueue

    return RedisQueue(
        url,
        prefix=settings.queue_name,
        capacity=settings.queue_capacity,
        lease_s=settings.lease_s,
        max_attempts=settings.max_attempts,
        result_ttl_s=settings.result_ttl_s,
        dead_letters=settings.dead_letters,
        timeout_s=settings.redis_timeout_s,
    )


def _fetcher(settings: Settings, metrics: Metrics) -> "Fetcher":
    from service.addresses import public_except
    from service.fetch import Fetcher
    from service.outbound import Outbound, SystemResolver  # takes 0.3 s to import

    allowed = public_except(settings.url_denied_networks)
    outbound = Outbound(SystemResolver(), allowed=allowed, ports=frozenset(settings.url_ports))
    return Fetcher(outbound, limit=settings.max_upload_bytes, capacity=settings.max_fetches, observe=metrics.fetched)


_end_process = partial(signal.raise_signal, signal.SIGTERM)
