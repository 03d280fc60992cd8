"""What is counted, under which names, and that nobody can make them many."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import get_args

import httpx
import numpy as np
import pytest
import tiny_model
from api import api
from fastapi import APIRouter, FastAPI, Response
from pictures import encode, noise
from prometheus_client.exposition import generate_latest as plain
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from queues import eventually
from scripted import ScriptedBackend, pixels
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from clicv2.contract import Manifest, find_version
from service.batcher import BatchLimits
from service.catalog import Catalog
from service.errors import JobsFull, Overloaded
from service.health import Readiness
from service.jobs.protocol import HookState
from service.metrics import DECILES, Ending, Metrics
from service.queue.memory import MemoryQueue
from service.queue.protocol import Job
from service.routes import problems
from service.routes.edge import Edge
from service.worker import Worker

pytestmark = pytest.mark.anyio
PNG = encode(noise(64, 64), "PNG")
HEADERS = {"Content-Type": "image/png"}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return find_version(tiny_model.write(tmp_path) / "clicv2").manifest


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


class TestWhatIsThereFromTheStart:
    """A counter that appears with its first event is, for Prometheus, one that has never counted."""

    @pytest.mark.parametrize("outcome", get_args(Ending))
    def test_ends_of_jobs(self, outcome: str) -> None:
        assert value(Metrics(), "clicv2_jobs_finished_total", outcome=outcome) == 0

    def test_reasons_to_shed(self) -> None:
        """All that the code has."""
        source = "".join(path.read_text() for path in Path("service").rglob("*.py"))
        reasons = set(re.findall(r'(?:Overloaded|JobsFull)\("([\w-]+)"', source))
        assert {"requests", "queue", "jobs"} <= reasons
        for reason in reasons:
            assert value(Metrics(), "clicv2_requests_shed_total", reason=reason) == 0, reason
        assert {JobsFull("jobs", 1).reason, Overloaded("queue", 1).reason} <= reasons

    @pytest.mark.parametrize("kind", ["Empty", "Unsupported", "Corrupt", "TooLarge"])
    def test_what_can_be_wrong_with_a_picture(self, kind: str) -> None:
        assert value(Metrics(), "clicv2_decode_failures_total", kind=kind) == 0

    @pytest.mark.parametrize("state", get_args(HookState))
    def test_what_comes_of_a_webhook(self, state: str) -> None:
        assert value(Metrics(), "clicv2_webhook_attempts_total", outcome=state) == 0

    def test_nothing_that_is_no_figure(self, manifest: Manifest) -> None:
        """prometheus-client's `_created`: a second series for each counter, which Prometheus would keep."""
        metrics = Metrics()
        metrics.serves(manifest)
        for text in (plain(metrics.registry).decode(), openmetrics(metrics.registry).decode()):
            assert "clicv2_score_count" in text
            assert "_created" not in text

    def test_our_faults_at_a_route(self) -> None:
        metrics = Metrics()
        metrics.request_began()
        metrics.request_ended("/v1/complexity", "POST", 200, 0.1, 5)
        for status in ("500", "503", "504"):
            labels = {"route": "/v1/complexity", "method": "POST", "status": status}
            assert value(metrics, "clicv2_requests_total", **labels) == 0

    def test_tenths_of_the_reference(self, manifest: Manifest) -> None:
        metrics = Metrics()
        metrics.serves(manifest)
        for decile in range(1, DECILES + 1):
            assert value(metrics, "clicv2_score_deciles_total", version="1", decile=str(decile)) == 0


