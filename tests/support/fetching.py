"""A fetcher as a test has it: its DNS is a table, and two addresses of this machine pass for some on the internet."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import not_public
from web_host import FakeDns, WebHost

from service.addresses import Address, is_public
from service.fetch import Fetcher
from service.outbound import Outbound

PUBLIC = "127.99.99.99"
OTHER = "127.99.99.98"
PRIVATE = "127.0.0.1"
LIMIT = 100_000
PICTURE = bytes(range(256)) * 4

Names = dict[str, list[list[str]]]


def passes_for_public(address: Address) -> bool:
    return is_public(address) or str(address) in (PUBLIC, OTHER)


@asynccontextmanager
async def fetching(
    host: WebHost, names: Names | None = None, tls: ssl.SSLContext | None = None, capacity: int = 8
) -> AsyncIterator[tuple[Fetcher, FakeDns]]:
    """A fetcher that may use the host's port.

    Args:
        names: beside those that there are: public.example, other.example, and not_public's.
    """
    dns = FakeDns({"public.example": [[PUBLIC]], "other.example": [[OTHER]], **not_public.NAMES, **(names or {})})
    outbound = Outbound(dns, allowed=passes_for_public, ports=frozenset({80, 443, host.port}), tls=tls)
    fetcher = Fetcher(outbound, limit=LIMIT, capacity=capacity)
    try:
        yield fetcher, dns
    finally:
        await fetcher.close()


async def fetch(
    host: WebHost, url: str, *, within_s: float = 30, names: Names | None = None, tls: ssl.SSLContext | None = None
) -> bytes:
    """Fetch a URL in which PORT stands for the host's."""
    async with fetching(host, names, tls) as (fetcher, _):
        return await fetcher.fetch(url.replace("PORT", str(host.port)), time.monotonic() + within_s)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110  # what the host saw is a fact, and no event
            await asyncio.sleep(0.01)
