"""The SDK against a real server: every kind of picture, every method, and its own examples."""

import asyncio
import contextlib
import doctest
import importlib
import os
import pkgutil
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import clicv2_client
import httpx
import numpy as np
import pytest
from clicv2_client import AsyncClient, Client, Grid, Rendering, calls, errors
from clicv2_client.calls import Terms
from pictures import encode, noise, scene
from PIL import Image
from serving import COMMAND, Server, serving

ARRAY = noise(80, 60)
PNG = encode(ARRAY, "PNG")
ROOT = Path(__file__).parents[2]


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(url(server)) as running:
        yield running


def test_every_kind_of_picture_has_one_score(client: Client, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "bild ü.png"
    path.write_bytes(PNG)
    expected = server.score(PNG).json()["score"]
    with path.open("rb") as file, Image.open(path) as image:
        pictures = [path, str(path), PNG, bytearray(PNG), BytesIO(PNG), file, image, Image.fromarray(ARRAY), ARRAY]
        assert [client.score(picture).score for picture in pictures] == [expected] * len(pictures)

        again = [path, PNG, BytesIO(PNG), image, ARRAY]  # a file object is sent from where it is

        async def ask() -> list[float]:
            async with AsyncClient(url(server)) as other:
                return [(await other.score(picture)).score for picture in again]

        assert asyncio.run(ask()) == [expected] * len(again)


def _write(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(data)


def test_a_pipe_is_scored(client: Client) -> None:
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as pool, os.fdopen(reading, "rb") as source:
        pool.submit(_write, writing, PNG)
        assert client.score(source).score == client.score(PNG).score


def test_grey_and_transparent_arrays(client: Client) -> None:
    grey = client.score(ARRAY[:, :, 0])
    assert grey.score == client.score(encode(ARRAY[:, :, 0], "PNG")).score
    assert (grey.image.width, grey.image.height) == (80, 60)
    rgba = np.dstack([ARRAY, ARRAY[:, :, :1]])
    assert client.score(rgba).score == client.score(encode(rgba, "PNG")).score


def test_the_answer_is_the_servers(client: Client, server: Server) -> None:
    found = client.score(PNG, heatmap="grid", embedding=True)
    expected = server.score(PNG, heatmap="grid", embedding="true").json()
    said = found.model_dump(mode="json", exclude_none=True)
    assert {**said, "id": 0, "timings": 0} == {**expected, "id": 0, "timings": 0}
    assert isinstance(found.heatmap, Grid)
    assert len(found.heatmap.values) == found.heatmap.rows


def test_heatmaps(client: Client, server: Server, tmp_path: Path) -> None:
    overlay = client.heatmap(PNG, size=64)
    with Image.open(BytesIO(overlay.data)) as image:
        assert (image.format, max(image.size)) == ("PNG", 64)
    assert overlay.score == client.score(PNG).score
    headers = {"Accept": "image/png", "Content-Type": "image/png"}
    path = "/v1/complexity?heatmap=overlay&heatmap_size=64"
    assert overlay.data == server.client.post(path, content=PNG, headers=headers).content
    webp = client.heatmap(PNG, kind="png", colormap="magma", file="webp")
    webp.save(tmp_path / "where.webp")
    with Image.open(tmp_path / "where.webp") as image:
        assert image.format == "WEBP"
    rendered = client.score(PNG, heatmap="png").heatmap
    assert isinstance(rendered, Rendering)
    with Image.open(BytesIO(rendered.data)) as image:
        assert image.size == (rendered.width, rendered.height)


def test_comparisons(client: Client, tmp_path: Path) -> None:
    path = tmp_path / 'a "quoted" näme.png'
    path.write_bytes(PNG)
    compared = client.compare([path, scene(), Image.fromarray(ARRAY)], difference="grid")
    assert [each.rank for each in compared.pictures] == [1, 3, 1]
    assert compared.pictures[0].name == "a %22quoted%22 näme.png"
    assert [(each.first, each.second) for each in compared.differences] == [(0, 1), (0, 2), (1, 2)]
    assert isinstance(compared.differences[0].heatmap, Grid)
    with pytest.raises(errors.MissingFile):
        client.compare([PNG])
    with pytest.raises(errors.UnsupportedImage) as caught:
        client.compare([PNG, b"text"])
    assert caught.value.facts["index"] == 1


def test_a_batch_is_as_single_calls(client: Client, tmp_path: Path) -> None:
    pictures = {
        "noise.png": encode(noise(80, 60), "PNG"),
        "notes.txt": b"no picture",
        "scene.jpg": encode(scene(90, 70), "JPEG"),
    }
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as tar:
        for name, data in pictures.items():
            (tmp_path / name).write_bytes(data)
            tar.add(tmp_path / name, name)
    sent = client.score_batch([tmp_path / name for name in pictures], heatmap="grid")
    packed = client.score_archive(tmp_path / "all.tar.gz", heatmap="grid")
    for batch in (sent, packed):
        assert [(item.index, item.name) for item in batch.items] == list(enumerate(pictures))
        assert (batch.counts.items, batch.counts.scored, batch.counts.failed) == (3, 2, 1)
        assert isinstance(batch.items[1].error, errors.UnsupportedImage)
        for item in (batch.items[0], batch.items[2]):
            assert item.unwrap().score == client.score(pictures[item.name]).score
            assert item.unwrap().heatmap is not None


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (b"", errors.EmptyImage),
        (b"text", errors.UnsupportedImage),
        (PNG[:500], errors.CorruptImage),
        (bytes(33 << 20), errors.ImageTooLarge),
        ("https://example.com/a.png", errors.UrlInputDisabled),
    ],
)
def test_what_is_wrong_with_a_picture(client: Client, picture: bytes | str, kind: type[errors.Problem]) -> None:
    with pytest.raises(kind) as caught:
        client.score(picture)
    assert caught.value.request_id


