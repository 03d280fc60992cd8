"""The whole application with results that are kept, around a backend that counts its calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from pictures import encode, noise
from queues import eventually
from scripted import ScriptedBackend

from service.app import Service, assemble, create_app
from service.catalog import Catalog
from service.queue.memory import MemoryQueue
from service.settings import Settings

pytestmark = pytest.mark.anyio

PNG, OTHER = encode(noise(64, 64), "PNG"), encode(noise(80, 60), "PNG")
HEADERS = {"Content-Type": "image/png"}
TRUNCATED = PNG[: len(PNG) // 2]


@asynccontextmanager
async def application(
    catalog: Catalog, backend: ScriptedBackend, capacity: int = 10, **settings: object
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    queue = MemoryQueue(capacity=capacity, lease_s=10, max_attempts=3, clock=asyncio.get_running_loop().time)
    kept = Settings(**{"cache_bytes": 1 << 20} | settings)  # type: ignore[arg-type]
    service = assemble(kept, catalog, queue, backend)
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with service.running(), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield service, client


async def post(client: httpx.AsyncClient, data: bytes = PNG, query: str = "", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(f"/v1/complexity{query}", content=data, headers=HEADERS | named)


def without_chance(answer: httpx.Response) -> dict[str, object]:
    return {name: value for name, value in answer.json().items() if name not in ("id", "timings", "cache")}


async def test_a_picture_that_was_scored_before(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted) as (service, client):
        first, second, other = await post(client), await post(client), await post(client, OTHER)
        assert [answer.json()["cache"] for answer in (first, second, other)] == ["miss", "hit", "miss"]
        assert second.headers["cache-status"] == "clicv2;hit"
        assert without_chance(first) == without_chance(second)
        assert first.json()["id"] != second.json()["id"]
        assert second.json()["timings"]["inference_s"] == 0
        assert len(scripted.calls) == 2
        looked_up = service.metrics.registry.get_sample_value
        assert looked_up("clicv2_cache_lookups_total", {"result": "hit"}) == 1
        assert looked_up("clicv2_jobs_admitted_total") == 2


async def test_a_key_and_what_is_kept(catalog: Catalog, scripted: ScriptedBackend) -> None:
    """Who asks with a key is spared the work, too; its name for the answer stays its own, and a key one picture's."""
    async with application(catalog, scripted) as (service, client):
        first = await post(client, Idempotency_Key="a")
        again = await post(client, Idempotency_Key="a")
        other = await post(client, Idempotency_Key="b")
        without = await post(client)
        assert [answer.json()["cache"] for answer in (first, again, other, without)] == ["miss", "hit", "hit", "hit"]
        assert first.json()["id"] == again.json()["id"]
        assert len({answer.json()["id"] for answer in (first, other, without)}) == 3
        refused = await post(client, OTHER, Idempotency_Key="a")
        assert refused.json()["type"].endswith(":idempotency-key-reused")
        await post(client, OTHER)
        # Also where the other picture's result is known.
        assert (await post(client, OTHER, Idempotency_Key="a")).json()["type"] == refused.json()["type"]
        assert len(scripted.calls) == 2
        looked_up = service.metrics.registry.get_sample_value
        assert looked_up("clicv2_cache_lookups_total", {"result": "miss"}) == 2


@pytest.mark.parametrize("query", ["?heatmap=grid", "?heatmap=png&colormap=magma", "?heatmap=overlay&opacity=0.3"])
@pytest.mark.parametrize("accept", ["application/json", "image/png"])
async def test_every_form_comes_of_one_result(
    catalog: Catalog, scripted: ScriptedBackend, query: str, accept: str
) -> None:
    async with application(catalog, scripted, cache_bytes=0) as (_, client):
        asked_alone = await post(client, query=query, Accept=accept)
    async with application(catalog, scripted) as (_, client):
        await post(client)
        calls = len(scripted.calls)
        answer = await post(client, query=query, Accept=accept)
        assert answer.headers["cache-status"] == "clicv2;hit"
        assert len(scripted.calls) == calls
        assert answer.headers["etag"] == asked_alone.headers["etag"]
        if accept == "image/png":
            assert answer.content == asked_alone.content
        else:
            assert without_chance(answer) == without_chance(asked_alone)


