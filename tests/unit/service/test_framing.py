"""Heads of requests: bounded, and never answered with anything but a problem. A real uvicorn, spoken to in bytes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from fastapi import FastAPI, Request

from service import framing
from service.framing import MAX_HEAD_BYTES, BoundedHttp

pytestmark = pytest.mark.anyio

GET = b"GET /length HTTP/1.1\r\nHost: test\r\n"
POST = b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with listening() as port:
        yield port


@asynccontextmanager
async def listening(root_path: str = "") -> AsyncIterator[int]:
    app = FastAPI()

    @app.api_route("/length", methods=["GET", "POST"])
    async def length(request: Request) -> int:
        return len(await request.body())

    config = uvicorn.Config(
        app, port=0, http=BoundedHttp, lifespan="off", ws="none", log_config=None, root_path=root_path
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split(" ")[1]), headers, body


async def assert_refused(reader: asyncio.StreamReader, status: int, kind: str, root_path: str = "") -> None:
    got, headers, body = await answer(reader)
    document = json.loads(body)
    assert (got, document["status"], document["type"]) == (status, status, f"urn:clicv2:problem:{kind}")
    assert headers["content-type"] == "application/problem+json"
    assert headers["link"] == f'<{root_path}/errors/{kind}>; rel="help"'
    assert document["instance"] == f"urn:clicv2:request:{headers['x-request-id']}"
    assert {"title", "detail"} <= set(document)
    assert await asyncio.wait_for(reader.read(), 20) == b"", "the connection ends"


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"INVENTED / HTTP/1.1\r\nHost: a\r\n\r\n",
        GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        GET + b"Content-Length: -1\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        GET + b"X: \x00\r\n\r\n",
        GET + b"No-Colon\r\n\r\n",
    ],
)
async def test_what_is_no_http(port: int, request_: bytes) -> None:
    async with connected(port) as (reader, writer):
        writer.write(request_)
        await assert_refused(reader, 400, "malformed-request")


async def test_the_explanation_is_under_the_proxys_path() -> None:
    async with listening("/complexity") as port, connected(port) as (reader, writer):
        writer.write(b"nonsense\r\n\r\n")
        await assert_refused(reader, 400, "malformed-request", "/complexity")


@pytest.mark.parametrize("sent_as", [b"X: " + b"a" * 1000 + b"\r\n", b"a" * 1000], ids=["many", "one endless"])
async def test_headers_without_an_end_are_cut_off(port: int, sent_as: bytes) -> None:
    async with connected(port) as (reader, writer):
        writer.write(GET + b"Y: ")
        sent = 0
        while not reader.at_eof() and sent < 100 * MAX_HEAD_BYTES:
            try:
                writer.write(sent_as)
                await writer.drain()
            except ConnectionError:
                break
            sent += len(sent_as)
            if sent > MAX_HEAD_BYTES:
                await asyncio.sleep(0.01)
        assert sent < 50 * MAX_HEAD_BYTES


async def test_headers_just_over_the_limit_are_told_so(port: int) -> None:
    async with connected(port) as (reader, writer):
        for piece in (GET + b"X: ", b"a" * (MAX_HEAD_BYTES - len(GET)), b"aaaa"):
            writer.write(piece)
            await asyncio.sleep(0.05)  # so that it arrives by itself
        await assert_refused(reader, 431, "headers-too-large")


async def test_the_limit_is_for_each_head_and_not_for_bodies(port: int) -> None:
    async with connected(port) as (reader, writer):
        for _ in range(3):
            writer.write(GET + b"X: " + b"a" * (MAX_HEAD_BYTES // 2))
            await asyncio.sleep(0.02)
            writer.write(b"\r\n\r\n")
            assert (await answer(reader))[0] == 200
        size = 10 * MAX_HEAD_BYTES
        writer.write(POST % size)
        for _ in range(10):
            writer.write(bytes(MAX_HEAD_BYTES))
            await asyncio.sleep(0.01)
        assert (await answer(reader))[2] == str(size).encode()


async def test_a_slow_head_is_told_so_and_a_silent_connection_closed(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "HEAD_TIMEOUT_S", 0.3)
    async with connected(port) as (reader, writer):
        for byte in b"GET /len":
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        await assert_refused(reader, 408, "headers-timeout")
    async with connected(port) as (reader, writer):
        writer.write(GET + b"\r\n")
        assert (await answer(reader))[0] == 200
        writer.write(GET)  # the second head on a connection has no more time than the first
        await assert_refused(reader, 408, "headers-timeout")
    async with connected(port) as (reader, _):
        assert await asyncio.wait_for(reader.read(), 20) == b""


async def test_time_is_counted_for_the_head_alone(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "HEAD_TIMEOUT_S", 0.3)
    async with connected(port) as (reader, writer):
        writer.write(POST % 2 + b"a")
        await asyncio.sleep(0.6)
        writer.write(b"b")
        assert (await answer(reader))[2] == b"2"
        await asyncio.sleep(0.6)  # a connection that is kept alive has uvicorn's own, longer time
        writer.write(GET + b"\r\n")
        assert (await answer(reader))[0] == 200