class TestModel:
    @pytest.mark.parametrize("score", [0.0, 0.04, 0.0999, 0.1001, 0.55, 0.949, 1.0])
    def test_a_score_falls_into_the_tenth_of_its_percentile(self, manifest: Manifest, score: float) -> None:
        """Also where the reference is not spread evenly."""
        skewed = replace(manifest, reference=tuple(np.linspace(0.0, 1.0, 101) ** 3))
        metrics = Metrics()
        metrics.scored(skewed, score, 0.5, 4096)
        expected = min(DECILES, int(skewed.percentile(score) // 10) + 1)
        found = [value(metrics, "clicv2_score_deciles_total", version="1", decile=str(n + 1)) for n in range(DECILES)]
        assert found.index(1) + 1 == expected
        assert sum(filter(None, found)) == 1

    def test_one_model_is_said_to_answer(self, manifest: Manifest) -> None:
        metrics = Metrics()
        for version in (1, 2):
            metrics.scored(replace(manifest, version=version), 0.5, 0.5, 100)
        [info] = [family for family in metrics.registry.collect() if family.name == "clicv2_model_info"]
        assert [sample.labels["version"] for sample in info.samples] == ["2"]
        assert (
            value(metrics, "clicv2_score_count", version="1") == value(metrics, "clicv2_score_count", version="2") == 1
        )


@asynccontextmanager
async def edge(metrics: Metrics, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app, router = FastAPI(), APIRouter()

    @router.post("/thing/{name}")
    async def make(name: str) -> Response:
        return Response(name)

    app.include_router(router)
    app.mount("/static", StaticFiles(directory=tmp_path))
    problems.install(app, metrics)

    class Refusing:
        """Before the routes, as who asks for keys does."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            refused = (b"x-refuse", b"1") in scope.get("headers", ())
            await (Response(status_code=401) if refused else self.app)(scope, receive, send)

    app.add_middleware(Refusing)
    app.add_middleware(Edge, metrics=metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def routes_of(metrics: Metrics) -> set[str]:
    return {sample.labels["route"] for sample in _samples(metrics, "clicv2_requests_total") if sample.value}


def _samples(metrics: Metrics, name: str) -> Iterator:  # type: ignore[type-arg]
    return (sample for family in metrics.registry.collect() for sample in family.samples if sample.name == name)


class TestRequests:
    async def test_a_route_is_its_template_also_where_it_refuses(self, tmp_path: Path) -> None:
        for method, path, headers, route in (
            ("POST", "/thing/a", {}, "/thing/{name}"),
            ("POST", "/thing/b", {"x-refuse": "1"}, "/thing/{name}"),
            ("DELETE", "/thing/c", {}, "/thing/{name}"),
            ("GET", "/static/nothing", {}, "/static"),
            ("GET", "/../../etc/passwd", {}, "unmatched"),
            ("GET", "/", {"x-refuse": "1"}, "unmatched"),
        ):
            metrics = Metrics()
            async with edge(metrics, tmp_path) as client:
                await client.request(method, path, headers=headers)
            assert routes_of(metrics) == {route}, (method, path)
            assert value(metrics, "clicv2_requests_in_flight") == 0

    async def test_bytes_are_counted_as_they_come(self, tmp_path: Path) -> None:
        metrics = Metrics()
        async with edge(metrics, tmp_path) as client:

            async def body() -> AsyncIterator[bytes]:
                for _ in range(3):
                    yield b"0" * 1000

            await client.post("/thing/a", content=body())  # nobody reads it but the edge, after the answer
            await client.post("/thing/a")
        assert value(metrics, "clicv2_upload_bytes_sum", route="/thing/{name}") == 3000
        assert value(metrics, "clicv2_upload_bytes_count", route="/thing/{name}") == 1


def test_an_observation_names_its_trace() -> None:
    metrics = Metrics(trace_id=lambda: "4bf92f3577b34da6a3ce929d0e0e4736")
    metrics.took("total", 0.2)
    metrics.request_began()
    metrics.request_ended("/v1/complexity", "POST", 200, 0.2, 0)
    text = openmetrics(metrics.registry).decode()
    named = [line for line in text.splitlines() if '# {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 0.2' in line]
    assert {line.partition("{")[0] for line in named} == {
        "clicv2_stage_duration_seconds_bucket",
        "clicv2_request_duration_seconds_bucket",
    }
    assert "trace_id" not in openmetrics(Metrics().registry).decode()


def test_a_queue_that_is_away_is_not_an_empty_one() -> None:
    metrics = Metrics()
    metrics.queue({"waiting": 3, "leased": 1, "dead": 0, "oldest_s": 2.5, "workers": 1})
    assert value(metrics, "clicv2_queue_depth") == 3
    assert value(metrics, "clicv2_queue_reachable") == 1
    metrics.queue({})
    assert value(metrics, "clicv2_queue_reachable") == 0
    assert str(value(metrics, "clicv2_queue_workers_ready")) == "nan"


async def test_a_picture_counts_once_and_a_probe_is_none(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        for _ in range(3):
            answer = await running.client.post(
                "/v1/complexity", content=PNG, headers=HEADERS, params={"heatmap": "png"}
            )
            assert answer.is_success
        bad = await running.client.post("/v1/complexity", content=PNG[:50], headers=HEADERS)
        assert bad.status_code == 422
        ready = Readiness(
            running.service.door, running.service.scorer, catalog.preprocess, ready_for_s=-1, deadline_s=10
        )
        await ready.check()
        count = running.count
        assert count("clicv2_probes_total", outcome="passed") == 1
        assert count("clicv2_jobs_finished_total", outcome="answered") == 4
        for counted in ("clicv2_score_count", "clicv2_entropy_count"):
            assert count(counted, version="1") == 3
        assert count("clicv2_image_pixels_sum") == 3 * 64 * 64
        for stage in ("upload", "decode", "queue", "render", "total"):
            expected = 4 if stage == "upload" else 3  # the damaged one had arrived, too
            assert count("clicv2_stage_duration_seconds_count", stage=stage) == expected, stage
        for stage in ("batch", "inference"):
            assert count("clicv2_stage_duration_seconds_count", stage=stage) == 4
        assert count("clicv2_upload_bytes_sum", route="/v1/complexity") == 3 * len(PNG) + 50


async def test_a_probe_that_fails(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        scripted.call_s = 5
        with pytest.raises(Exception, match="deadline"):
            await running.service.scorer.prove(pixels(1), asyncio.get_running_loop().time() + 0.2)
        assert running.count("clicv2_probes_total", outcome="failed") == 1
        assert running.count("clicv2_probes_total", outcome="passed") == 0


async def test_what_a_worker_tells(manifest: Manifest) -> None:
    backend, metrics = ScriptedBackend(manifest, slots=2), Metrics()
    queue = MemoryQueue(capacity=10, lease_s=1.0, max_attempts=3, clock=asyncio.get_running_loop().time)
    clock = asyncio.get_running_loop().time
    worker = Worker(queue, backend, metrics, BatchLimits(4, 0.0, 2), renew_every_s=0.2, clock=clock)
    assert value(metrics, "clicv2_worker_slots") == 2
    await queue.present(True)
    await queue.admit(job := Job("twice", pixels(7), clock() + 10, clock()))
    await queue.lease(1)  # by one that dies: it neither renews nor finishes
    running = asyncio.create_task(worker.run())
    try:
        await queue.result(job)
        assert value(metrics, "clicv2_jobs_leased_total") == value(metrics, "clicv2_jobs_redelivered_total") == 1
        backend.call_s = 0.3
        await queue.admit(once := Job("once", pixels(7), clock() + 10, clock()))
        await eventually(lambda: value(metrics, "clicv2_worker_slots_busy") == 1)
        await queue.result(once)
        assert value(metrics, "clicv2_jobs_leased_total") == 2
        assert value(metrics, "clicv2_jobs_redelivered_total") == 1
        await eventually(lambda: value(metrics, "clicv2_worker_slots_busy") == 0)
        backend.call_s = 0
        for mark, kind in ((backend.IS_DOWN, "down"), (backend.RAISES, "error"), (backend.BAD_SHAPE, "bad_output")):
            await queue.admit(failing := Job(kind, pixels(mark), clock() + 10, clock()))
            await queue.result(failing)
            assert value(metrics, "clicv2_backend_call_failures_total", kind=kind) == 1
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def test_the_backend_is_asked_when_somebody_scrapes(manifest: Manifest) -> None:
    backend, metrics = ScriptedBackend(manifest), Metrics()
    assert value(metrics, "clicv2_backend_breaker_open") is None, "a gateway has no backend"
    metrics.watch(backend, 1)
    assert value(metrics, "clicv2_backend_breaker_open") == 0
    backend.healthy = False
    backend.events["probes"] = 5
    assert value(metrics, "clicv2_backend_breaker_open") == 1
    assert value(metrics, "clicv2_backend_events_total", event="probes") == 5
