"""Methods that no route names: HEAD, and those that are refused."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.staticfiles import StaticFiles

from service.metrics import Metrics
from service.routes import problems
from service.routes.edge import Edge

pytestmark = pytest.mark.anyio


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def client(metrics: Metrics, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app, router = FastAPI(), APIRouter()

    @router.get("/thing/{name}")
    async def read(name: str) -> str:
        return name

    @router.delete("/thing/{name}")
    async def delete(name: str) -> str:
        return name

    @router.post("/things")
    async def make() -> str:
        return "made"

    (tmp_path / "file.txt").write_text("text")
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=tmp_path))
    problems.install(app, metrics)
    app.add_middleware(Edge, metrics=metrics)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as running:
        yield running


async def test_head_is_get_without_the_body(client: httpx.AsyncClient, metrics: Metrics) -> None:
    """The server drops the body: see tests/integration/test_framing.py for that."""
    head, get = await client.head("/thing/a"), await client.get("/thing/a")
    assert head.status_code == 200
    assert {**head.headers, "x-request-id": ""} == {**get.headers, "x-request-id": ""}
    assert (await client.head("/things")).status_code == 405
    labels = {"route": "/thing/{name}", "method": "HEAD", "status": "200"}
    assert metrics.registry.get_sample_value("clicv2_requests_total", labels) == 1


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/thing/a", "GET, HEAD, DELETE"), ("/things", "POST"), ("/static/file.txt", "GET, HEAD")],
)
@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "TRACE", "INVENTED"])
async def test_allow_names_the_methods_of_all_routes(
    client: httpx.AsyncClient, path: str, allowed: str, method: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert answer.json()["type"] == "urn:clicv2:problem:method-not-allowed"
