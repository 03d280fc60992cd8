"""Pictures by URL from hosts that behave, and that do not; which hosts are never asked is in test_ssrf.py."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from fetching import LIMIT, OTHER, PICTURE, PRIVATE, PUBLIC, fetch, fetching, passes_for_public, until
from ports import free_port
from web_host import NOT_HTTP, FakeDns, WebHost, answer, redirect, web_host

from service.errors import DeadlineExceeded, FetchFailed, ForbiddenUrl, UploadTooLarge
from service.fetch import MAX_REDIRECTS, Fetcher
from service.outbound import Outbound
from service.urls import parse

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Also what production runs on, though the recorder cannot see into it: there the host's arrivals must do."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def host() -> AsyncIterator[WebHost]:
    async with web_host() as running:
        yield running


async def test_a_picture(host: WebHost) -> None:
    host.pages["/a.png?b=%C3%A9"] = answer(PICTURE, content_type="text/html", set_cookie="a=b")
    assert await fetch(host, "http://public.example:PORT/a.png?b=é#c") == PICTURE
    (head,) = host.heads
    assert head.startswith("GET /a.png?b=%C3%A9 HTTP/1.1\r\n")
    assert host.header("host") == [f"public.example:{host.port}"]
    assert host.header("accept-encoding") == ["identity"]
    assert host.header("connection") == ["close"]


async def test_a_picture_without_a_length(host: WebHost) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    host.pages["/chunked"] = chunked
    host.pages["/to-the-end"] = b"HTTP/1.0 200 OK\r\n\r\nhello world"
    host.pages["/empty"] = answer(b"")
    assert await fetch(host, "http://public.example:PORT/chunked") == b"hello world"
    assert await fetch(host, "http://public.example:PORT/to-the-end") == b"hello world"
    assert await fetch(host, "http://public.example:PORT/empty") == b""


async def test_a_message_for_somebody_else(host: WebHost) -> None:
    """The same guard around what is sent instead of fetched."""
    host.pages["/hook"] = answer(b"thanks", status="202 Accepted")
    outbound = Outbound(
        FakeDns({"public.example": [[PUBLIC]]}), allowed=passes_for_public, ports=frozenset({host.port})
    )
    hook = parse(f"http://public.example:{host.port}/hook")
    async with outbound.exchange("POST", hook, {"Content-Type": "application/json"}, b"{}") as reply:
        assert reply.status == 202
        assert [chunk async for chunk in reply.body] == [b"thanks"]
    assert host.heads[0].startswith("POST /hook HTTP/1.1\r\n")
    assert host.header("content-length") == ["2"]
    with pytest.raises(ForbiddenUrl):
        async with outbound.exchange("POST", parse(f"http://{PRIVATE}:{host.port}/hook"), {}, b"{}"):
            pass
    with pytest.raises(FetchFailed):
        async with outbound.exchange("POST", hook, {"X-Injected": "a\r\nHost: b"}, b"{}"):
            pass
    assert len(host.heads) == 1


async def test_redirects(host: WebHost) -> None:
    """Each status, relative and absolute, to another host; nothing that one host gave is told to another."""
    for status in "301 a", "302 a", "303 a", "307 a", "308 a":
        host.pages["/from"] = redirect(f"//other.example:{host.port}/x/to", status)
        host.pages["/x/to"] = redirect("end#fragment", status)
        host.pages["/x/end"] = answer(PICTURE)
        host.arrivals.clear()
        assert await fetch(host, "http://public.example:PORT/from") == PICTURE
        assert host.arrivals == [PUBLIC, OTHER, OTHER]
    assert host.header("cookie") == host.header("referer") == host.header("authorization") == []
    names = [name.rpartition(":")[0] for name in host.header("host")]
    assert names == ["public.example", "other.example", "other.example"] * 5


async def test_a_redirect_in_other_letters(host: WebHost) -> None:
    host.pages["/"] = redirect("/é.png")
    host.pages["/%C3%A9.png"] = answer(PICTURE)
    assert await fetch(host, "http://public.example:PORT/") == PICTURE


async def test_redirects_without_end(host: WebHost) -> None:
    host.pages["/"] = redirect("/")
    with pytest.raises(FetchFailed, match="more than 5 redirects"):
        await fetch(host, "http://public.example:PORT/")
    assert len(host.arrivals) == MAX_REDIRECTS + 1


async def test_a_redirect_to_nowhere(host: WebHost) -> None:
    host.pages["/"] = answer(b"", status="302 Found")
    with pytest.raises(FetchFailed, match="without saying where to"):
        await fetch(host, "http://public.example:PORT/")


@pytest.mark.parametrize("status", ["204 x", "206 x", "300 x", "304 x", "401 x", "404 x", "407 x", "500 x", "101 x"])
async def test_other_answers(host: WebHost, status: str) -> None:
    host.pages["/"] = answer(b"", status=status, location="http://127.0.0.1/", upgrade="h2c", connection="upgrade")
    with pytest.raises(FetchFailed) as caught:
        await fetch(host, "http://public.example:PORT/")
    assert caught.value.upstream_status in (int(status[:3]), None)


@pytest.mark.parametrize("page", NOT_HTTP, ids=range(len(NOT_HTTP)))
async def test_hosts_that_do_not_speak_http(host: WebHost, page: bytes) -> None:
    host.pages["/"] = page
    with pytest.raises(FetchFailed):
        await fetch(host, "http://public.example:PORT/")


async def test_too_large_as_stated(host: WebHost) -> None:
    async def never_ends(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n")
        await asyncio.sleep(60)

    host.pages["/"] = never_ends
    with pytest.raises(UploadTooLarge) as caught:
        await fetch(host, "http://public.example:PORT/")
    assert (caught.value.maximum, caught.value.actual) == (LIMIT, LIMIT + 1)


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked", b"Connection: close"])
async def test_too_large_as_it_streams(host: WebHost, head: bytes) -> None:
    """It stops to read soon after the limit, however much would come."""
    sent = 0

    async def goes_on(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n" if b"chunked" in head else bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16

    host.pages["/"] = goes_on
    with pytest.raises(UploadTooLarge) as caught:
        await fetch(host, "http://public.example:PORT/")
    assert caught.value.actual is None
    await until(lambda: host.ended > 0)
    assert sent < 64 << 20  # what the kernel's buffers take


async def test_exactly_as_large_as_is_allowed(host: WebHost) -> None:
    host.pages["/"] = answer(bytes(LIMIT))
    assert len(await fetch(host, "http://public.example:PORT/")) == LIMIT


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "x-unknown", "identity, gzip"])
async def test_encoded_bodies(host: WebHost, coding: str) -> None:
    """Nothing is decoded, so nothing can swell."""
    host.pages["/"] = answer(PICTURE, content_encoding=coding)
    with pytest.raises(FetchFailed, match="encoded as"):
        await fetch(host, "http://public.example:PORT/")


async def test_identity_is_no_encoding(host: WebHost) -> None:
    host.pages["/"] = answer(PICTURE, content_encoding="Identity")
    assert await fetch(host, "http://public.example:PORT/") == PICTURE


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def dripping_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    await drip(writer)


async def dripping_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    await drip(writer)


async def early_hints(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("page", [silence, dripping_head, dripping_body, early_hints])
async def test_slow_hosts(host: WebHost, page: object) -> None:
    host.pages["/"] = page  # type: ignore[assignment]
    with pytest.raises(DeadlineExceeded):
        await fetch(host, "http://public.example:PORT/", within_s=0.3)
    if page is not silence:  # it only finds out when it writes
        await until(lambda: host.ended > 0)


async def test_a_caller_who_goes_takes_the_connection_along(host: WebHost) -> None:
    host.pages["/"] = dripping_body
    task = asyncio.create_task(fetch(host, "http://public.example:PORT/"))
    await until(lambda: bool(host.heads))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: host.ended > 0)


async def test_no_one_listens(host: WebHost) -> None:
    port = free_port()
    outbound = Outbound(FakeDns({}), allowed=passes_for_public, ports=frozenset({port}))
    with pytest.raises(FetchFailed, match="cannot be reached"):
        await Fetcher(outbound, limit=LIMIT, capacity=1).fetch(f"http://{PUBLIC}:{port}/", time.monotonic() + 30)


async def test_the_next_address_if_one_is_out_of_reach() -> None:
    host = WebHost(pages={"/": answer(PICTURE)})
    server = await asyncio.start_server(host.serve, PUBLIC, 0)
    host.port = server.sockets[0].getsockname()[1]
    async with fetching(host, {"two.example": [[OTHER, PUBLIC]]}) as (fetcher, _):
        assert await fetcher.fetch(f"http://two.example:{host.port}/", time.monotonic() + 30) == PICTURE
    assert host.arrivals == [PUBLIC]
    server.close()
