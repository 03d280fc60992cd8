"""Promise 20: whatever a URL says, its name resolves to, or it redirects to, no connection to what is not public.

The host listens on every address of this machine, so a way in would be found open; 127.99.99.99 passes
for an address on the internet. A recorder below asyncio sees every connection that is even tried.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import not_public
import pytest
from fetching import LIMIT, OTHER, PICTURE, PRIVATE, PUBLIC, fetch, fetching
from recorder import Recorder, recorded
from web_host import FakeDns, WebHost, answer, redirect, web_host

from service.errors import FetchFailed, ForbiddenUrl, InvalidUrl
from service.fetch import Fetcher
from service.outbound import Outbound, SystemResolver

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Also what production runs on, though the recorder cannot see into it: there the host's arrivals must do."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def sees_all(anyio_backend: tuple[str, dict[str, bool]]) -> bool:
    return not anyio_backend[1]["use_uvloop"]


@pytest.fixture
def wire() -> Iterator[Recorder]:
    with recorded() as recorder:
        yield recorder


@pytest.fixture
async def host() -> AsyncIterator[WebHost]:
    async with web_host() as running:
        yield running


async def test_the_recorder_and_the_trap_see_what_gets_through(host: WebHost, wire: Recorder, sees_all: bool) -> None:
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
async def test_addresses(host: WebHost, wire: Recorder, address: str) -> None:
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
async def test_spellings(host: WebHost, wire: Recorder, url: str) -> None:
    with pytest.raises((InvalidUrl, ForbiddenUrl)):
        await fetch(host, url)
    assert not wire.connects
    assert not wire.lookups
    assert not host.arrivals


@pytest.mark.parametrize("url", not_public.SPELLINGS)
async def test_spellings_in_a_redirect(host: WebHost, wire: Recorder, url: str) -> None:
    """A reference that is no URL is one relative to the host's own, and leads back to it."""
    host.pages["/away"] = redirect(url.replace("PORT", str(host.port)))
    with pytest.raises((ForbiddenUrl, FetchFailed)):
        await fetch(host, "http://public.example:PORT/away")
    assert set(host.arrivals) == {PUBLIC}
    assert set(wire.connects) <= {PUBLIC}
    assert not wire.lookups


def test_there_are_enough_vectors() -> None:
    assert len(set(not_public.ADDRESSES)) + len(set(not_public.SPELLINGS)) >= 60


async def test_rebinding(host: WebHost, wire: Recorder, sees_all: bool) -> None:
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


async def test_names_that_cannot_be_looked_up_now(host: WebHost) -> None:
    with pytest.raises(FetchFailed, match="cannot be found at the moment"):
        await fetch(host, "http://broken.example/", names={"broken.example": [["failure"]]})


async def test_proxies_of_the_environment(host: WebHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy":
        monkeypatch.setenv(name, f"http://{PRIVATE}:{host.port}")
    host.pages["/"] = answer(PICTURE)
    assert await fetch(host, "http://public.example:PORT/") == PICTURE
    assert host.arrivals == [PUBLIC]


async def test_the_resolver_of_the_operating_system(wire: Recorder) -> None:
    """Which is asked for the name as it is, without this machine's search list."""
    resolver = SystemResolver()
    try:
        assert await resolver.resolve("no-such-name.invalid") == []
    except OSError:
        pass  # there is no name server
    finally:
        await resolver.close()
    assert wire.lookups == ["no-such-name.invalid."]


async def test_many_at_once_to_different_hosts(host: WebHost, wire: Recorder) -> None:
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
