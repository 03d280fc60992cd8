"""Both stores of jobs, and gateways over them, for tests."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

import httpx
import pytest
from api import _served, called
from fastapi import FastAPI
from queues import running
from redis_server import RedisServer
from scripted import ScriptedBackend
from uploads import flat, form, slug

from service import choices
from service.answering import Answering
from service.app import Service, assemble
from service.backend.protocol import Backend
from service.catalog import Catalog
from service.idempotency import Idempotency
from service.jobs.memory import MemoryStore
from service.jobs.parts import Jobs
from service.jobs.protocol import Draft, JobLimits, Source, Store
from service.jobs.redis import RedisStore
from service.jobs.runner import Runner
from service.jobs.webhook import Webhooks
from service.ledger.memory import MemoryLedger
from service.queue.memory import MemoryQueue
from service.routes import jobs as job_routes
from service.routes import problems
from service.routes.edge import Edge
from service.routes.parts import Fetch, Parts
from service.schemas import JobQuery
from service.settings import Settings

# Long for a test, as the machine may have much else to do.
LEASE_S = 0.5
OPTIONS = JobQuery().model_dump_json(exclude={"webhook"})


def job_limits(**others: object) -> JobLimits:
    """Those of the default settings, but for `others`."""
    return replace(choices.job_limits(Settings()), **others)  # type: ignore[arg-type]


@dataclass
class Stores:
    """Makes stores of one kind; those in Redis with one prefix hold the same jobs."""

    redis: RedisServer | None
    prefix: str

    def make(self, limits: JobLimits | None = None) -> Store:
        limits = limits or job_limits(lease_s=LEASE_S)
        if self.redis is None:
            return MemoryStore(limits)
        return RedisStore(self.redis.url, limits, prefix=self.prefix, timeout_s=5)

    def left(self) -> list[bytes]:
        """What there is in Redis; nothing where there is none."""
        return sorted(self.redis.client.scan_iter(f"{{{self.prefix}}}:bulk:*")) if self.redis else []


async def begin(
    store: Store, pictures: Mapping[str, bytes], *, owner: str = "ann", slot: str | None = None, digest: str = "d"
) -> str:
    """A job of these pictures, submitted; its id."""
    draft = Draft(token_hex(16), owner, OPTIONS, "request", None, 1000)
    assert await store.begin(draft, slot) is None
    for place, (name, data) in enumerate(pictures.items()):
        await store.add(draft.id, place, Source(name, data))
    return await store.submit(draft.id, slot, digest)


@dataclass
class Gateway:
    """A gateway with jobs, in this process."""

    service: Service
    app: FastAPI
    client: httpx.AsyncClient
    jobs: Jobs

    def count(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0

    async def until(self, location: str, condition: Callable[[Any], object]) -> Any:
        """Ask for a job until it is so; the document."""
        async with asyncio.timeout(60):
            while not condition(document := (await self.client.get(location)).json()):  # noqa: ASYNC110  # as callers ask
                await asyncio.sleep(0.02)
        return document

    async def until_done(self, location: str) -> Any:
        return await self.until(location, lambda document: document.get("status") == "done")


@asynccontextmanager
async def gateway(
    catalog: Catalog,
    backend: Backend,
    store: Store,
    *,
    limits: JobLimits | None = None,
    fetch: Fetch | None = None,
    webhooks: Webhooks | None = None,
    by_key: bool = False,
    drives: bool = True,
    over_http: bool = False,
    wrap: Callable[[FastAPI], Any] = lambda app: app,
    **settings: object,
) -> AsyncIterator[Gateway]:
    limits = limits or job_limits(lease_s=LEASE_S, poll_s=0.1)
    queue = MemoryQueue(capacity=100, lease_s=1, max_attempts=3, clock=time.monotonic)
    service = assemble(Settings(**settings), catalog, queue, backend)  # type: ignore[arg-type]
    runner = Runner(
        store,
        Answering(service.scorer, service.pool, service.metrics),
        service.door,
        service.metrics,
        limits,
        problems.problem_document,
        crowd=service.settings.max_in_flight // 2,
        deadline_s=service.settings.deadline_s,
        fetch=fetch,
        webhooks=webhooks,
    )
    jobs = Jobs(store, runner, limits, by_key, webhooks)
    parts = Parts(
        settings=service.settings,
        door=service.door,
        scorer=service.scorer,
        pool=service.pool,
        metrics=service.metrics,
        idempotency=Idempotency(MemoryLedger(capacity=1000, ttl_s=600, clock=time.monotonic)),
        fetch=fetch,
    )
    app = FastAPI()
    app.include_router(job_routes.routes(parts, jobs))
    problems.install(app, service.metrics)
    wrap(app)
    app.add_middleware(Edge, metrics=service.metrics)
    async with service.running():
        while not queue._worker_ready:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        async with _served(app) if over_http else called(app) as client:
            if not drives:
                yield Gateway(service, app, client, jobs)
                return
            async with running(runner.run()):
                yield Gateway(service, app, client, jobs)


LIMITS = job_limits(lease_s=LEASE_S, poll_s=0.1)
PICTURES = {f"{mark}.png": flat(mark) for mark in (10, 50, 100, 150, 200)}
SCORES = {name: pytest.approx(int(name.split(".")[0]) / 250, abs=1e-6) for name in PICTURES}


@asynccontextmanager
async def one(
    stores: Stores, catalog: Catalog, backend: ScriptedBackend, limits: JobLimits = LIMITS, **options: object
) -> AsyncIterator[Gateway]:
    store = stores.make(limits)
    try:
        async with gateway(catalog, backend, store, limits=limits, **options) as running:  # type: ignore[arg-type]
            yield running
    finally:
        await store.close()


async def send(
    running: Gateway, files: Mapping[str, bytes] = PICTURES, headers: Mapping[str, str] | None = None, **query: str
) -> httpx.Response:
    return await running.client.post("/v1/jobs", files=form(files), headers=headers, params=query)


async def location(running: Gateway, files: Mapping[str, bytes] = PICTURES, **query: str) -> str:
    accepted = await send(running, files, **query)
    assert accepted.status_code == 202, accepted.text
    return accepted.headers["location"]


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, slug(response.json())


def ends(document: Mapping[str, object]) -> dict[str, object]:
    """By name: the score or the problem."""
    items = document["results"]
    assert isinstance(items, list)
    return {item["name"]: item["result"]["score"] if "result" in item else slug(item["problem"]) for item in items}
