"""Promise 20: whatever a URL says, its name resolves to, or it redirects to, no connection to what is not public.

The host listens on every address of this machine, so a way in would be found open; 127.99.99.99 passes
for an address on the internet. A recorder below asyncio sees every connection that is even tried.
"""

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import not_public
import pytest
import trustme
from web_host import FakeDns, WebHost, answer, redirect, web_host

from service.addresses import Address, is_public
from service.errors import DeadlineExceeded, FetchFailed, ForbiddenUrl, InvalidUrl, UploadTooLarge
from service.fetch import MAX_REDIRECTS, Fetcher
from service.outbound import Outbound, SystemResolver
from service.urls import parse

pytestmark = pytest.mark.anyio

PUBLIC = "127.99.99.99"
OTHER = "127.99.99.98"
PRIVATE = "127.0.0.1"
LIMIT = 100_000
PICTURE = bytes(range(256)) * 4


@dataclass
class Wire:
    """What this process asked the kernel for, and the resolver of the operating system.

    Attributes:
        connects: addresses, in order.
        lookups: hosts, in order.
    """

    connects: list[str] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)
    recording: bool = False

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.recording:
            return
        if event in ("socket.connect", "socket.sendto"):
            where = arguments[1]
            self.connects.append(str(where[0]) if isinstance(where, tuple) else repr(where))
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self.lookups.append(str(arguments[0]))


_WIRE = Wire()
sys.addaudithook(_WIRE.hear)  # cannot be taken back, only made to stop recording


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Also what production runs on, though the recorder cannot see into it: there the host's arrivals must do."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def sees_all(anyio_backend: tuple[str, dict[str, bool]]) -> bool:
    return not anyio_backend[1]["use_uvloop"]


@pytest.fixture
def wire() -> Iterator[Wire]:
    _WIRE.connects.clear()
    _WIRE.lookups.clear()
    _WIRE.recording = True
    yield _WIRE
    _WIRE.recording = False


@pytest.fixture
async def host() -> AsyncIterator[WebHost]:
    async with web_host() as running:
        yield running


def passes_for_public(address: Address) -> bool:
    return is_public(address) or str(address) in (PUBLIC, OTHER)


@asynccontextmanager
async def fetching(
    host: WebHost, names: dict[str, list[list[str]]] | None = None, tls: ssl.SSLContext | None = None, capacity: int = 8
) -> AsyncIterator[tuple[Fetcher, FakeDns]]:
    dns = FakeDns({"public.example": [[PUBLIC]], "other.example": [[OTHER]], **not_public.NAMES, **(names or {})})
    outbound = Outbound(dns, allowed=passes_for_public, ports=frozenset({80, 443, host.port}), tls=tls)
    fetcher = Fetcher(outbound, limit=LIMIT, capacity=capacity)
    try:
        yield fetcher, dns
    finally:
        await fetcher.close()


async def fetch(
    host: WebHost, url: str, within_s: float = 30, names: dict[str, list[list[str]]] | None = None
) -> bytes:
    async with fetching(host, names) as (fetcher, _):
        return await fetcher.fetch(url.replace("PORT", str(host.port)), time.monotonic() + within_s)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110  # what the host saw is a fact, and no event
            await asyncio.sleep(0.01)


async def test_the_recorder_and_the_trap_see_what_gets_through(host: WebHost, wire: Wire, sees_all: bool) -> None:
    """What the tests below prove is only as good as this."""
    host.pages["/"] = answer(PICTURE)
    outbound = Outbound(FakeDns(not_public.NAMES), allowed=lambda _: True, ports=frozenset({host.port}))
    fetcher = Fetcher(outbound, limit=LIMIT, capacity=1)
    reached = ["127.0.0.1", "127.0.0.1", "::1", "::1", "127.0.0.1"]
    for name in "127.0.0.1", "loopback.example", "[::1]", "six.example", "0.0.0.0":  # noqa: S104  # to be connected to
        assert await fetcher.fetch(f"http://{name}:{host.port}/", time.monotonic() + 30) == PICTURE
    assert host.arrivals == reached
    assert host.header("host")[2] == f"[::1]:{host.port}"
    if sees_all:
        assert wire.connects == [*reached[:4], "0.0.0.0"]  # noqa: S104
    assert not wire.lookups


@pytest.mark.parametrize("address", not_public.ADDRESSES)
async def test_addresses(host: WebHost, wire: Wire, address: str) -> None:
    """As the URL's host, as what a name resolves to, and both again behind a redirect."""
    literal = f"[{address}]" if ":" in address else address
    names = {"inner.example": [[address]], "mixed.example": [[PUBLIC, address]]}
    async with fetching(host, names) as (fetcher, _):
        for name in literal, "inner.example", "mixed.example":
            url = f"http://{name}:{host.port}/"
            with pytest.raises(ForbiddenUrl) as caught:
                await fetcher.fetch(url, time.monotonic() + 30)
            assert name == literal or address not in str(caught.value)
            assert not wire.connects
            assert not host.arrivals
            host.pages["/away"] = redirect(url)
            with pytest.raises(ForbiddenUrl):
                await fetcher.fetch(f"http://public.example:{host.port}/away", time.monotonic() + 30)
            assert host.arrivals == [PUBLIC]
            assert set(wire.connects) <= {PUBLIC}
            wire.connects.clear()
            host.arrivals.clear()
    assert not wire.lookups


