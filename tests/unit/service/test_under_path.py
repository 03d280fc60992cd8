"""The whole application under a path of another host, as its server hands it requests."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from collector import collecting
from fastapi.routing import APIRoute
from pictures import encode, noise
from scripted import ScriptedBackend
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service import keys
from service.app import Service, assemble, create_app
from service.catalog import Catalog
from service.queue.memory import MemoryQueue
from service.routes.under_path import UnderPath
from service.settings import OWN_PATHS, Settings

pytestmark = pytest.mark.anyio

PNG = encode(noise(64, 64), "PNG")
ROOTS = ["/complexity", "/a/b.c", "/v2"]
# By the path as it comes to the server.
WRITTEN = {"cut off": "{path}", "left as it is": "{root}{path}"}


class LikeUvicorn:
    """Its `root_path` goes before every path, whatever that is."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, raw_path = self._root + scope["path"], self._root.encode() + scope["raw_path"]
        await self._app({**scope, "path": path, "raw_path": raw_path, "root_path": self._root}, receive, send)


@asynccontextmanager
async def under(root: str, catalog: Catalog, **settings: object) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    queue = MemoryQueue(capacity=10, lease_s=1, max_attempts=3, clock=asyncio.get_running_loop().time)
    given = Settings(root_path=root, **settings)  # type: ignore[arg-type]
    service = assemble(given, catalog, queue, ScriptedBackend(catalog.current))
    app = create_app(service)
    transport = httpx.ASGITransport(LikeUvicorn(app, root), raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client, service


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
async def test_all_that_leads_on_has_the_path(catalog: Catalog, root: str, written: str) -> None:
    async with under(root, catalog) as (client, _):

        async def get(path: str, **headers: str) -> httpx.Response:
            return await client.get(written.format(root=root, path=path), headers=headers)

        async def follow(link: str) -> httpx.Response:
            assert link.startswith(f"{root}/")
            return await get(link.removeprefix(root))

        begun = await client.post(written.format(root=root, path="/v1/jobs"), files=[("file", PNG), ("file", PNG)])
        assert begun.headers["location"] == f"{root}/v1/jobs/{begun.json()['id']}"
        async with asyncio.timeout(30):
            while (await follow(begun.headers["location"])).json()["status"] != "done":  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # as callers ask
        first = (await follow(f"{begun.headers['location']}?limit=1")).json()
        second = (await follow(first["page"]["next"])).json()
        assert {page["results"][0]["index"] for page in (first, second)} == {0, 1}

        for path, kind in (("/nothing", "not-found"), ("/v1/jobs/nothing", "unknown-job"), ("/errors/x", "not-found")):
            problem = await get(path)
            assert problem.headers["link"] == f'<{root}/errors/{kind}>; rel="help"'
            assert (await follow(f"{root}/errors/{kind}")).text.startswith(f"# {kind}")
        assert f"{root}/errors lists all" in problem.json()["detail"]

        schema = (await get("/openapi.json")).json()
        assert schema["servers"] == [{"url": root}]
        assert "/v1/complexity" in schema["paths"], "relative to the server"
        for link in re.findall(r'(?:href|src)="([^"]+)"', (await get("/docs")).text):
            assert (await follow(link)).status_code == 200, link
        assert f"url: '{root}/openapi.json'" in (await get("/docs")).text

        for path in ("/errors", "/errors/overloaded"):
            page = await get(path, accept="text/html")
            links = re.findall(r'href="([^"]+)"', page.text)
            assert links
            for link in links:
                assert (await follow(httpx.URL(f"http://test{root}{path}").join(link).path)).status_code == 200, link


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
async def test_who_forgets_the_last_slash_is_told_by_a_path(catalog: Catalog, written: str) -> None:
    """And by no scheme or host, which only a proxy knows, and a stranger can invent."""
    async with under("/complexity", catalog) as (client, _):
        for path, where in (("/docs/", "/complexity/docs"), ("/v1/models/?a=b", "/complexity/v1/models?a=b")):
            asked = written.format(root="/complexity", path=path)
            answer = await client.get(asked, headers={"Host": "evil.example:81"})
            assert (answer.status_code, answer.headers["location"]) == (307, where)
        answer = await client.get("/complexity")
        assert (answer.status_code, answer.headers["location"]) == (307, "/complexity/")
    async with under("", catalog) as (client, _):
        assert (await client.get("/docs/")).headers["location"] == "/docs"


async def test_no_location_leads_to_another_host_unless_it_names_one() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = Response(headers={"Location": dict(scope["headers"])[b"wanted"].decode()})
        await response(scope, receive, send)

    transport = httpx.ASGITransport(UnderPath(app), root_path="/complexity")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for wanted, told in (
            ("http://test//evil.example/docs", "/evil.example/docs"),
            ("/v1/jobs/1", "/complexity/v1/jobs/1"),
            ("https://elsewhere.example/", "https://elsewhere.example/"),
        ):
            assert (await client.get("/", headers={"wanted": wanted})).headers["location"] == told


@pytest.mark.parametrize("root", ["", "/complexity"])
async def test_no_way_of_writing_a_path_goes_past_the_keys(catalog: Catalog, root: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    reader, admin = (keys.make(scope, scope) for scope in ("read", "admin"))
    for key, _ in (reader, admin):
        keys.add(path, key)
    async with under(root, catalog, auth="on", keys_file=path) as (client, _):
        for before in ("", "/complexity", "/complexity/complexity", "/complexity" * 3, "/%63omplexity", "//complexity"):
            for known, most in ((None, 401), (reader[1], 403), (admin[1], 404)):
                headers = {"X-API-Key": known} if known else {}
                answer = await client.get(f"http://test{before}/metrics", headers=headers)
                assert "clicv2_requests_total" not in answer.text or known == admin[1], (before, known)
                assert answer.status_code in ({200, most} if known == admin[1] else {401, 403, 404}), (before, known)
                assert answer.status_code == 401 or known, before
        asked = f"{root}/metrics"
        statuses = [
            (await client.get(asked, headers={"X-API-Key": full})).status_code for full in (reader[1], admin[1])
        ]
        assert statuses == [403, 200]
        for open_to_all in ("", "/", "/docs", "/livez", "/static/page.js", "/errors/overloaded"):
            answer = await client.get(root + open_to_all, follow_redirects=True)
            assert answer.status_code == 200, open_to_all
        assert (await client.get(f"{root}/v1/models")).status_code == 401


async def test_the_policies_and_the_figures_are_as_without(catalog: Catalog) -> None:
    async with under("/complexity", catalog) as (client, service):
        docs = await client.get("/complexity/docs")
        assert "script-src 'self' 'unsafe-inline'" in docs.headers["content-security-policy"]
        page = await client.get("/complexity/")
        assert "unsafe-inline" not in page.headers["content-security-policy"].partition("style-src")[0]
        await client.get("/complexity/v1/models/clicv2")
        await client.get("/complexity/static/page.js")
        for route in ("/v1/models/{name}", "/static"):
            labels = {"route": route, "method": "GET", "status": "200"}
            assert service.metrics.registry.get_sample_value("clicv2_requests_total", labels) == 1, route


async def test_what_begins_with_the_same_letters_is_not_below(catalog: Catalog) -> None:
    async with under("/complexity", catalog) as (client, _):
        for path in ("/complexityv1/models", "/complexit/v1/models", "/complexity/complexity/v1/models"):
            answer = await client.get(path)
            assert answer.status_code == 404, path
            assert answer.json()["detail"] in (f"GET {path}: Not Found", f"GET /complexity{path}: Not Found")
        assert (await client.get("/complexityv1")).json()["detail"] == "GET /complexity/complexityv1: Not Found"


async def test_who_watches_is_not_traced(catalog: Catalog) -> None:
    with collecting() as collector:
        async with under("/complexity", catalog, otlp_endpoint=collector.url) as (client, service):
            for path in ("/livez", "/complexity/livez", "/complexity/metrics", "/complexity/v1/models"):
                answer = await client.get(path)
                assert answer.status_code == 200, answer.text
        assert service.tracer
        await asyncio.to_thread(service.tracer.close)
        spans = collector.wait_for(lambda spans: bool(spans))
        assert [span.name for span in spans if span.name.startswith("GET")] == ["GET /v1/models"]


def test_no_path_of_the_services_own_can_be_that_of_the_proxy(catalog: Catalog) -> None:
    """Else nobody could tell whether it has been cut off."""
    queue = MemoryQueue(capacity=1, lease_s=1, max_attempts=1, clock=lambda: 0.0)
    app = create_app(assemble(Settings(), catalog, queue, None))
    paths = {*app.openapi()["paths"], "/static", "/static-offline-docs"}
    paths |= {route.path for route in app.routes if isinstance(route, APIRoute)} | {"/openapi.json", "/docs"}
    assert {path.split("/")[1] for path in paths} - {""} == OWN_PATHS
    assert json.dumps(app.openapi()).count("servers") == 0
