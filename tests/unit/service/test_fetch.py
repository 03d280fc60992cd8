"""What a fetcher decides before anything is sent; tests/integration/test_ssrf.py has the rest."""

import asyncio
import time
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from service.addresses import Address
from service.errors import (
    DeadlineExceeded,
    FetchFailed,
    ForbiddenUrl,
    InvalidUrl,
    Overloaded,
    ServiceError,
    facts_of,
    problem_of,
)
from service.fetch import FetchEnding, Fetcher
from service.outbound import Outbound

pytestmark = pytest.mark.anyio

URL = "http://public.example/a.png"


class SlowDns:
    """Answers when it is told to.

    Attributes:
        asked: the names, in order.
    """

    def __init__(self, addresses: Sequence[str] = ("10.0.0.1",)) -> None:
        self.asked: list[str] = []
        self.answered = asyncio.Event()
        self.closed = False
        self._addresses = addresses

    async def resolve(self, name: str) -> Sequence[Address]:
        self.asked.append(name)
        await self.answered.wait()
        return [ip_address(address) for address in self._addresses]

    async def close(self) -> None:
        self.closed = True


def fetcher_of(dns: SlowDns, endings: list[FetchEnding], capacity: int = 8) -> Fetcher:
    return Fetcher(Outbound(dns), limit=100, capacity=capacity, observe=lambda ending, _: endings.append(ending))


async def fetched(fetcher: Fetcher, url: str = URL, within_s: float = 30) -> bytes:
    return await fetcher.fetch(url, time.monotonic() + within_s)


async def test_each_end_is_observed() -> None:
    endings: list[FetchEnding] = []
    dns = SlowDns()
    fetcher = fetcher_of(dns, endings, capacity=1)
    with pytest.raises(InvalidUrl):
        await fetched(fetcher, "ftp://public.example/")
    with pytest.raises(DeadlineExceeded):
        await fetched(fetcher, within_s=0.01)
    with pytest.raises(DeadlineExceeded):
        await fetched(fetcher, within_s=-1)
    waiting = asyncio.create_task(fetched(fetcher))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await fetched(fetcher)
    assert fetcher.in_flight == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    dns.answered.set()
    with pytest.raises(ForbiddenUrl):
        await fetched(fetcher)
    assert endings == ["invalid", "expired", "expired", "shed", "cancelled", "forbidden"]
    assert fetcher.in_flight == 0


async def test_a_name_that_does_not_exist_is_answered_like_one_that_is_private() -> None:
    """Or anybody could ask which internal names there are."""
    said = set()
    for addresses in (), ("10.0.0.1",), ("93.184.215.14", "10.0.0.1"):
        dns = SlowDns(addresses)
        dns.answered.set()
        with pytest.raises(ForbiddenUrl) as caught:
            await fetched(fetcher_of(dns, []))
        said.add(str(caught.value))
    assert len(said) == 1
    assert "10.0" not in said.pop()


@pytest.mark.parametrize(
    "url", ["http://localhost/", "http://redis/", "http://metadata.google.internal/", "http://a.local"]
)
async def test_local_names_are_not_even_looked_up(url: str) -> None:
    dns = SlowDns()
    with pytest.raises(ForbiddenUrl):
        await fetched(fetcher_of(dns, []), url)
    assert not dns.asked


async def test_other_ports() -> None:
    dns = SlowDns()
    with pytest.raises(ForbiddenUrl, match="port 8080 is not allowed; allowed: 80, 443"):
        await fetched(fetcher_of(dns, []), "http://public.example:8080/")
    assert not dns.asked


async def test_closing_it_closes_what_it_uses() -> None:
    dns = SlowDns()
    await fetcher_of(dns, []).close()
    assert dns.closed


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (InvalidUrl("x"), 422, "invalid-url"),
        (ForbiddenUrl("x"), 422, "forbidden-url"),
        (FetchFailed("x"), 422, "fetch-failed"),
        (DeadlineExceeded("x"), 504, "deadline-exceeded"),
        (Overloaded("urls", 3), 429, "overloaded"),
    ],
)
def test_what_http_says(error: ServiceError, status: int, slug: str) -> None:
    assert (problem_of(error).status, problem_of(error).slug) == (status, slug)


def test_facts() -> None:
    assert facts_of(FetchFailed("not found", 404)) == {"upstream_status": 404}
    assert facts_of(FetchFailed("gone")) == {}
