"""/v1/jobs over both stores."""

import asyncio
import base64
import gzip
import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fetching import PRIVATE, PUBLIC, passes_for_public
from jobs import (
    LIMITS,
    PICTURES,
    SCORES,
    Gateway,
    Stores,
    ends,
    location,
    one,
    problem,
    send,
)
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from queues import eventually
from scripted import ScriptedBackend
from uploads import GZIP, TAR, ZIP, flat, tarred, zipped
from web_host import FakeDns, answer, web_host

from service import keys
from service.allowance import Allowance
from service.catalog import Catalog
from service.errors import FetchFailed
from service.jobs.webhook import Signer, WebhookLimits, Webhooks
from service.keys import KeyFile
from service.limits import Limiter
from service.outbound import Outbound
from service.routes import job_examples
from service.routes.access import Access
from service.schemas import JobEvent

pytestmark = pytest.mark.anyio


async def test_a_form(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with one(stores, catalog, scripted) as running:
        accepted = await send(running)
        begun = accepted.json()
        assert accepted.status_code == 202
        assert accepted.headers["location"] == f"/v1/jobs/{begun['id']}"
        assert begun["counts"]["items"] == 5
        assert begun["durable"] is (stores.redis is not None)
        done = await running.until_done(accepted.headers["location"])
        assert ends(done) == SCORES
        assert done["counts"] == {"items": 5, "scored": 5, "failed": 0, "left": 0}
        assert sorted(item["index"] for item in done["results"]) == [0, 1, 2, 3, 4]
        assert done["page"] == {"offset": 0}
        assert running.service.door.in_flight == 0
        assert running.count("clicv2_api_job_items_total", outcome="scored") == 5
        await eventually(lambda: running.count("clicv2_api_jobs_driven") == 0)
        forgotten = await running.client.delete(accepted.headers["location"])
        assert (forgotten.status_code, forgotten.content) == (204, b"")
        for method in ("GET", "DELETE"):
            again = await running.client.request(method, accepted.headers["location"])
            assert problem(again) == (404, "unknown-job")
        assert await running.jobs.store.held_bytes() == 0
        assert stores.left() == []


@pytest.mark.parametrize(
    ("media_type", "data"),
    [(ZIP, zipped(PICTURES)), (TAR, tarred(PICTURES)), (GZIP, gzip.compress(tarred(PICTURES)))],
    ids=["zip", "tar", "tar.gz"],
)
async def test_an_archive(
    stores: Stores, catalog: Catalog, scripted: ScriptedBackend, media_type: str, data: bytes
) -> None:
    async with one(stores, catalog, scripted) as running:
        accepted = await running.client.post("/v1/jobs", content=data, headers={"Content-Type": media_type})
        assert ends(await running.until_done(accepted.headers["location"])) == SCORES


async def test_an_items_error_is_its_own(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    files = {
        "good.png": flat(100),
        "empty.png": b"",
        "text.txt": b"Dear sir or madam, this is no picture.",
        "half.png": flat(1)[:-40],
        "nan.png": flat(scripted.NAN),
        "inner.zip": zipped(PICTURES),
        "large.png": bytes(20_001),
        'q"uo\\te\n\u2028\x01é.png': flat(200),
    }
    expected = {
        "good.png": pytest.approx(0.4),
        "empty.png": "empty-image",
        "text.txt": "unsupported-image",
        "half.png": "corrupt-image",
        "nan.png": "inference-failed",
        "inner.zip": "bad-entry",
        "large.png": "image-too-large",
        'q"uo\\te\n\u2028\x01é.png': pytest.approx(0.8),
    }
    async with one(stores, catalog, scripted, max_upload_bytes=20_000) as running:
        accepted = await running.client.post("/v1/jobs", content=tarred(files), headers={"Content-Type": TAR})
        done = await running.until_done(accepted.headers["location"])
        assert ends(done) == expected
        assert done["counts"] == {"items": 8, "scored": 2, "failed": 6, "left": 0}
        broken = next(item["problem"] for item in done["results"] if item["name"] == "half.png")
        assert broken["instance"] == f"urn:clicv2:request:{accepted.headers['x-request-id']}"
        assert running.count("clicv2_decode_failures_total", kind="Empty") == 1


async def test_options_are_for_each(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with one(stores, catalog, scripted) as running:
        done = await running.until_done(
            await location(running, heatmap="png", heatmap_size="32", embedding="true", model="clicv2")
        )
        for item in done["results"]:
            assert item["result"]["heatmap"]["width"] == 32
            assert item["result"]["embedding"]
        for options in ({"heatmap": "grid"}, {"heatmap": "overlay"}, {"embedding": "true", "heatmap": "png"}):
            path = await location(running, **options)
            most = await running.jobs.store.held_bytes()
            await running.until_done(path)
            assert await running.jobs.store.held_bytes() <= most, "room for the results was counted before"
        assert set(ends(await running.until_done(await location(running, model="clicv2:7"))).values()) == {
            "unknown-model"
        }
        assert problem(await send(running, heatmap_size="512")) == (422, "invalid-parameter")
        assert problem(await send(running, model="other")) == (404, "unknown-model")


async def test_pages(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    """Whoever follows `next` while the job runs sees each result once."""
    scripted.call_s = 0.03
    async with one(stores, catalog, scripted, replace(LIMITS, max_page=3)) as running:
        path = await location(running)
        seen: list[int] = []
        async with asyncio.timeout(60):
            while len(seen) < 5:
                page = (await running.client.get(path, params={"offset": len(seen), "limit": 2})).json()
                assert page["page"]["offset"] == len(seen)
                seen += [item["index"] for item in page["results"]]
                await asyncio.sleep(0.01)
        assert sorted(seen) == [0, 1, 2, 3, 4]

        following: str | None = f"{path}?limit=2"
        again: list[int] = []
        while following:
            page = (await running.client.get(following)).json()
            again += [item["index"] for item in page["results"]]
            following = page["page"].get("next")
        assert again == seen

        assert len((await running.client.get(path)).json()["results"]) == 3, "a page has its limit"
        assert (await running.client.get(path, params={"limit": 0})).json()["results"] == []
        assert (await running.client.get(path, params={"offset": 99})).json()["results"] == []
        for wrong in ({"offset": -1}, {"limit": -1}, {"limit": "x"}, {"offset": 10**30}):
            assert problem(await running.client.get(path, params=wrong)) == (422, "invalid-parameter")


async def test_a_retry_is_the_same_job(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    key = {"Idempotency-Key": "holiday"}
    async with one(stores, catalog, scripted) as running:
        first = await send(running, headers=key)
        second = await send(running, headers=key)
        assert (first.status_code, second.status_code) == (202, 202)
        assert first.headers["location"] == second.headers["location"]
        done = await running.until_done(first.headers["location"])
        third = await send(running, headers=key)
        assert third.headers["location"] == first.headers["location"]
        assert third.json()["status"] == "done"
        assert done["counts"]["items"] == 5
        assert len(scripted.calls) == 5
        assert problem(await send(running, {"a.png": flat(1)}, key)) == (422, "idempotency-key-reused")
        assert problem(await send(running, headers=key, heatmap="grid")) == (422, "idempotency-key-reused")
        renamed = {f"x{name}": data for name, data in PICTURES.items()}
        assert problem(await send(running, renamed, key)) == (422, "idempotency-key-reused")
        assert (await send(running)).headers["location"] != first.headers["location"]
        at_once = await asyncio.gather(*(send(running, headers={"Idempotency-Key": "race"}) for _ in range(3)))
        assert len({answered.headers["location"] for answered in at_once}) == 1


async def test_by_url(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    async def fetch(url: str, deadline: float) -> bytes:
        assert deadline > time.monotonic()
        if "missing" in url:
            raise FetchFailed("'example.com' answered with status 404", 404)
        return flat(int(url.rpartition("/")[2]))

    urls = ["https://example.com/100", "https://example.com/missing", "https://example.com/200"]
    async with one(stores, catalog, scripted, fetch=fetch) as running:
        accepted = await running.client.post("/v1/jobs", json={"urls": urls})
        assert ends(await running.until_done(accepted.headers["location"])) == {
            urls[0]: pytest.approx(0.4),
            urls[1]: "fetch-failed",
            urls[2]: pytest.approx(0.8),
        }
        for body, expected in (
            (b"", (400, "malformed-upload")),
            (b"{", (400, "malformed-upload")),
            (b"[]", (422, "invalid-parameter")),
            (b"{}", (422, "invalid-parameter")),
            (b'{"urls":[]}', (422, "invalid-parameter")),
            (b'{"urls":[""]}', (422, "invalid-parameter")),
            (b'{"urls":[1]}', (422, "invalid-parameter")),
            (b'{"urls":["https://a.example/"],"more":1}', (422, "invalid-parameter")),
            (json.dumps({"urls": ["x" * 2049]}).encode(), (422, "invalid-parameter")),
            (json.dumps({"urls": ["x"] * 1001}).encode(), (413, "too-many-files")),
        ):
            refused = await running.client.post(
                "/v1/jobs", content=body, headers={"Content-Type": "application/json; charset=utf-8"}
            )
            assert problem(refused) == expected, body
        assert await running.jobs.store.claim() is None
    async with one(stores, catalog, scripted) as running:
        refused = await running.client.post("/v1/jobs", json={"urls": urls})
        assert problem(refused) == (403, "url-input-disabled")


@pytest.mark.parametrize(
    ("media_type", "data", "expected"),
    [
        ("image/png", flat(1), (415, "unsupported-content")),
        ("", b"", (415, "unsupported-content")),
        (ZIP, b"", (400, "malformed-upload")),
        (ZIP, zipped({}), (400, "missing-file")),
        (TAR, tarred(PICTURES)[:1000], (400, "malformed-upload")),
        (GZIP, gzip.compress(tarred(PICTURES))[:-9], (400, "malformed-upload")),
        ("multipart/form-data; boundary=x", b"--x\r\n", (400, "malformed-upload")),
        (ZIP, zipped({f"{number}": b"x" for number in range(9)}), (413, "too-many-files")),
        (TAR, tarred({f"{number}": b"x" for number in range(9)}), (413, "too-many-files")),
        (TAR, tarred({"a": bytes(60_000), "b": bytes(60_000)}), (413, "image-too-large")),
    ],
)
async def test_a_bad_upload_leaves_nothing(
    stores: Stores, catalog: Catalog, scripted: ScriptedBackend, media_type: str, data: bytes, expected: tuple[int, str]
) -> None:
    async with one(stores, catalog, scripted, replace(LIMITS, max_items=8, max_bytes=100_000)) as running:
        refused = await running.client.post("/v1/jobs", content=data, headers={"Content-Type": media_type})
        assert problem(refused) == expected
        assert await running.jobs.store.held_bytes() == 0
        assert running.service.door.in_flight == 0
        if stores.redis:
            assert all(b":picture:" not in key for key in stores.left())


async def test_limits(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with one(stores, catalog, scripted, replace(LIMITS, open_at_once=1), drives=False) as running:
        path = await location(running)
        refused = await send(running)
        assert problem(refused) == (429, "jobs-full")
        assert (refused.json()["limit"], refused.json()["maximum"]) == ("jobs", 1)
        assert int(refused.headers["retry-after"]) >= 1
        assert running.count("clicv2_requests_shed_total", reason="jobs") == 1
        await running.client.delete(path)
        path = await location(running)
    async with one(stores, catalog, scripted, replace(LIMITS, held_bytes=80_000), drives=False) as running:
        if stores.redis is None:  # else the other gateway's job is held there
            path = await location(running)
        held = await running.jobs.store.held_bytes()
        refused = await send(running)
        assert problem(refused) == (429, "jobs-full")
        assert refused.json()["limit"] == "job-bytes"
        assert await running.jobs.store.held_bytes() == held, "of an upload that was refused nothing is kept"
        await running.client.delete(path)
    async with one(stores, catalog, scripted, replace(LIMITS, held_bytes=30_000), drives=False) as running:
        refused = await send(running)
        assert problem(refused) == (413, "image-too-large")
        assert (refused.json()["limit"], refused.json()["maximum"]) == ("job-bytes", 30_000)
        assert "retry-after" not in refused.headers, "however long he waits, it will not fit"
    async with one(stores, catalog, scripted) as running:
        running.service.door.drain()
        assert problem(await send(running)) == (503, "draining")


async def test_too_many_uploads_at_once(catalog: Catalog, scripted: ScriptedBackend) -> None:
    go = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield tarred(PICTURES)[:1000]
        await go.wait()
        yield tarred(PICTURES)[1000:]

    async with one(Stores(None, ""), catalog, scripted, replace(LIMITS, uploads=1), over_http=True) as running:
        first = asyncio.create_task(running.client.post("/v1/jobs", content=slowly(), headers={"Content-Type": TAR}))
        await eventually(lambda: running.service.door.in_flight)
        refused = await send(running)
        assert problem(refused) == (429, "jobs-full")
        assert refused.json()["limit"] == "job-uploads"
        go.set()
        assert (await first).status_code == 202
        assert (await send(running)).status_code == 202


async def test_who_disconnects_while_he_uploads_leaves_nothing(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield tarred(PICTURES)[:2000]
        await asyncio.sleep(60)

    async with one(Stores(None, ""), catalog, scripted, over_http=True) as running:
        sending = asyncio.create_task(running.client.post("/v1/jobs", content=slowly(), headers={"Content-Type": TAR}))
        await eventually(lambda: running.service.door.in_flight)
        await eventually(lambda: running.jobs.store._bytes)  # type: ignore[attr-defined]
        sending.cancel()
        await eventually(lambda: running.jobs.store._bytes == 0)  # type: ignore[attr-defined]
        await eventually(lambda: running.service.door.in_flight == 0)


async def test_a_cancelled_job_costs_nothing_more(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.2
    async with one(stores, catalog, scripted, replace(LIMITS, lanes=1)) as running:
        path = await location(running)
        await eventually(lambda: scripted.calls)
        await running.client.delete(path)
        await eventually(lambda: running.count("clicv2_api_jobs_driven") == 0)
        assert len(scripted.calls) <= 2
        assert running.service.door.in_flight == 0
        assert await running.jobs.store.held_bytes() == 0
        scripted.call_s = 0
        assert ends(await running.until_done(await location(running))) == SCORES


async def most_inside(running: Gateway, path: str) -> int:
    """Behind the door at once, until the job is done."""
    most = 0
    while (await running.client.get(path)).json()["status"] != "done":
        most = max(most, running.service.door.in_flight)
        await asyncio.sleep(0.002)
    return most


async def test_no_more_at_once_than_lanes(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.02
    limits = replace(LIMITS, lanes=2, driven=2)
    async with one(Stores(None, ""), catalog, scripted, limits) as running:
        paths = [await location(running) for _ in range(3)]
        assert 2 <= await most_inside(running, paths[-1]) <= 4


async def test_jobs_leave_room_and_wait_for_it(catalog: Catalog, scripted: ScriptedBackend) -> None:
    """With the door half full a job has one picture inside; with a full one it waits, and nothing fails."""
    scripted.call_s = 0.02
    async with one(Stores(None, ""), catalog, scripted, replace(LIMITS, lanes=4), max_in_flight=8) as running:
        door = running.service.door
        with ExitStack() as crowd:
            for _number in range(4):
                crowd.enter_context(door.entered())
            path = await location(running)
            assert await most_inside(running, path) == 5
        with ExitStack() as crowd:
            path = await location(running, {"a.png": flat(1)})
            for _number in range(8 - door.in_flight):
                crowd.enter_context(door.entered())
            await asyncio.sleep(0.2)
        done = await running.until_done(path)
        assert done["counts"]["scored"] == 1


async def test_without_a_worker_jobs_wait(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with one(stores, catalog, scripted) as running:
        scripted.healthy = False
        await send(running, {"down.png": flat(scripted.IS_DOWN)})
        path = await location(running)
        await asyncio.sleep(0.3)
        assert (await running.client.get(path)).json()["counts"]["failed"] == 0
        scripted.healthy = True
        assert ends(await running.until_done(path)) == SCORES


async def test_a_long_job_gives_way(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.05
    many = {f"{number}.png": flat(number) for number in range(60)}
    async with one(stores, catalog, scripted, replace(LIMITS, driven=1, lanes=1, slice_s=0.3)) as running:
        long = await location(running, many)
        short = await location(running, {"a.png": flat(5)})
        await running.until_done(short)
        assert (await running.client.get(long)).json()["status"] != "done"
        done = await running.until_done(long)
        assert done["counts"] == {"items": 60, "scored": 60, "failed": 0, "left": 0}
        assert len(scripted.calls) == 61, "nothing is done twice"
        assert running.count("clicv2_api_jobs_taken_over_total") == 0


async def test_a_job_is_its_makers(stores: Stores, catalog: Catalog, scripted: ScriptedBackend, tmp_path: Path) -> None:
    made = [keys.make(name, "read", None, Allowance.parse("7/day")) for name in ("ann", "bob")]
    for key, _ in made:
        keys.add(tmp_path / "keys.json", key)
    ann, bob = ({"Authorization": f"Bearer {full}", "Idempotency-Key": "same"} for _, full in made)
    limiter = Limiter()

    def guarded(app: FastAPI) -> None:
        known = KeyFile(tmp_path / "keys.json", time.monotonic, lambda: None)
        app.add_middleware(Access, keys=known, limiter=limiter)

    async with one(stores, catalog, scripted, by_key=True, wrap=guarded) as running:
        running.client.headers.update(ann)
        assert problem(await running.client.get("/v1/jobs/x", headers={"Authorization": ""})) == (401, "unauthorized")
        path = await location(running)
        await running.until_done(path)
        for method, where in (("GET", path), ("GET", f"{path}/events"), ("DELETE", path)):
            assert problem(await running.client.request(method, where, headers=bob)) == (404, "unknown-job")
        other = await send(running, headers=bob)
        assert other.headers["location"] != path, "another caller's Idempotency-Key is another one"
        assert (await running.client.get(path)).status_code == 200
        # Five of the seven pictures of a day are used: a job of five would need too many, and takes none.
        held = await running.jobs.store.held_bytes()
        fresh = {"Idempotency-Key": "other"}
        assert problem(await send(running, headers=fresh)) == (429, "quota-exceeded")
        assert await running.jobs.store.held_bytes() <= held
        again = await send(running)
        assert (again.status_code, again.headers["location"]) == (202, path), "a retry costs one at most"


async def test_one_key_does_not_keep_the_others_out(
    catalog: Catalog, scripted: ScriptedBackend, tmp_path: Path
) -> None:
    """Neither by jobs, nor by uploads and streams that never end."""
    made = [keys.make(name, "read") for name in ("ann", "bob")]
    for key, _ in made:
        keys.add(tmp_path / "keys.json", key)
    ann, bob = ({"Authorization": f"Bearer {full}"} for _, full in made)
    enough = asyncio.Event()

    def guarded(app: FastAPI) -> None:
        known = KeyFile(tmp_path / "keys.json", time.monotonic, lambda: None)
        app.add_middleware(Access, keys=known, limiter=Limiter())

    async def slowly() -> AsyncIterator[bytes]:
        yield tarred(PICTURES)[:1000]
        await enough.wait()
        yield tarred(PICTURES)[1000:]

    limits = replace(LIMITS, share=0.5, open_at_once=4, uploads=2, streams=2)
    own = Stores(None, "")
    async with one(own, catalog, scripted, limits, by_key=True, wrap=guarded, over_http=True, drives=False) as running:
        assert running.count("clicv2_requests_shed_total", reason="job-share") == 0
        slow = asyncio.create_task(
            running.client.post("/v1/jobs", content=slowly(), headers={"Content-Type": TAR, **ann})
        )
        await eventually(lambda: running.service.door.in_flight)
        refused = await send(running, headers=ann)
        assert problem(refused) == (429, "jobs-full")
        assert [refused.json()[name] for name in ("limit", "share_of", "maximum")] == ["job-share", "job-uploads", 1]
        assert int(refused.headers["retry-after"]) >= 1
        assert running.count("clicv2_requests_shed_total", reason="job-share") == 1
        assert (await send(running, headers=bob)).status_code == 202
        enough.set()
        assert (await slow).status_code == 202
        path = (await send(running, headers=ann)).headers["location"]
        refused = await send(running, headers=ann)
        assert (problem(refused), refused.json()["share_of"]) == ((429, "jobs-full"), "jobs")
        other = (await send(running, headers=bob)).headers["location"]
        async with running.client.stream("GET", f"{path}/events", headers=ann):
            refused = await running.client.get(f"{path}/events", headers=ann)
            assert (problem(refused), refused.json()["share_of"]) == ((429, "jobs-full"), "event-streams")
            async with running.client.stream("GET", f"{other}/events", headers=bob) as stream:
                assert stream.status_code == 200


async def test_a_webhook(stores: Stores, catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with web_host() as host:
        host.pages["/hook"] = answer(b"", status="500 No")
        outbound = Outbound(
            FakeDns({"public.example": [[PUBLIC]], "private.example": [[PRIVATE]]}),
            allowed=passes_for_public,
            ports=frozenset({host.port}),
        )
        signer = Signer(base64.b64encode(bytes(32)).decode())
        webhooks = Webhooks(signer, outbound, WebhookLimits(first_pause_s=0.2))
        async with one(stores, catalog, scripted, webhooks=webhooks) as running:
            path = await location(running, webhook=f"http://public.example:{host.port}/hook")
            failed = await running.until(path, lambda document: document["webhook"].get("detail"))
            assert failed["status"] == "done"
            assert failed["webhook"]["detail"] == "answered with status 500"
            host.pages["/hook"] = answer(b"")
            delivered = await running.until(path, lambda document: document["webhook"]["state"] == "delivered")
            assert delivered["webhook"]["attempts"] == len(host.heads) >= 2
            assert set(host.header("webhook-id")) == {delivered["id"]}
            private = await location(running, webhook=f"http://private.example:{host.port}/hook")
            refused = await running.until(private, lambda document: document["webhook"]["state"] == "failed")
            assert "no public host" in refused["webhook"]["detail"]
            assert set(host.arrivals) == {PUBLIC}
            held = await running.jobs.store.held_bytes()
            for hopeless in (f"http://127.0.0.1:{host.port}/hook", "https://example.com:22/"):
                assert problem(await send(running, webhook=hopeless)) == (422, "forbidden-url")
            assert await running.jobs.store.held_bytes() == held
            assert problem(await send(running, webhook="ftp://example.com/")) == (422, "invalid-url")
            assert problem(await send(running, webhook="")) == (422, "invalid-parameter")
        await webhooks.close()
    async with one(stores, catalog, scripted) as running:
        refused = await send(running, webhook="https://example.com/")
        assert problem(refused) == (403, "webhooks-disabled")
        assert await running.jobs.store.claim() is None


async def test_the_examples_in_openapi_are_valid(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with one(Stores(None, ""), catalog, scripted) as running:
        document = running.app.openapi()
    validate(document)
    checked = 0
    for path in document["paths"].values():
        for operation in path.values():
            contents = [each.get("content", {}) for each in operation["responses"].values()]
            body = operation.get("requestBody", {}).get("content", {})
            contents.append({key: value for key, value in body.items() if key == "application/json"})
            for content in (each for found in contents for each in found.values()):
                named = [each["value"] for each in content.get("examples", {}).values()]
                for value in named or [content["example"]]:
                    schema = content["schema"] | {"components": document["components"]}
                    Draft202012Validator(schema).validate(value)
                    checked += 1
    assert checked > 40
    create = document["paths"]["/v1/jobs"]["post"]
    assert {"webhook", "heatmap", "Idempotency-Key"} <= {each["name"] for each in create["parameters"]}
    unknown = document["paths"]["/v1/jobs/{job_id}"]["delete"]["responses"]["404"]["content"]
    assert set(unknown["application/problem+json"]["examples"]) == {"unknown-job"}
    for block in job_examples.EVENTS.split("\n\n"):
        for line in block.splitlines():
            if line.startswith("data: "):
                JobEvent.model_validate_json(line.removeprefix("data: "))
