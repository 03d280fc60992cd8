"""What a picture's sender gets, over HTTP from a real process."""

import base64
import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from openapi_spec_validator import validate
from pictures import encode, noise, scene
from PIL import Image
from serving import Server
from tiny_model import GRID

DATA = Path(__file__).parent.parent / "data"
FLAT = encode(np.full((48, 64, 3), 128, np.uint8), "PNG")
BUSY = encode(noise(64, 48), "PNG")


def busy_left() -> bytes:
    picture = np.full((96, 128, 3), 128, np.uint8)
    picture[:, :64] = noise(64, 96)
    return encode(picture, "PNG")


def test_an_answer_is_complete(server: Server) -> None:
    body = server.score(BUSY).raise_for_status().json()
    assert len(body["id"]) == 32
    assert 0 <= body["score"] <= 1
    assert body["percentile"] == pytest.approx(100 * body["score"], abs=0.01)  # the tiny model's reference is uniform
    assert 0 <= body["entropy"] <= 1
    assert body["model"] == {"name": "clicv2", "version": 1}
    digest = hashlib.sha256(BUSY).hexdigest()
    assert body["image"] == {"width": 64, "height": 48, "format": "PNG", "sha256": digest, "frames": 1}
    assert "heatmap" not in body
    stages = ("upload_s", "decode_s", "queue_s", "inference_s", "render_s")
    assert sum(body["timings"][stage] for stage in stages) <= body["timings"]["total_s"] + 1e-4
    assert all(body["timings"][stage] >= 0 for stage in stages)


def test_flat_scores_below_busy(server: Server) -> None:
    assert server.score(FLAT).json()["score"] < server.score(BUSY).json()["score"]


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "application/octet-stream", "IMAGE/PNG; x=y"])
def test_the_bytes_decide_and_not_the_media_type(server: Server, media_type: str) -> None:
    assert server.score(BUSY, media_type).json()["image"]["format"] == "PNG"


def test_multipart_is_the_same_as_the_raw_body(server: Server) -> None:
    form = server.client.post("/v1/complexity", files={"note": b"ignored", "file": ("a.png", BUSY)})
    assert form.status_code == 200
    raw = server.score(BUSY).json()
    assert (form.json()["score"], form.json()["image"]) == (raw["score"], raw["image"])


def test_grid(server: Server) -> None:
    heatmap = server.score(busy_left(), heatmap="grid").json()["heatmap"]
    values = np.array(heatmap["values"])
    assert (heatmap["kind"], heatmap["rows"], heatmap["columns"]) == ("grid", GRID, GRID)
    assert values.shape == (GRID, GRID)
    assert values.min() >= 0
    assert values.max() <= 1
    assert values[:, : GRID // 2 - 1].min() > values[:, GRID // 2 + 1 :].max()


@pytest.mark.parametrize("kind", ["png", "overlay"])
def test_picture_in_json(server: Server, kind: str) -> None:
    heatmap = server.score(busy_left(), heatmap=kind, heatmap_size=100).json()["heatmap"]
    image = Image.open(BytesIO(base64.b64decode(heatmap.pop("data"))))
    assert heatmap == {"kind": kind, "media_type": "image/png", "width": 100, "height": 75}
    assert (image.format, image.size) == ("PNG", (100, 75))


def test_picture_as_the_answer(server: Server) -> None:
    def ask(**parameters: object) -> bytes:
        response = server.client.post(
            "/v1/complexity",
            content=busy_left(),
            headers={"Content-Type": "image/png", "Accept": "image/png"},
            params=parameters,
        )
        assert response.headers["content-type"] == "image/png"
        assert float(response.headers["x-complexity-score"]) == server.score(busy_left()).json()["score"]
        return response.content

    plain, overlay, magma = ask(), ask(heatmap="overlay"), ask(colormap="magma")
    assert Image.open(BytesIO(plain)).size == (512, 384)
    assert len({plain, overlay, magma}) == 3
    assert ask(heatmap="overlay", opacity=1) == plain


def test_request_id_goes_in_and_out(server: Server) -> None:
    given = server.client.get("/livez", headers={"X-Request-ID": "abc-123"})
    assert given.headers["x-request-id"] == "abc-123"
    forged = server.client.get("/livez", headers={"X-Request-ID": "a b\t<script>"})
    assert forged.headers["x-request-id"] not in ("", "a b\t<script>")


def test_pictures_of_every_sort(server: Server) -> None:
    """The decoder has tests of its own; here, that its facts arrive."""
    rotated = Image.fromarray(scene(48, 32))
    exif = rotated.getexif()
    exif[0x0112] = 6
    phone = server.score(encode(rotated, "JPEG", exif=exif)).json()["image"]
    assert (phone["width"], phone["height"], phone["format"]) == (32, 48, "JPEG")

    transparent = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    white = Image.new("RGB", (40, 30), "white")
    assert (
        server.score(encode(transparent, "PNG")).json()["score"] == server.score(encode(white, "PNG")).json()["score"]
    )

    deep = np.tile(np.linspace(0, 65_535, 64, dtype=np.uint16), (64, 1))
    shallow = np.tile(np.rint(np.linspace(0, 65_535, 64) / 257).astype(np.uint8), (64, 1))
    scores = [server.score(encode(samples, "PNG")).json()["score"] for samples in (deep, shallow)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)

    frames = [Image.fromarray(noise(40, 30, seed)) for seed in range(3)]
    animation = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    answer = server.score(animation).json()
    assert (answer["image"]["format"], answer["image"]["frames"]) == ("WEBP", 3)
    assert answer["score"] == server.score(encode(frames[0], "PNG")).json()["score"]


def test_a_large_jpeg(server: Server) -> None:
    picture = Image.fromarray(scene(400, 300)).resize((4000, 3000))
    image = server.score(encode(picture, "JPEG"), "image/jpeg").json()["image"]
    assert (image["width"], image["height"]) == (4000, 3000)


def test_models(server: Server) -> None:
    listed = server.client.get("/v1/models").json()["models"]
    assert [model["name"] for model in listed] == ["clicv2"]
    assert server.client.get("/v1/models/clicv2").json() == listed[0]
    assert listed[0]["grid"] == [GRID, GRID]


def test_openapi_is_valid_and_tells_all(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    validate(document)
    assert "HTTPValidationError" not in str(document), "FastAPI's own, which nobody is ever sent"
    operation = document["paths"]["/v1/complexity"]["post"]
    named = {parameter["name"] for parameter in operation["parameters"]}
    assert named >= {"heatmap", "colormap", "opacity", "heatmap_size", "embedding", "model", "X-Request-Timeout"}
    assert "multipart/form-data" in operation["requestBody"]["content"]
    assert "image/png" in operation["responses"]["200"]["content"]
    for status in ("400", "406", "413", "415", "422", "429", "503", "504"):
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


def test_docs_need_no_internet(server: Server) -> None:
    page = server.client.get("/docs").raise_for_status().text
    assert "http" not in page.replace("http://www.w3.org", "")
    assert server.client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_ready_and_alive(server: Server) -> None:
    assert server.client.get("/livez").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ok"}
