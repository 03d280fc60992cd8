import base64
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from api import Api, api
from pictures import encode, noise
from PIL import Image
from scripted import ScriptedBackend

from clicv2 import contract
from service.backend.onnx import OnnxBackend
from service.catalog import Catalog

pytestmark = pytest.mark.anyio

FLAT = np.full((48, 96, 3), 128, np.uint8)


def busy(left: bool) -> bytes:
    picture = FLAT.copy()
    half = slice(0, 48) if left else slice(48, 96)
    picture[:, half] = noise(48, 48)
    return encode(picture, "PNG")


PICTURES = [encode(FLAT, "PNG"), busy(left=True), busy(left=False), encode(noise(96, 48), "PNG")]


@pytest.fixture
def onnx(repository: Path) -> OnnxBackend:
    return OnnxBackend(contract.open_version(repository / "clicv2"), 1)


async def compare(running: Api, pictures: list[bytes], accept: str = "*/*", **query: str) -> httpx.Response:
    files = [("file", (f"{number}.png", data)) for number, data in enumerate(pictures)]
    return await running.client.post("/v1/compare", files=files, params=query, headers={"Accept": accept})


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["type"].removeprefix("urn:clicv2:problem:")


async def test_ranks_and_differences(catalog: Catalog, onnx: OnnxBackend) -> None:
    async with api(catalog, onnx) as running:
        body = (await compare(running, PICTURES)).raise_for_status().json()
        alone = [
            (await running.client.post("/v1/complexity", content=data, headers={"Content-Type": "image/png"})).json()
            for data in PICTURES
        ]
    pictures = body["pictures"]
    assert [picture["name"] for picture in pictures] == ["0.png", "1.png", "2.png", "3.png"]
    for picture, single in zip(pictures, alone, strict=True):
        assert picture["score"] == pytest.approx(single["score"], abs=1e-6)
        assert (picture["percentile"], picture["image"]) == (single["percentile"], single["image"])
    assert next(picture["rank"] for picture in pictures) == 4
    assert [picture["rank"] for picture in pictures][3] == 1
    pairs = [(each["first"], each["second"]) for each in body["differences"]]
    assert pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for each in body["differences"]:
        expected = pictures[each["second"]]["score"] - pictures[each["first"]]["score"]
        assert each["score"] == pytest.approx(expected, abs=1e-6)
        assert "heatmap" not in each


async def test_equals_share_a_rank(catalog: Catalog, onnx: OnnxBackend) -> None:
    async with api(catalog, onnx) as running:
        pictures = (await compare(running, [PICTURES[3], PICTURES[0], PICTURES[3], PICTURES[1]])).json()["pictures"]
    assert [picture["rank"] for picture in pictures] == [1, 4, 1, 3]


async def test_where_they_differ(catalog: Catalog, onnx: OnnxBackend) -> None:
    async with api(catalog, onnx) as running:
        heatmap = (await compare(running, PICTURES[1:3], difference="grid")).json()["differences"][0]["heatmap"]
        cells = np.array(heatmap["values"])
        assert cells.shape == (heatmap["rows"], heatmap["columns"])
        assert cells[:, :3].max() < -0.1, "the first was busy on the left"
        assert cells[:, -3:].min() > 0.1
        body = (await compare(running, PICTURES[1:3], difference="png", scale="0.3")).json()
        drawn = body["differences"][0]["heatmap"]
        assert (drawn["width"], drawn["height"], drawn["scale"]) == (256, 128, 0.3)
        embedded = np.asarray(Image.open(BytesIO(base64.b64decode(drawn["data"])))).astype(int)
        for accept in ("image/png", "image/webp"):
            answer = await compare(running, PICTURES[1:3], accept, scale="0.3")
            assert answer.headers["content-type"] == accept
            image = np.asarray(Image.open(BytesIO(answer.content)).convert("RGB")).astype(int)
            assert np.abs(image - embedded).mean() < 5
    assert (embedded[:, :60, 2] > embedded[:, :60, 0]).all(), "blue where the second is simpler"
    assert (embedded[:, -60:, 0] > embedded[:, -60:, 2]).all()


async def test_nothing_between_equals(catalog: Catalog, onnx: OnnxBackend) -> None:
    async with api(catalog, onnx) as running:
        (each,) = (await compare(running, [PICTURES[1]] * 2, difference="grid")).json()["differences"]
        assert (each["score"], each["percentile"], each["entropy"]) == (0, 0, 0)
        assert not np.any(each["heatmap"]["values"])


async def test_refusals(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted, bulk_max_compared=3) as running:
        assert problem(await compare(running, PICTURES[:1])) == (400, "missing-file")
        assert problem(await compare(running, PICTURES)) == (413, "too-many-files")
        assert problem(await compare(running, PICTURES[:3], "image/png")) == (406, "not-acceptable")
        assert problem(await compare(running, PICTURES[:2], "text/html")) == (406, "not-acceptable")
        assert problem(await compare(running, PICTURES[:2], model="clicv2:9")) == (404, "unknown-model")
        assert problem(await compare(running, PICTURES[:2], scale="0")) == (422, "invalid-parameter")
        raw = await running.client.post("/v1/compare", content=b"x", headers={"Content-Type": "application/zip"})
        assert problem(raw) == (415, "unsupported-content")
        assert running.service.door.in_flight == 0


async def test_a_picture_that_fails_is_named(catalog: Catalog, scripted: ScriptedBackend) -> None:
    async with api(catalog, scripted) as running:
        answer = await compare(running, [PICTURES[0], PICTURES[1], PICTURES[2][:-40]])
        assert problem(answer) == (422, "corrupt-image")
        assert (answer.json()["index"], answer.json()["name"]) == (2, "2.png")
        assert running.count("clicv2_decode_failures_total", kind="Corrupt") == 1
        assert running.service.door.in_flight == 0