async def test_nothing_is_kept(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted, cache_bytes=0) as (_, client):
        for _ in range(2):
            answer = await post(client)
            assert "cache" not in answer.json()
            assert "cache-status" not in answer.headers
            assert "etag" in answer.headers
        assert len(scripted.calls) == 2


async def test_identical_pictures_in_flight(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.2
    async with application(catalog, scripted) as (_, client):
        plain = [post(client) for _ in range(3)]
        overlays = [post(client, query="?heatmap=overlay") for _ in range(2)]
        answers = await asyncio.gather(*plain, *overlays)
        assert sorted(answer.json()["cache"] for answer in answers) == ["miss", *["shared"] * 4]
        assert len({answer.json()["id"] for answer in answers}) == 5
        assert len(scripted.calls) == 1
        assert answers[3].json()["heatmap"] == answers[4].json()["heatmap"]


async def test_the_first_has_no_time_and_the_others_do(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 1.0
    async with application(catalog, scripted) as (_, client):
        first = asyncio.create_task(post(client, X_Request_Timeout="0.5"))
        await eventually(lambda: scripted.calls)
        others = await asyncio.gather(*(post(client) for _ in range(3)))
        assert (await first).status_code == 504
        assert [answer.json()["cache"] for answer in others] == ["shared"] * 3
        assert len(scripted.calls) == 1


async def test_a_damaged_picture_is_judged_once(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted) as (_, client):
        answers = await asyncio.gather(*(post(client, TRUNCATED) for _ in range(3)))
        assert [answer.status_code for answer in answers] == [422] * 3
        assert not scripted.calls


async def test_the_caller_has_it(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted) as (_, client):
        first = await post(client)
        tag = first.headers["etag"]
        again = await post(client, If_None_Match=f'"other", {tag}')
        assert (again.status_code, again.content) == (304, b"")
        assert "content-type" not in again.headers
        assert {name: again.headers[name] for name in ("etag", "cache-control", "vary")} == {
            name: first.headers[name] for name in ("etag", "cache-control", "vary")
        }
        assert (await post(client, OTHER, If_None_Match=tag)).status_code == 200
        assert (await post(client, query="?heatmap=grid", If_None_Match=tag)).status_code == 200
        assert (await post(client, If_None_Match=tag, Accept="image/png")).status_code == 200
        calls = len(scripted.calls)
        fresh = await post(client, If_None_Match=tag, Cache_Control="no-cache")
        assert (fresh.status_code, len(scripted.calls)) == (304, calls + 1)


async def test_what_the_caller_allows(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted) as (_, client):
        states = [
            (await post(client, **headers)).json()["cache"]
            for headers in ({"Cache_Control": "no-store"}, {}, {"Cache_Control": "no-cache"}, {})
        ]
        assert states == ["miss", "miss", "miss", "hit"]


async def test_a_new_version_answers(catalog: Catalog, scripted: ScriptedBackend) -> None:
    """And then the old one again, which is what a pin does."""
    old, new = scripted.manifest, replace(scripted.manifest, version=7, sha256="7" * 64)
    catalog._known[7] = new
    async with application(catalog, scripted) as (_, client):
        first = await post(client)
        scripted.manifest = new
        assert (await post(client)).json()["cache"] == "hit"  # nobody knows of it yet
        await post(client, OTHER)
        second = await post(client, If_None_Match=first.headers["etag"])
        assert (second.status_code, second.json()["cache"], second.json()["model"]["version"]) == (200, "miss", 7)
        scripted.manifest = old
        await post(client, OTHER, Cache_Control="no-cache")
        third = await post(client)
        assert (third.json()["cache"], third.json()["model"]["version"]) == ("hit", old.version)


async def test_one_version_alone_is_wanted(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted) as (_, client):
        await post(client)
        assert (await post(client, query="?model=clicv2:1")).json()["cache"] == "hit"
        assert (await post(client, query="?model=clicv2:2")).status_code == 404


async def test_a_result_is_known_though_no_worker_is_there(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with application(catalog, scripted) as (service, client):
        await post(client)
        await service.queue.present(False)
        assert (await post(client)).json()["cache"] == "hit"
