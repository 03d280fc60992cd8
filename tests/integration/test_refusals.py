"""What cannot be scored: refused quickly, for the right reason, always as a problem document."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from pictures import encode, flat_png, noise
from serving import HOST, Server, serving

PNG = encode(noise(64, 48), "PNG")
LIMIT = 100_000


@pytest.fixture(scope="module")
def strict(repository: Path) -> Iterator[Server]:
    """A server with a small cap and little patience."""
    with serving(repository, max_upload_bytes=LIMIT, deadline_s=1) as running:
        yield running


def assert_problem(response: httpx.Response, status: int, kind: str) -> dict[str, object]:
    document = response.json()
    assert (response.status_code, document["type"]) == (status, f"urn:clicv2:problem:{kind}"), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == f"urn:clicv2:request:{response.headers['x-request-id']}"
    return dict(document)


@pytest.mark.parametrize(
    ("data", "status", "kind"),
    [
        (b"", 400, "empty-image"),
        (b"Dear sir or madam, this is no picture.", 415, "unsupported-image"),
        (encode(noise(64, 48), "GIF"), 415, "unsupported-image"),
        (PNG[: len(PNG) // 2], 422, "corrupt-image"),
        (encode(noise(64, 48), "JPEG")[:-300], 422, "corrupt-image"),
        (PNG[:20], 422, "corrupt-image"),
    ],
    ids=["empty", "text", "gif", "half a png", "most of a jpeg", "a header's start"],
)
def test_files_that_are_no_picture(server: Server, data: bytes, status: int, kind: str) -> None:
    for response in (
        server.score(data, "image/jpeg"),
        server.client.post("/v1/complexity", files={"file": ("picture.jpg", data, "image/jpeg")}),
    ):
        assert_problem(response, status, kind)


def test_a_bomb_is_refused_before_it_is_decoded(server: Server) -> None:
    bomb = flat_png(13_000, 13_000)
    assert len(bomb) < 600_000
    started = time.monotonic()
    document = assert_problem(server.score(bomb), 413, "image-too-large")
    assert time.monotonic() - started < 1
    assert document["limit"] == "pixels"
    assert (document["actual"], document["maximum"]) == (169_000_000, 50_000_000)


def test_a_stated_length_over_the_cap(strict: Server) -> None:
    document = assert_problem(strict.score(bytes(LIMIT + 1)), 413, "image-too-large")
    assert (document["limit"], document["maximum"], document["actual"]) == ("bytes", LIMIT, LIMIT + 1)


def test_the_cap_holds_to_the_byte(strict: Server) -> None:
    assert_problem(strict.score(b"x" * LIMIT), 415, "unsupported-image")
    for extra, status in ((0, 415), (1, 413)):
        form = strict.client.post("/v1/complexity", files={"file": b"x" * (LIMIT + extra)})
        assert form.status_code == status


def test_a_stream_without_a_length_is_cut_off(strict: Server) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 200 * LIMIT:
            sent += 10_000
            yield bytes(10_000)

    response = strict.client.post("/v1/complexity", content=endless(), headers={"Content-Type": "image/png"})
    document = assert_problem(response, 413, "image-too-large")
    assert document["maximum"] == LIMIT
    assert "actual" not in document
    assert response.headers["connection"] == "close"


def test_a_refused_sender_gets_the_answer_before_the_connection_ends(strict: Server) -> None:
    """It sends all before it reads, and would otherwise see a reset and no answer."""
    size = 20_000_000
    with strict.connect() as connection:
        head = f"POST /v1/complexity HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/png\r\n"
        connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
        connection.sendall(bytes(size))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("stated", [b"1000", b"99999"])
def test_a_length_that_is_never_delivered(strict: Server, stated: bytes) -> None:
    started = time.monotonic()
    with strict.connect() as connection:
        connection.sendall(
            b"POST /v1/complexity HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: " + stated
        )
        connection.sendall(b"\r\n\r\n" + PNG[:100])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
    assert 0.9 < time.monotonic() - started < 3


def test_unknown_path_and_method(server: Server) -> None:
    assert_problem(server.client.get("/nothing/here"), 404, "not-found")
    refused = server.client.get("/v1/complexity")
    assert_problem(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "POST"
    assert_problem(server.client.get("/v1/models/other"), 404, "unknown-model")


@pytest.mark.parametrize("media_type", ["text/plain", "application/zip", "application/x-www-form-urlencoded", ""])
def test_other_content_types(server: Server, media_type: str) -> None:
    document = assert_problem(server.score(PNG, media_type), 415, "unsupported-content")
    assert "multipart/form-data" in str(document["detail"])


def test_compressed_body(server: Server) -> None:
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    response = server.client.post("/v1/complexity", content=PNG, headers=headers)
    assert_problem(response, 415, "unsupported-content")


def test_multipart_without_the_file(server: Server) -> None:
    other = server.client.post("/v1/complexity", files={"image": PNG})
    document = assert_problem(other, 400, "missing-file")
    assert "'image'" in str(document["detail"])
    twice = server.client.post("/v1/complexity", files=[("file", PNG), ("file", PNG)])
    assert_problem(twice, 400, "missing-file")


@pytest.mark.parametrize(
    "body",
    [b"", b"no boundary", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', b"--x\r\nbroken"],
)
def test_multipart_that_is_broken(server: Server, body: bytes) -> None:
    assert_problem(server.score(body, "multipart/form-data; boundary=x"), 400, "malformed-upload")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 300])
def test_multipart_without_a_usable_boundary(server: Server, content_type: str) -> None:
    assert_problem(server.score(PNG, content_type), 400, "malformed-upload")


@pytest.mark.parametrize(
    "parameters",
    [
        {"heatmap": "yes"},
        {"colormap": "jet"},
        {"opacity": "2"},
        {"opacity": "nan"},
        {"heatmap_size": "100000"},
        {"heatmap_size": "15"},
        {"heatmpa": "png"},
    ],
)
def test_invalid_parameters(server: Server, parameters: dict[str, str]) -> None:
    document = assert_problem(server.score(PNG, **parameters), 422, "invalid-parameter")
    assert next(iter(parameters)) in str(document["detail"])
    assert document["invalid"][0]["parameter"] == next(iter(parameters))


def test_accept_that_cannot_be_met(server: Server) -> None:
    headers = {"Content-Type": "image/png", "Accept": "text/html, image/avif"}
    assert_problem(server.client.post("/v1/complexity", content=PNG, headers=headers), 406, "not-acceptable")


def test_refusals_are_counted(server: Server) -> None:
    before = server.metric("clicv2_decode_failures_total", kind="Corrupt")
    server.score(PNG[:100])
    assert server.metric("clicv2_decode_failures_total", kind="Corrupt") == before + 1
    server.assert_metrics_add_up()


def test_the_connection_survives_a_refusal_whose_body_was_read(server: Server) -> None:
    response = server.score(np.zeros(10, np.uint8).tobytes())
    assert response.status_code == 415
    assert "connection" not in response.headers
