"""One picture, in every way that it can be sent and answered."""

import asyncio
import base64
import json
import time
from io import BytesIO

import httpx
import numpy as np
import pytest
from api import Api, api
from pictures import encode, noise
from PIL import Image
from queues import eventually
from scripted import ScriptedBackend

from clicv2.contract import Manifest
from service.catalog import Catalog
from service.errors import FetchFailed

pytestmark = pytest.mark.anyio

PNG = encode(noise(64, 64) // 2, "PNG")
OTHER = encode(noise(64, 64, 1) // 3, "PNG")
HEADERS = {"Content-Type": "image/png"}


async def ask(
    running: Api, data: bytes = PNG, headers: dict[str, str] | None = None, **query: object
) -> httpx.Response:
    return await running.client.post(
        "/v1/complexity", content=data, headers=HEADERS | (headers or {}), params={k: str(v) for k, v in query.items()}
    )


async def ask_json(running: Api, document: object) -> httpx.Response:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await running.client.post("/v1/complexity", content=body, headers={"Content-Type": "application/json"})


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["type"].removeprefix("urn:clicv2:problem:")


async def test_the_picture_within_json(catalog: Catalog, scripted: ScriptedBackend) -> None:
    text = base64.b64encode(PNG).decode()
    async with api(catalog, scripted) as running:
        plain = (await ask(running)).json()
        for image in (text, f"data:image/png;base64,{text}"):
            answer = await ask_json(running, {"image": image})
            assert answer.status_code == 200, answer.text
            assert (answer.json()["score"], answer.json()["image"]) == (plain["score"], plain["image"])


async def test_a_large_picture_within_json(catalog: Catalog, scripted: ScriptedBackend) -> None:
    large = encode(noise(600, 600), "PNG")
    assert len(large) > 1_000_000
    async with api(catalog, scripted, max_upload_bytes=len(large)) as running:
        document = {"image": base64.b64encode(large).decode()}
        assert (await ask_json(running, document)).status_code == 200
        over = {"image": base64.b64encode(large + b"x").decode()}
        answer = await ask_json(running, over)
        assert problem(answer) == (413, "image-too-large")
        assert answer.json()["maximum"] == len(large)
        assert problem(await ask_json(running, {"image": "A" * (2 * len(large))})) == (413, "image-too-large")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"", (400, "malformed-upload")),
        (b"{", (400, "malformed-upload")),
        (b"\xff\xfe", (400, "malformed-upload")),
        ([], (422, "invalid-parameter")),
        ({}, (422, "invalid-parameter")),
        ({"image": "QQ==", "url": "https://example.com"}, (422, "invalid-parameter")),
        ({"image": 3}, (422, "invalid-parameter")),
        ({"image": "not base64!"}, (422, "invalid-parameter")),
        ({"image": "QUI"}, (422, "invalid-parameter")),
        ({"image": "ä"}, (422, "invalid-parameter")),
        ({"image": "data:image/png,abc"}, (422, "invalid-parameter")),
        ({"image": "QQ==", "more": 1}, (422, "invalid-parameter")),
        ({"image": ""}, (400, "empty-image")),
        ({"image": "QQ=="}, (415, "unsupported-image")),
        ({"url": "https://example.com/a.png"}, (403, "url-input-disabled")),
        ({"url": "x" * 3000}, (422, "invalid-parameter")),
    ],
)
async def test_json_that_holds_no_picture(
    catalog: Catalog, scripted: ScriptedBackend, document: object, expected: tuple[int, str]
) -> None:
    async with api(catalog, scripted) as running:
        assert problem(await ask_json(running, document)) == expected


