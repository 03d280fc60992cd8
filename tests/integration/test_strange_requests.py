"""Requests that no sane client sends: each gets its answer or a problem, and never a failure of ours."""

import json
import re

import pytest
from pictures import encode, noise
from serving import Server

PNG = encode(noise(8, 8), "PNG")
SCORE = "/v1/complexity"
PATHS = (
    *(SCORE, "/v1/complexity/batch", "/v1/compare", "/v1/models", "/v1/models/clicv2", "/livez", "/readyz", "/metrics"),
    *(
        "/docs",
        "/openapi.json",
        "/errors",
        "/errors/overloaded",
        "/static-offline-docs/swagger-ui-bundle.js",
        "/nothing",
    ),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")
TEXTS = (b"", b"%00", b"%ff%fe", b"%ED%A0%80", b"%", b"%zz", b"%F0%9F%98%80", b"\xff", b"\x00", b"a b", b"a" * 60_000)


def ask(server: Server, request: bytes) -> tuple[int, dict[str, str], bytes]:
    with server.connect() as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(1 << 16):
            received += chunk
            head, separator, body = received.partition(b"\r\n\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").splitlines()[1:])
            if separator and (request.startswith(b"HEAD") or len(body) >= int(headers.get("content-length", 1 << 40))):
                return int(head[9:12]), headers, body
    raise AssertionError(f"no whole answer: {received[:200]!r}")


def assert_in_order(server: Server, request: bytes) -> int:
    status, headers, body = ask(server, request)
    assert 200 <= status < 500, (request[:200], status, body)
    if status < 400:
        return status
    assert headers["content-type"] == "application/problem+json", (request[:200], body)
    assert re.fullmatch(r'</errors/[a-z-]+>; rel="help"', headers["link"])
    if not request.startswith(b"HEAD"):
        document = json.loads(body)
        assert document["status"] == status
        assert document["instance"].endswith(headers["x-request-id"])
    if status == 405:
        assert headers["allow"]
    return status


def post(path: str = SCORE, query: bytes = b"", body: bytes = PNG, **headers: bytes) -> bytes:
    given = {"Content-Type": b"image/png", "Content-Length": b"%d" % len(body)}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in given.items())
    return b"POST " + path.encode() + query + b" HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n" + body


@pytest.mark.parametrize("path", PATHS)
def test_every_method_everywhere(server: Server, path: str) -> None:
    for method in METHODS:
        request = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode()
        status = assert_in_order(server, request)
        if method == "HEAD" and status == 200:
            assert ask(server, request)[2] == b""


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:10]))
def test_every_text_everywhere(server: Server, text: bytes) -> None:
    for path in (b"/", b"/v1/models/", b"/errors/", b"/static-offline-docs/"):
        assert_in_order(server, b"GET " + path + text + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    for query in (b"?model=" + text, b"?" + text + b"=1", b"?" + text, b"?heatmap=grid&heatmap=" + text):
        assert_in_order(server, post(query=query))
    names = "X-Request-ID Idempotency-Key X-Request-Timeout Accept If-None-Match Cache-Control Content-Encoding Host"
    for name in (*names.split(), "Content-Type", "Authorization", "Origin", "Expect", "Range"):
        assert_in_order(server, post(**{name: text}))


@pytest.mark.parametrize(
    "content_type",
    [
        b";",
        b"/",
        b"image/",
        b"IMAGE/PNG; charset=\xff",
        b"application/json; charset=utf-16",
        b"multipart/form-data",
        b'multipart/form-data; boundary="a',
        b"multipart/form-data; boundary=\xff\xfe",
        b"multipart/form-data; boundary*=utf-8''%ff",
        b"application/x-www-form-urlencoded",
    ],
)
@pytest.mark.parametrize("path", [SCORE, "/v1/complexity/batch", "/v1/compare"])
def test_every_content_type(server: Server, path: str, content_type: bytes) -> None:
    assert assert_in_order(server, post(path, Content_Type=content_type)) in (200, 400, 415)


BODIES = (
    *(b"", b"null", b"[]", b"1", b'"x"', b"{", b"{}", b"NaN", b"[" * 100_000, b'{"a":' * 50_000),
    *(b'{"image":"\\ud800"}', b'{"url":"\\ud800"}', b'{"image":"\xff"}', b'{"image":' + b"1" * 5000 + b"}"),
)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:12]))
def test_json_that_is_no_picture(server: Server, body: bytes) -> None:
    assert assert_in_order(server, post(body=body, Content_Type=b"application/json")) in (400, 403, 415, 422)


@pytest.mark.parametrize(
    "disposition",
    [
        b"",
        b"form-data",
        b'form-data; name="file"; filename="\xff\xfe"',
        b'form-data; name="file"; filename="\xed\xa0\x80"',
        b"form-data; name=\"file\"; filename*=utf-8''%ff",
        b"form-data; name=\"file\"; filename*=bogus''x",
        b'form-data; name="file"; filename="a\x00b"',
        b'form-data; name="fi\xffle"',
    ],
)
def test_names_of_files(server: Server, disposition: bytes) -> None:
    part = b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + PNG + b"\r\n"
    for path in (SCORE, "/v1/complexity/batch", "/v1/compare"):
        form = part * (2 if path == "/v1/compare" else 1) + b"--x--\r\n"
        assert_in_order(server, post(path, body=form, Content_Type=b"multipart/form-data; boundary=x"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Transfer-Encoding": b"chunked"}, 400),
        ({"Content-Length": b"-1"}, 400),
        ({"Content-Length": b"+5"}, 400),
        ({"Content-Length": b"9" * 30}, 400),
        ({"Content-Length": b"9" * 18}, 413),
        ({"Expect": b"200-maybe"}, 200),
    ],
)
def test_lengths(server: Server, headers: dict[str, bytes], status: int) -> None:
    assert assert_in_order(server, post(**headers)) == status


def test_chunks_and_expectations(server: Server) -> None:
    head = b"POST /v1/complexity HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x;extension=1\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(PNG), PNG)
    assert assert_in_order(server, head + chunked) == 200
    assert assert_in_order(server, head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n") == 400
    body_of_get = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    assert assert_in_order(server, body_of_get) == 200
    with server.connect() as connection:
        connection.sendall(head + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(PNG))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(PNG)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
