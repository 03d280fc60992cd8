"""The routes that score pictures, over a queue in memory: called directly, or over HTTP by a server of their own."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import uvicorn
from fastapi import FastAPI

from service.app import Service, assemble
from service.backend.protocol import Backend
from service.catalog import Catalog
from service.idempotency import Idempotency
from service.ledger.memory import MemoryLedger
from service.ledger.protocol import Ledger
from service.queue.memory import MemoryQueue
from service.routes import batch, compare, complexity, models, problems
from service.routes.edge import Edge
from service.routes.parts import Fetch, Parts
from service.settings import Settings


@dataclass
class Api:
    service: Service
    app: FastAPI
    client: httpx.AsyncClient

    def count(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def api(
    catalog: Catalog,
    backend: Backend,
    *,
    fetch: Fetch | None = None,
    capacity: int = 100,
    over_http: bool = False,
    **settings: object,
) -> AsyncIterator[Api]:
    queue = MemoryQueue(capacity=capacity, lease_s=1, max_attempts=3, clock=time.monotonic)
    service = assemble(Settings(**settings), catalog, queue, backend)  # type: ignore[arg-type]
    app = app_of(service, fetch)
    async with service.running():
        while not service.queue._worker_ready:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        async with _served(app) if over_http else called(app) as client:
            yield Api(service, app, client)


def app_of(service: Service, fetch: Fetch | None = None, ledger: Ledger | None = None) -> FastAPI:
    app = FastAPI()
    parts = Parts(
        settings=service.settings,
        door=service.door,
        scorer=service.scorer,
        pool=service.pool,
        metrics=service.metrics,
        idempotency=Idempotency(ledger or MemoryLedger(capacity=1000, ttl_s=600, clock=time.monotonic)),
        fetch=fetch,
    )
    app.include_router(complexity.routes(parts))
    app.include_router(batch.routes(parts))
    app.include_router(compare.routes(parts))
    app.include_router(models.routes(service.catalog))
    problems.install(app, service.metrics)
    app.add_middleware(Edge, metrics=service.metrics)
    return app


@asynccontextmanager
async def called(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@asynccontextmanager
async def _served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """By uvicorn on a port of its own, in this event loop."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, http="httptools", lifespan="off", ws="none", log_config=None))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        await serving