def test_what_is_wrong_with_a_request(client: Client) -> None:
    with pytest.raises(errors.InvalidParameter) as caught:
        client.score(PNG, heatmap_size=3)
    assert caught.value.parameters == ("heatmap_size",)
    with pytest.raises(errors.UnknownModel):
        client.score(PNG, model="clicv2:9")
    with pytest.raises(errors.UnknownModel):
        client.model("other")
    client.score(PNG, idempotency_key="test-client")
    with pytest.raises(errors.IdempotencyKeyReused):
        client.score(ARRAY, idempotency_key="test-client")
    with pytest.raises(errors.NotFound):
        client._asking.ask(replace(calls.models(Terms(5)), path="/v1/elsewhere"))


def test_the_model(client: Client) -> None:
    (model,) = client.models()
    assert model == client.model() == client.model("clicv2:1")
    assert model.grid == (8, 8)


def test_more_time_than_the_server_gives_is_no_error(server: Server) -> None:
    """It allows 10 s and refuses to be told more."""
    before = server.metric("clicv2_requests_total", status="422")
    with Client(url(server), timeout_s=3600) as patient:
        assert [patient.score(PNG).score > 0 for _ in range(3)] == [True] * 3
    assert server.metric("clicv2_requests_total", status="422") == before + 1


def test_keys(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*COMMAND, "keys", "create", "--name", "test", "--file", str(tmp_path / "keys.json")]
    limited = [*command, "--rate", "1/minute"]
    key, slow_key = (
        subprocess.run(each, capture_output=True, text=True, check=True).stdout.strip() for each in (command, limited)
    )
    with serving(repository, auth="on", keys_file=tmp_path / "keys.json") as guarded:
        monkeypatch.setenv("CLICV2_URL", url(guarded))
        with Client() as stranger, pytest.raises(errors.Unauthorized):
            stranger.score(PNG)
        with Client(api_key="clicv2_wrong") as stranger, pytest.raises(errors.AccessDenied):
            stranger.models()
        with Client(api_key=slow_key) as limited_client:
            limited_client.models()
            with pytest.raises(errors.RateLimited) as caught:
                limited_client.models()  # a minute is more than it would wait
            assert (caught.value.retry_after_s or 0) > 10
        monkeypatch.setenv("CLICV2_API_KEY", key)
        with Client() as known:
            assert known.score(PNG).score > 0