@pytest.mark.parametrize("url", not_public.SPELLINGS)
async def test_spellings(host: WebHost, wire: Wire, url: str) -> None:
    with pytest.raises((InvalidUrl, ForbiddenUrl)):
        await fetch(host, url)
    assert not wire.connects
    assert not wire.lookups
    assert not host.arrivals


@pytest.mark.parametrize("url", not_public.SPELLINGS)
async def test_spellings_in_a_redirect(host: WebHost, wire: Wire, url: str) -> None:
    """A reference that is no URL is one relative to the host's own, and leads back to it."""
    host.pages["/away"] = redirect(url.replace("PORT", str(host.port)))
    with pytest.raises((ForbiddenUrl, FetchFailed)):
        await fetch(host, "http://public.example:PORT/away")
    assert set(host.arrivals) == {PUBLIC}
    assert set(wire.connects) <= {PUBLIC}
    assert not wire.lookups


def test_there_are_enough_vectors() -> None:
    assert len(set(not_public.ADDRESSES)) + len(set(not_public.SPELLINGS)) >= 60


async def test_rebinding(host: WebHost, wire: Wire, sees_all: bool) -> None:
    """A name is looked up once for each connection, and the connection is to what that lookup said."""
    host.pages["/"] = answer(PICTURE)
    async with fetching(host, {"rebinds.example": [[PUBLIC], [PRIVATE]]}) as (fetcher, dns):
        url = f"http://rebinds.example:{host.port}/"
        assert await fetcher.fetch(url, time.monotonic() + 30) == PICTURE
        assert dns.asked == ["rebinds.example"]
        for _ in range(2):  # nor is the first answer, or its connection, kept for later
            with pytest.raises(ForbiddenUrl):
                await fetcher.fetch(url, time.monotonic() + 30)
    assert host.arrivals == [PUBLIC]
    if sees_all:
        assert wire.connects == [PUBLIC]
    assert not wire.lookups


async def test_rebinding_between_two_hops(host: WebHost) -> None:
    host.pages["/"] = redirect("/again")
    host.pages["/again"] = answer(PICTURE)
    with pytest.raises(ForbiddenUrl):
        await fetch(host, "http://rebinds.example:PORT/", names={"rebinds.example": [[PUBLIC], [PRIVATE]]})
    assert host.arrivals == [PUBLIC]


async def test_the_next_address_if_one_is_out_of_reach() -> None:
    host = WebHost(pages={"/": answer(PICTURE)})
    server = await asyncio.start_server(host.serve, PUBLIC, 0)
    host.port = server.sockets[0].getsockname()[1]
    async with fetching(host, {"two.example": [[OTHER, PUBLIC]]}) as (fetcher, _):
        assert await fetcher.fetch(f"http://two.example:{host.port}/", time.monotonic() + 30) == PICTURE
    assert host.arrivals == [PUBLIC]
    server.close()


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


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://a\x00.example/\r\nContent-Length: 0\r\n\r\n",
    ],
)  # fmt: skip
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
    with socket.create_server((PUBLIC, 0)) as probe:
        port = probe.getsockname()[1]
    outbound = Outbound(FakeDns({}), allowed=passes_for_public, ports=frozenset({port}))
    with pytest.raises(FetchFailed, match="cannot be reached"):
        await Fetcher(outbound, limit=LIMIT, capacity=1).fetch(f"http://{PUBLIC}:{port}/", time.monotonic() + 30)


async def test_names_that_cannot_be_looked_up_now(host: WebHost) -> None:
    with pytest.raises(FetchFailed, match="cannot be found at the moment"):
        await fetch(host, "http://broken.example/", names={"broken.example": [["failure"]]})


