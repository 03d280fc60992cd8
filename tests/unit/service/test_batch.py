"""Many pictures in one request."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Mapping

import httpx
import numpy as np
import pytest
from api import Api, api
from queues import eventually
from scripted import ScriptedBackend
from uploads import GZIP, TAR, ZIP, flat, form, slug, tarred, zipped

from service.catalog import Catalog

pytestmark = pytest.mark.anyio

PICTURES = {f"{mark}.png": flat(mark) for mark in (10, 50, 100, 150, 200)}


async def send(
    running: Api, files: Mapping[str, bytes], headers: Mapping[str, str] | None = None, **query: str
) -> httpx.Response:
    return await running.client.post("/v1/complexity/batch", files=form(files), headers=headers, params=query)


async def send_archive(running: Api, media_type: str, data: bytes) -> httpx.Response:
    return await running.client.post("/v1/complexity/batch", content=data, headers={"Content-Type": media_type})


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, slug(response.json())


def ends(response: httpx.Response) -> dict[str, object]:
    """By name: the score or the problem."""
    assert response.status_code == 200, response.text
    items = response.json()["items"]
    assert [item["index"] for item in items] == list(range(len(items)))
    return {item["name"]: item["result"]["score"] if "result" in item else slug(item["problem"]) for item in items}


EXPECTED = {name: pytest.approx(int(name.split(".")[0]) / 250, abs=1e-6) for name in PICTURES}


async def test_a_form(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        answer = await send(running, PICTURES)
        assert ends(answer) == EXPECTED
        assert answer.json()["counts"] == {"items": 5, "scored": 5, "failed": 0}
        assert running.service.door.in_flight == 0


@pytest.mark.parametrize(
    ("media_type", "data"),
    [(ZIP, zipped(PICTURES)), (TAR, tarred(PICTURES)), (GZIP, gzip.compress(tarred(PICTURES)))],
    ids=["zip", "tar", "tar.gz"],
)
async def test_an_archive(catalog: Catalog, scripted: ScriptedBackend, media_type: str, data: bytes) -> None:
    async with api(catalog, scripted) as running:
        assert ends(await send_archive(running, media_type, data)) == EXPECTED


async def test_an_items_error_is_its_own(catalog: Catalog, scripted: ScriptedBackend) -> None:
    files = {
        "good.png": flat(100),
        "empty.png": b"",
        "text.txt": b"Dear sir or madam, this is no picture.",
        "half.png": flat(1)[:-40],
        "bomb.png": flat(1),
        "nan.png": flat(scripted.NAN),
        "inner.zip": zipped(PICTURES),
        "large.png": bytes(20_001),
        "last.png": flat(200),
    }
    expected = {
        "good.png": pytest.approx(0.4),
        "empty.png": "empty-image",
        "text.txt": "unsupported-image",
        "half.png": "corrupt-image",
        "bomb.png": pytest.approx(0.004),
        "nan.png": "inference-failed",
        "inner.zip": "bad-entry",
        "large.png": "image-too-large",
        "last.png": pytest.approx(0.8),
    }
    async with api(catalog, scripted, max_upload_bytes=20_000) as running:
        answer = await send(running, files)
        assert ends(answer) == expected
        assert answer.json()["counts"] == {"items": 9, "scored": 3, "failed": 6}
        broken = answer.json()["items"][1]["problem"]
        assert (broken["status"], broken["instance"]) == (400, f"urn:clicv2:request:{answer.headers['x-request-id']}")
        assert running.count("clicv2_decode_failures_total", kind="Empty") == 1
        for media_type, data in ((ZIP, zipped(files)), (TAR, tarred(files))):
            assert ends(await send_archive(running, media_type, data)) == expected


async def test_options_are_for_each(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        items = (await send(running, PICTURES, heatmap="png", heatmap_size="32", embedding="true")).json()["items"]
        for item in items:
            assert item["result"]["heatmap"]["width"] == 32
            assert item["result"]["embedding"]
        assert problem(await send(running, PICTURES, heatmap_size="512")) == (422, "invalid-parameter")
        assert problem(await send(running, PICTURES, model="other")) == (404, "unknown-model")
        assert set(ends(await send(running, PICTURES, model="clicv2:7")).values()) == {"unknown-model"}


async def test_lines(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        answer = await send(running, PICTURES | {"no.png": b"no"}, headers={"Accept": "application/x-ndjson"})
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert sorted(line["index"] for line in lines) == list(range(6))
        found = {line["name"]: line["result"]["score"] for line in lines if "result" in line}
        assert found == EXPECTED
        assert [slug(line["problem"]) for line in lines if "problem" in line] == ["unsupported-image"]
        assert running.service.door.in_flight == 0


async def test_lines_come_as_they_are_done(catalog: Catalog, scripted: ScriptedBackend) -> None:
    """The backend holds the later pictures back until the first line has been read."""
    intact, go = scripted.infer, asyncio.Event()

    async def infer(images: np.ndarray) -> object:
        if len(scripted.calls) >= 1:
            await go.wait()
        return await intact(images)

    scripted.infer = infer  # type: ignore[assignment,method-assign]
    async with api(catalog, scripted, bulk_lanes=1, over_http=True) as running:
        request = running.client.build_request(
            "POST",
            "/v1/complexity/batch",
            content=zipped(PICTURES),
            headers={"Accept": "application/x-ndjson", "Content-Type": ZIP},
        )
        answer = await running.client.send(request, stream=True)
        lines = answer.aiter_lines()
        assert json.loads(await anext(lines))["index"] == 0
        assert len(scripted.calls) == 1
        go.set()
        assert [json.loads(line)["index"] async for line in lines] == [1, 2, 3, 4]
        await answer.aclose()


@pytest.mark.parametrize("accept", ["application/x-ndjson", "application/json"])
async def test_who_is_gone_costs_nothing(catalog: Catalog, scripted: ScriptedBackend, accept: str) -> None:
    go = asyncio.Event()

    async def infer(images: np.ndarray) -> object:
        scripted.calls.append([0])
        await go.wait()
        raise AssertionError

    scripted.infer = infer  # type: ignore[assignment,method-assign]
    async with api(catalog, scripted, over_http=True) as running:
        asking = asyncio.create_task(send(running, PICTURES, headers={"Accept": accept}))
        await eventually(lambda: scripted.calls)
        asking.cancel()
        await eventually(lambda: running.service.door.in_flight == 0)
        await eventually(lambda: not running.service.queue._entries)
        assert len(scripted.calls) == 1
        ended = sum(
            running.count("clicv2_jobs_finished_total", outcome=outcome)
            for outcome in ("answered", "failed", "expired", "cancelled", "dead")
        )
        assert ended == running.count("clicv2_jobs_admitted_total")
        go.set()


async def test_pictures_are_scored_while_the_rest_is_on_its_way(catalog: Catalog, scripted: ScriptedBackend) -> None:
    body = httpx.Request("POST", "http://test", files=form(PICTURES))
    content = body.read()
    half = content.index(b"150.png")

    async def slowly() -> AsyncIterator[bytes]:
        yield content[:half]
        await eventually(lambda: len(scripted.calls) == 3)
        yield content[half:]

    async with api(catalog, scripted, over_http=True) as running:
        answer = await running.client.post(
            "/v1/complexity/batch", content=slowly(), headers={"Content-Type": body.headers["content-type"]}
        )
        assert ends(answer) == EXPECTED


async def test_no_more_at_once_than_lanes(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.02
    most = 0
    async with api(catalog, scripted, bulk_lanes=2) as running:
        asking = asyncio.create_task(send(running, PICTURES))
        while not asking.done():
            most = max(most, len(running.service.queue._entries))
            await asyncio.sleep(0.001)
        assert ends(await asking) == EXPECTED
    assert most == 2


async def test_a_full_door_and_a_full_queue_are_waited_for(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.03
    async with api(catalog, scripted, max_in_flight=2) as running:
        assert ends(await send(running, PICTURES)) == EXPECTED
    async with api(catalog, scripted, max_in_flight=1) as running:
        assert ends(await send(running, PICTURES)) == EXPECTED
    async with api(catalog, scripted, capacity=1) as running:
        assert ends(await send(running, PICTURES)) == EXPECTED
        assert running.count("clicv2_requests_shed_total", reason="queue") == 0


async def test_a_full_door_lets_no_batch_begin(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted, max_in_flight=1) as running:
        with running.service.door.entered():
            assert problem(await send(running, PICTURES)) == (429, "overloaded")


async def test_too_many_batches(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.5
    async with api(catalog, scripted, bulk_at_once=1) as running:
        first = asyncio.create_task(send(running, PICTURES))
        await eventually(lambda: scripted.calls)
        refused = await send(running, PICTURES)
        assert problem(refused) == (429, "overloaded")
        assert refused.json()["limit"] == "batches"
        assert refused.headers["retry-after"]
        assert ends(await first) == EXPECTED
        scripted.call_s = 0
        assert ends(await send(running, PICTURES)) == EXPECTED


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_too_many_pictures(catalog: Catalog, scripted: ScriptedBackend, accept: str) -> None:
    async with api(catalog, scripted, bulk_max_items=4) as running:
        answers = [await send(running, PICTURES, headers={"Accept": accept})]
        answers += [
            await send_archive(running, ZIP, zipped(PICTURES)),
            await send_archive(running, TAR, tarred(PICTURES)),
        ]
        for answer in answers:
            assert problem(answer) == (413, "too-many-files")
            assert answer.json()["maximum"] == 4
        assert running.service.door.in_flight == 0


async def test_too_many_bytes(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted, bulk_max_bytes=100_000, max_upload_bytes=60_000) as running:
        assert problem(await send(running, {"a": bytes(60_000), "b": bytes(60_000), "c": bytes(60_000)})) == (
            413,
            "image-too-large",
        )
        for media_type, data in (
            (GZIP, gzip.compress(tarred({"a": bytes(60_000), "b": bytes(60_000)}))),
            (ZIP, zipped({"a": bytes(60_000), "b": bytes(60_000)})),
        ):
            assert problem(await send_archive(running, media_type, data)) == (413, "image-too-large")


async def test_a_deadline_for_all(catalog: Catalog, scripted: ScriptedBackend) -> None:
    """What was done in time is there; the rest says what it is."""
    scripted.call_s = 0.4
    async with api(catalog, scripted, bulk_lanes=1) as running:
        answer = await send(running, PICTURES, headers={"X-Request-Timeout": "1"})
        found = ends(answer)
        assert found["200.png"] == "deadline-exceeded"
        assert list(found) == list(PICTURES)
        assert problem(await send(running, PICTURES, headers={"X-Request-Timeout": "61"})) == (422, "invalid-parameter")


async def test_an_upload_that_does_not_come(catalog: Catalog, scripted: ScriptedBackend) -> None:
    whole = httpx.Request("POST", "http://test", files=form(PICTURES))
    head = (
        "POST /v1/complexity/batch HTTP/1.1\r\nHost: test\r\nContent-Length: 99999\r\nX-Request-Timeout: 0.3\r\n"
        f"Content-Type: {whole.headers['content-type']}\r\n\r\n"
    )
    async with api(catalog, scripted, over_http=True) as running:
        reader, writer = await asyncio.open_connection(running.client.base_url.host, running.client.base_url.port)
        writer.write(head.encode() + whole.read()[:-100])
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        await eventually(lambda: running.service.door.in_flight == 0)
        assert not running.service.queue._entries  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("media_type", "data", "expected"),
    [
        ("image/png", flat(1), (415, "unsupported-content")),
        ("application/json", b"{}", (415, "unsupported-content")),
        ("", b"", (415, "unsupported-content")),
        (ZIP, b"", (400, "malformed-upload")),
        (ZIP, tarred(PICTURES), (400, "malformed-upload")),
        (TAR, b"", (400, "malformed-upload")),
        (TAR, zipped(PICTURES), (400, "malformed-upload")),
        (GZIP, tarred(PICTURES), (400, "malformed-upload")),
        (GZIP, gzip.compress(tarred(PICTURES))[:-9], (400, "malformed-upload")),
        (ZIP, zipped({}), (400, "missing-file")),
        (TAR, tarred({}), (400, "missing-file")),
        ("multipart/form-data; boundary=x", b"--x\r\n", (400, "malformed-upload")),
        ("multipart/form-data", b"", (400, "malformed-upload")),
    ],
)
async def test_a_body_that_is_no_batch(
    catalog: Catalog, scripted: ScriptedBackend, media_type: str, data: bytes, expected: tuple[int, str]
) -> None:
    async with api(catalog, scripted) as running:
        assert problem(await send_archive(running, media_type, data)) == expected
        assert running.service.door.in_flight == 0


async def test_a_form_without_a_picture(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        answer = await running.client.post("/v1/complexity/batch", files={"image": flat(1)})
        assert problem(answer) == (400, "missing-file")
        assert "'image'" in answer.json()["detail"]


async def test_a_retry_of_a_batch(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        key = {"Idempotency-Key": "abc"}
        first, again = [(await send(running, PICTURES, headers=key)).json()["items"] for _ in range(2)]
        assert [item["result"]["id"] for item in first] == [item["result"]["id"] for item in again]
        changed = PICTURES | {"50.png": flat(51)}
        assert ends(await send(running, changed, headers=key)) == EXPECTED | {"50.png": "idempotency-key-reused"}


async def test_nobody_else_is_locked_out(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.05
    async with api(catalog, scripted, max_in_flight=10) as running:
        asking = asyncio.create_task(send(running, {f"{n}.png": flat(n) for n in range(60)}))
        await eventually(lambda: scripted.calls)
        single = await running.client.post("/v1/complexity", content=flat(9), headers={"Content-Type": "image/png"})
        assert single.status_code == 200
        assert not asking.done()
        asking.cancel()
        await asyncio.wait({asking})


async def test_a_drain_sees_a_batch_to_its_end(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.05
    async with api(catalog, scripted) as running:
        asking = asyncio.create_task(send(running, PICTURES))
        await eventually(lambda: scripted.calls)
        running.service.door.drain()
        while not asking.done():
            assert running.service.door.in_flight
            await asyncio.sleep(0.001)
        assert ends(await asking) == EXPECTED
        assert problem(await send(running, PICTURES)) == (503, "draining")