async def test_a_picture_by_url(catalog: Catalog, scripted: ScriptedBackend) -> None:
    asked: list[tuple[str, float]] = []

    async def fetch(url: str, deadline: float) -> bytes:
        asked.append((url, deadline - time.monotonic()))
        if url.endswith("404"):
            raise FetchFailed("gone", 404)
        return PNG

    async with api(catalog, scripted, fetch=fetch) as running:
        answer = await ask_json(running, {"url": "https://example.com/a.png"})
        assert answer.json()["score"] == (await ask(running)).json()["score"]
        assert problem(await ask_json(running, {"url": "https://example.com/404"})) == (422, "fetch-failed")
    assert asked[0][0] == "https://example.com/a.png"
    assert 0 < asked[0][1] <= 10


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
async def test_the_map_as_the_answer(catalog: Catalog, scripted: ScriptedBackend, form: str) -> None:
    async with api(catalog, scripted) as running:
        for query in ({}, {"heatmap": "overlay"}):
            answer = await ask(running, headers={"Accept": f"image/{form.lower()}"}, **query)
            assert answer.headers["content-type"] == f"image/{form.lower()}"
            image = Image.open(BytesIO(answer.content))
            assert (image.format, image.size) == (form, (512, 512))
            assert "x-complexity-score" in answer.headers


async def test_webp_looks_like_png(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        images = [
            np.asarray(
                Image.open(BytesIO((await ask(running, headers={"Accept": accept})).content)).convert("RGB"), float
            )
            for accept in ("image/png", "image/webp")
        ]
    assert np.abs(images[0] - images[1]).mean() < 4


async def test_the_embedding(catalog: Catalog, scripted: ScriptedBackend, manifest: Manifest) -> None:
    async with api(catalog, scripted) as running:
        assert "embedding" not in (await ask(running)).json()
        assert len((await ask(running, embedding="true")).json()["embedding"]) == manifest.embedding_size


async def test_which_model(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        for model in ("clicv2", "clicv2:1"):
            assert (await ask(running, model=model)).status_code == 200
        for model in ("clicv2:2", "clic", "clic:1"):
            assert problem(await ask(running, model=model)) == (404, "unknown-model")
        for model in ("clicv2:0", "clicv2:x", "clicv2:", "", "a b"):
            assert problem(await ask(running, model=model)) == (422, "invalid-parameter")


async def test_a_timeout_is_a_deadline(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 1.0
    async with api(catalog, scripted) as running:
        assert problem(await ask(running, headers={"X-Request-Timeout": "0.2"})) == (504, "deadline-exceeded")
        for given in ("0.01", "11", "soon"):
            answer = await ask(running, headers={"X-Request-Timeout": given})
            assert problem(answer) == (422, "invalid-parameter")
            assert answer.json()["invalid"][0]["parameter"] == "X-Request-Timeout"


async def test_a_retry_joins_the_first(catalog: Catalog, scripted: ScriptedBackend) -> None:
    scripted.call_s = 0.3
    async with api(catalog, scripted) as running:
        first = asyncio.create_task(ask(running, headers={"Idempotency-Key": '"abc"'}))
        await eventually(lambda: scripted.calls)
        retry = await ask(running, headers={"Idempotency-Key": "abc"}, heatmap="grid")
        assert (await first).json()["id"] == retry.json()["id"]
        assert len(scripted.calls) == 1
        reused = await ask(running, OTHER, headers={"Idempotency-Key": "abc"})
        assert problem(reused) == (422, "idempotency-key-reused")
        assert problem(await ask(running, headers={"Idempotency-Key": "a b"})) == (422, "invalid-parameter")


async def test_the_models(catalog: Catalog, scripted: ScriptedBackend, manifest: Manifest) -> None:
    async with api(catalog, scripted) as running:
        (listed,) = (await running.client.get("/v1/models")).json()["models"]
        for name in ("clicv2", "clicv2:1"):
            assert (await running.client.get(f"/v1/models/{name}")).json() == listed
        for name in ("clicv2:2", "other"):
            assert problem(await running.client.get(f"/v1/models/{name}")) == (404, "unknown-model")
    assert listed["reference"] == list(manifest.reference)
    assert listed["preprocess"] == manifest.preprocess.to_dict()