async def test_proxies_of_the_environment(host: WebHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy":
        monkeypatch.setenv(name, f"http://{PRIVATE}:{host.port}")
    host.pages["/"] = answer(PICTURE)
    assert await fetch(host, "http://public.example:PORT/") == PICTURE
    assert host.arrivals == [PUBLIC]


async def test_the_resolver_of_the_operating_system(wire: Wire) -> None:
    """Which is asked for the name as it is, without this machine's search list."""
    resolver = SystemResolver()
    try:
        assert await resolver.resolve("no-such-name.invalid") == []
    except OSError:
        pass  # there is no name server
    finally:
        await resolver.close()
    assert wire.lookups == ["no-such-name.invalid."]


# Over TLS.


@dataclass(frozen=True)
class Trust:
    """A certificate authority of the test's own."""

    authority: trustme.CA
    roots: ssl.SSLContext

    def server(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def trust() -> Trust:
    authority = trustme.CA()
    roots = ssl.create_default_context()
    authority.configure_trust(roots)
    return Trust(authority, roots)


async def fetch_over_tls(
    host: WebHost, url: str, roots: ssl.SSLContext | None, names: dict[str, list[list[str]]] | None = None
) -> bytes:
    async with fetching(host, names, tls=roots) as (fetcher, _):
        return await fetcher.fetch(url.replace("PORT", str(host.port)), time.monotonic() + 30)


async def test_tls_is_spoken_with_the_name_and_not_with_the_address(trust: Trust) -> None:
    context = trust.server("public.example")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with web_host(context) as host:
        host.pages["/"] = answer(PICTURE)
        assert await fetch_over_tls(host, "https://public.example:PORT/", trust.roots) == PICTURE
        assert host.arrivals == [PUBLIC]
        assert host.header("host") == [f"public.example:{host.port}"]
    assert asked == ["public.example"]


async def test_tls_with_an_address(trust: Trust) -> None:
    async with web_host(trust.server(PUBLIC)) as host:
        host.pages["/"] = answer(PICTURE)
        assert await fetch_over_tls(host, f"https://{PUBLIC}:PORT/", trust.roots) == PICTURE


@pytest.mark.parametrize(
    ("certified", "ours", "why"),
    [
        ("other.example", True, "Hostname mismatch"),
        ("127.99.99.99", True, "Hostname mismatch"),
        ("public.example", False, "certificate"),
    ],
)
async def test_certificates_that_do_not_fit(trust: Trust, certified: str, ours: bool, why: str) -> None:
    async with web_host(trust.server(certified)) as host:
        host.pages["/"] = answer(PICTURE)
        with pytest.raises(FetchFailed, match=why) as caught:
            await fetch_over_tls(host, "https://public.example:PORT/", trust.roots if ours else None)
        assert "no valid certificate" in str(caught.value)
        assert not host.heads


async def test_a_host_that_speaks_no_tls(trust: Trust) -> None:
    async def speak_plainly(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"You are speaking TLS to a port that does not.", status="400 Bad Request"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak_plainly, PUBLIC, 0)
    host = WebHost(server.sockets[0].getsockname()[1])
    with pytest.raises(FetchFailed, match="does not speak TLS as we do"):
        await fetch_over_tls(host, "https://public.example:PORT/", trust.roots)
    server.close()


async def test_a_handshake_that_never_ends(trust: Trust) -> None:
    over = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass
        over.set()
        writer.close()

    server = await asyncio.start_server(say_nothing, PUBLIC, 0)
    host = WebHost(server.sockets[0].getsockname()[1])
    async with fetching(host, tls=trust.roots) as (fetcher, _):
        with pytest.raises(DeadlineExceeded):
            await fetcher.fetch(f"https://public.example:{host.port}/", time.monotonic() + 0.3)
    await asyncio.wait_for(over.wait(), 20)
    server.close()


async def test_no_way_back_from_https_to_http(trust: Trust) -> None:
    async with web_host(trust.server("public.example")) as host:
        host.pages["/"] = redirect(f"http://public.example:{host.port}/")
        with pytest.raises(ForbiddenUrl, match="from https to http"):
            await fetch_over_tls(host, "https://public.example:PORT/", trust.roots)
        assert len(host.arrivals) == 1


async def test_redirects_over_tls(trust: Trust) -> None:
    async with web_host(trust.server("public.example", "other.example")) as host:
        host.pages["/"] = redirect(f"https://other.example:{host.port}/there")
        host.pages["/there"] = redirect(f"https://loopback.example:{host.port}/")
        with pytest.raises(ForbiddenUrl):
            await fetch_over_tls(host, "https://public.example:PORT/", trust.roots)
        assert host.arrivals == [PUBLIC, OTHER]


async def test_many_at_once_to_different_hosts(host: WebHost, wire: Wire) -> None:
    """No connection, address or verdict of one is another's."""
    host.pages["/"] = answer(PICTURE)
    async with fetching(host, capacity=100) as (fetcher, _):
        names = ["public.example", "loopback.example", "other.example", "six.example", "mixed.example"] * 20
        results = await asyncio.gather(
            *(fetcher.fetch(f"http://{name}:{host.port}/", time.monotonic() + 60) for name in names),
            return_exceptions=True,
        )
    assert [type(result) for result in results if result != PICTURE] == [ForbiddenUrl] * 60
    assert sorted(set(host.arrivals)) == [OTHER, PUBLIC]
    assert len(host.arrivals) == 40
    assert set(wire.connects) <= {PUBLIC, OTHER}