def documented() -> list[str]:
    return [f"clicv2_client.{module.name}" for module in pkgutil.iter_modules(clicv2_client.__path__)]


@pytest.fixture
def a_users_place(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pictures that the examples speak of, and an environment that says where the server is."""
    Image.fromarray(noise(64, 48)).save(tmp_path / "photo.png")
    Image.fromarray(scene(64, 48)).save(tmp_path / "sky.png")
    (tmp_path / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLICV2_URL", url(server))
    monkeypatch.delenv("CLICV2_API_KEY", raising=False)
    return tmp_path


def with_client(client: Client, server: Server) -> dict[str, object]:
    """What the examples take for granted: `client`, and for those of `AsyncClient` `run`."""

    def run(use: object) -> object:
        async def inside() -> object:
            async with AsyncClient(url(server)) as client:
                return await use(client)  # type: ignore[operator]

        return asyncio.run(inside())

    return {"client": client, "run": run}


FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
# Examples of jobs run in test_client_jobs.py.
ELSEWHERE = {"clicv2_client.jobs"}


@pytest.mark.parametrize("module", sorted(set(documented()) - ELSEWHERE))
def test_examples_of_the_docstrings(module: str, client: Client, server: Server, a_users_place: Path) -> None:
    globs = with_client(client, server)
    result = doctest.testmod(importlib.import_module(module), extraglobs=globs, optionflags=FLAGS)
    assert result.failed == 0
    if module in ("clicv2_client.client", "clicv2_client.async_client", "clicv2_client.testing"):
        assert result.attempted > 0


def test_examples_of_the_readme(client: Client, server: Server, a_users_place: Path) -> None:
    globs = with_client(client, server)
    result = doctest.testfile(str(ROOT / "client" / "README.md"), module_relative=False, globs=globs, optionflags=FLAGS)
    assert (result.failed, result.attempted > 5) == (0, True)


def test_the_wheel_alone(server: Server, tmp_path: Path) -> None:
    """In an environment that has nothing else: what it pulls, and that it works."""
    shutil.copytree(ROOT / "client", tmp_path / "client")
    pip = [shutil.which("python3.11") or "python3", "-m", "pip", "--disable-pip-version-check"]
    venv = tmp_path / "venv"
    subprocess.run([pip[0], "-m", "venv", str(venv)], check=True)
    pip[0] = str(venv / "bin" / "python")
    built = tmp_path / "dist"
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(built), str(tmp_path / "client")], check=True)
    (wheel,) = built.glob("*.whl")
    subprocess.run([*pip, "install", "-q", str(wheel)], check=True)
    listed = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True, check=True).stdout
    assert {line.partition("==")[0].replace("_", "-") for line in listed.splitlines()} - {"pip", "setuptools"} == {
        "annotated-types", "anyio", "certifi", "clicv2-client", "h11", "httpcore", "httpx", "idna", "pydantic",
        "pydantic-core", "typing-extensions", "typing-inspection",
    }  # fmt: skip
    assert list(venv.glob("lib/python*/site-packages/clicv2_client/py.typed"))
    (tmp_path / "picture.png").write_bytes(PNG)
    script = (
        "import sys; from clicv2_client import Client\nwith Client(sys.argv[1]) as c: print(c.score(sys.argv[2]).score)"
    )
    command = [str(venv / "bin" / "python"), "-W", "error", "-c", script, url(server), str(tmp_path / "picture.png")]
    printed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (printed.stderr, printed.returncode) == ("", 0)
    assert float(printed.stdout) == server.score(PNG).json()["score"]


def test_a_client_with_a_proxy_of_its_own(server: Server) -> None:
    with contextlib.closing(Client(url(server), transport=httpx.HTTPTransport(retries=0))) as client:
        assert client.score(PNG).score > 0
