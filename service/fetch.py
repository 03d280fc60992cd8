"""A picture by its URL: the bytes at the end of its redirects, within a byte cap and a deadline.

Each hop is checked anew by `service.outbound`. What the host says of the bytes decides nothing: no
Content-Type is believed, and a Content-Encoding is refused, so that nothing here can be a bomb.
"""

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Literal

from clicv2.imaging import MEDIA_TYPES
from service.errors import (
    DeadlineExceeded,
    FetchFailed,
    ForbiddenUrl,
    InvalidUrl,
    Overloaded,
    UploadTooLarge,
)
from service.outbound import Outbound, Reply
from service.urls import Target, parse

FetchEnding = Literal["fetched", "invalid", "forbidden", "failed", "too_large", "expired", "cancelled", "shed"]

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "User-Agent": f"clicv2/{version('clicv2-complexity')}",
    "Accept": ", ".join(MEDIA_TYPES),
    "Accept-Encoding": "identity",
}
_ENDINGS: dict[type[Exception], FetchEnding] = {
    InvalidUrl: "invalid",
    ForbiddenUrl: "forbidden",
    FetchFailed: "failed",
    UploadTooLarge: "too_large",
    DeadlineExceeded: "expired",
    Overloaded: "shed",
}


def _unobserved(ending: FetchEnding, seconds: float) -> None: ...


class Fetcher:
    """Fetches pictures; refuses at once when as many are on their way as is allowed.

    Attributes:
        in_flight: how many are on their way.
    """

    def __init__(
        self,
        outbound: Outbound,
        *,
        limit: int,
        capacity: int,
        observe: Callable[[FetchEnding, float], None] = _unobserved,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit` in bytes of a picture; `capacity` in fetches; `observe` is told of each fetch's end and seconds."""
        self._outbound = outbound
        self._limit = limit
        self._capacity = capacity
        self._observe = observe
        self._clock = clock
        self.in_flight = 0

    async def fetch(self, url: str, deadline: float) -> bytes:
        """The bytes at a URL by `deadline`, an instant on the clock.

        Raises InvalidUrl, ForbiddenUrl, FetchFailed, UploadTooLarge, DeadlineExceeded, Overloaded.
        """
        started = self._clock()
        ending: FetchEnding = "cancelled"
        try:
            data = await self._fetch(url, deadline - started)
            ending = "fetched"
        except tuple(_ENDINGS) as error:
            ending = _ENDINGS[type(error)]
            raise
        finally:
            self._observe(ending, self._clock() - started)
        return data

    async def close(self) -> None:
        await self._outbound.close()

    async def _fetch(self, url: str, timeout_s: float) -> bytes:
        target = parse(url)
        # Counted, for what each may hold is a whole picture, and a caller pays only for the URL.
        if self.in_flight >= self._capacity:
            raise Overloaded("urls", self._capacity)
        self.in_flight += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await self._follow(target)
        except TimeoutError as error:
            raise DeadlineExceeded("the picture did not arrive from its URL within the deadline") from error
        finally:
            self.in_flight -= 1

    async def _follow(self, target: Target) -> bytes:
        for _ in range(1 + MAX_REDIRECTS):
            async with self._outbound.exchange("GET", target, _HEADERS) as reply:
                if reply.status not in _REDIRECTS:
                    return await self._body(target, reply)
                target = _redirected(target, reply)
        raise FetchFailed(f"the URL leads through more than {MAX_REDIRECTS} redirects")

    async def _body(self, target: Target, reply: Reply) -> bytes:
        if reply.status != 200:
            raise FetchFailed(f"{target.host!r} answered with status {reply.status}", reply.status)
        coding = reply.header("content-encoding") or "identity"
        if coding.lower() != "identity":
            raise FetchFailed(f"{target.host!r} sent the picture encoded as {coding[:40]!r}, which was not asked for")
        stated = int(reply.header("content-length") or 0)  # digits only: h11 has seen to it
        if stated > self._limit:
            raise UploadTooLarge(self._limit, stated)
        data = bytearray()
        async for chunk in reply.body:
            data += chunk
            if len(data) > self._limit:
                raise UploadTooLarge(self._limit)
        return bytes(data)


def _redirected(target: Target, reply: Reply) -> Target:
    """Raises FetchFailed for where it cannot lead, ForbiddenUrl for where it must not."""
    location = reply.header("location")
    if location is None:
        raise FetchFailed(f"{target.host!r} redirects without saying where to", reply.status)
    try:
        following = target.join(location)
    except InvalidUrl as error:
        raise FetchFailed(f"{target.host!r} redirects to no usable URL: {error}", reply.status) from error
    if target.scheme == "https" and following.scheme == "http":
        raise ForbiddenUrl(f"{target.host!r} redirects from https to http, which anybody on the way could change")
    return following
