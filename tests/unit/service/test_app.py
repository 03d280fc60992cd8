"""The whole application around a backend that misbehaves; a real process is in tests/integration."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from pictures import encode, noise
from scripted import ScriptedBackend

from clicv2.heatmap import COLORMAPS, DEFAULT_COLORMAP
from service import batcher
from service.app import Service, assemble, create_app
from service.backend.protocol import BackendDown
from service.catalog import Catalog
from service.queue.memory import MemoryQueue
from service.schemas import ComplexityQuery
from service.settings import Settings

pytestmark = pytest.mark.anyio

PNG = encode(noise(64, 64), "PNG")
HEADERS = {"Content-Type": "image/png"}


@asynccontextmanager
async def application(
    catalog: Catalog, backend: ScriptedBackend, capacity: int = 10, **settings: object
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    queue = MemoryQueue(capacity=capacity, lease_s=1, max_attempts=3, clock=asyncio.get_running_loop().time)
    service = assemble(Settings(**settings), catalog, queue, backend)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with service.running(), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield service, client


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["type"].removeprefix("urn:clicv2:problem:")


def breaks(backend: ScriptedBackend, error: Exception) -> None:
    async def infer(_: object) -> object:
        raise error

    backend.infer = infer  # type: ignore[assignment,method-assign]


async def test_a_backend_that_is_down(catalog: Catalog, scripted: ScriptedBackend) -> None:
    breaks(scripted, BackendDown("no power"))
    async with application(catalog, scripted) as (service, client):
        answer = await client.post("/v1/complexity", content=PNG, headers=HEADERS)
        assert problem(answer) == (503, "unavailable")
        assert answer.headers["retry-after"] == "1"
        ready = await client.get("/readyz")
        assert problem(ready) == (503, "not-ready")
        assert "no power" in ready.json()["detail"]
        assert (await client.get("/livez")).status_code == 200
        assert service.metrics.registry.get_sample_value("clicv2_jobs_finished_total", {"outcome": "failed"}) == 2


async def test_a_defect_in_the_worker_is_survived(catalog: Catalog, scripted: ScriptedBackend) -> None:
    """The lane dies of it; the job's lease runs out, and after its last attempt it is given up."""
    intact = scripted.infer
    breaks(scripted, ZeroDivisionError())
    async with application(catalog, scripted) as (service, client):
        asking = asyncio.create_task(client.post("/v1/complexity", content=PNG, headers=HEADERS))
        await asyncio.sleep(0.1)
        scripted.infer = intact  # type: ignore[method-assign]
        assert (await asking).status_code == 200
        assert service.supervisor.alive


async def test_a_defect_while_a_batch_is_gathered_is_survived(
    catalog: Catalog, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease must not be renewed for a lane that is no more."""

    def once(held: list[object], *arguments: object, **limits: object) -> object:
        if held:
            monkeypatch.setattr(batcher, "decide", intact)
            raise ZeroDivisionError
        return intact(held, *arguments, **limits)  # type: ignore[type-var,arg-type]

    intact = batcher.decide
    monkeypatch.setattr(batcher, "decide", once)
    async with application(catalog, scripted) as (_, client):
        assert (await client.post("/v1/complexity", content=PNG, headers=HEADERS)).status_code == 200


async def test_a_defect_in_a_route(
    catalog: Catalog, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with application(catalog, scripted) as (service, client):
        monkeypatch.setattr(service.door, "check", lambda: 1 / 0)
        answer = await client.post("/v1/complexity", content=PNG, headers=HEADERS)
        assert problem(answer) == (500, "internal-error")
        assert "division" not in answer.text
        assert answer.headers["x-request-id"] in answer.json()["instance"]


async def test_dead_and_not_restarted(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted) as (service, client):
        service.supervisor.alive = False
        assert problem(await client.get("/livez")) == (503, "unavailable")


async def test_a_full_queue(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.2
    async with application(catalog, scripted, capacity=2) as (service, client):
        answers = await asyncio.gather(*(client.post("/v1/complexity", content=PNG, headers=HEADERS) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
        shed = service.metrics.registry.get_sample_value("clicv2_requests_shed_total", {"reason": "queue"})
        assert shed == 2


async def test_a_full_gateway(catalog: Catalog, scripted: ScriptedBackend) -> None:
    """Its own limit, whatever the queue still takes: decoding costs too."""
    scripted.call_s = 0.2
    async with application(catalog, scripted, capacity=100, max_in_flight=2) as (service, client):
        answers = await asyncio.gather(*(client.post("/v1/complexity", content=PNG, headers=HEADERS) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
        shed = service.metrics.registry.get_sample_value("clicv2_requests_shed_total", {"reason": "requests"})
        assert shed == 2
        assert service.door.in_flight == 0


async def test_labels_are_bounded(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted) as (service, client):
        for number in range(5):
            await client.get(f"/invented/{number}")
            await client.get(f"/v1/models/{number}")
            await client.request(f"INVENTED{number}", "/livez")
        samples = [
            sample.labels
            for family in service.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "clicv2_requests_total"
        ]
        assert {labels["route"] for labels in samples} == {"unmatched", "/v1/models/{name}", "/livez"}
        assert {labels["method"] for labels in samples} == {"GET", "other"}


async def test_both_ways_to_ask_for_metrics(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted) as (_, client):
        plain = await client.get("/metrics")
        assert plain.headers["content-type"].startswith("text/plain")
        openmetrics = await client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
        assert openmetrics.text.endswith("# EOF\n")


def test_the_api_offers_the_cores_colour_maps() -> None:
    schema = ComplexityQuery.model_json_schema()["properties"]["colormap"]
    assert tuple(schema["enum"]) == COLORMAPS
    assert schema["default"] == DEFAULT_COLORMAP
