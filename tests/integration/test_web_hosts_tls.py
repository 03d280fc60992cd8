"""Pictures by URL over TLS: a name is certified, whichever address it has."""

import asyncio
import ssl
import time
from dataclasses import dataclass

import pytest
import trustme
from fetching import OTHER, PICTURE, PUBLIC, fetch, fetching
from web_host import WebHost, answer, redirect, web_host

from service.errors import DeadlineExceeded, FetchFailed, ForbiddenUrl

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Also what production runs on, though the recorder cannot see into it: there the host's arrivals must do."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


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


async def test_tls_is_spoken_with_the_name_and_not_with_the_address(trust: Trust) -> None:
    context = trust.server("public.example")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with web_host(context) as host:
        host.pages["/"] = answer(PICTURE)
        assert await fetch(host, "https://public.example:PORT/", tls=trust.roots) == PICTURE
        assert host.arrivals == [PUBLIC]
        assert host.header("host") == [f"public.example:{host.port}"]
    assert asked == ["public.example"]


async def test_tls_with_an_address(trust: Trust) -> None:
    async with web_host(trust.server(PUBLIC)) as host:
        host.pages["/"] = answer(PICTURE)
        assert await fetch(host, f"https://{PUBLIC}:PORT/", tls=trust.roots) == PICTURE


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
            await fetch(host, "https://public.example:PORT/", tls=trust.roots if ours else None)
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
        await fetch(host, "https://public.example:PORT/", tls=trust.roots)
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
            await fetch(host, "https://public.example:PORT/", tls=trust.roots)
        assert len(host.arrivals) == 1


async def test_redirects_over_tls(trust: Trust) -> None:
    async with web_host(trust.server("public.example", "other.example")) as host:
        host.pages["/"] = redirect(f"https://other.example:{host.port}/there")
        host.pages["/there"] = redirect(f"https://loopback.example:{host.port}/")
        with pytest.raises(ForbiddenUrl):
            await fetch(host, "https://public.example:PORT/", tls=trust.roots)
        assert host.arrivals == [PUBLIC, OTHER]
