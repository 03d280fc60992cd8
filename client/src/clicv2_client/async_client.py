"""Ask a service from asyncio: `Client`, awaited."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from types import TracebackType
from typing import Self, Unpack

import httpx

from clicv2_client import calls
from clicv2_client.asking import AsyncAsking
from clicv2_client.calls import CompareOptions, HeatmapOptions, ScoreOptions, Terms
from clicv2_client.errors import Clicv2Error
from clicv2_client.jobs import AsyncJobs
from clicv2_client.many import Scored, in_order_async
from clicv2_client.options import DEFAULT_MANY_TIMEOUT_S, DEFAULT_TIMEOUT_S, Options
from clicv2_client.pictures import Picture
from clicv2_client.results import Batch, Comparison, Complexity, HeatmapPicture, Model
from clicv2_client.retry import PATIENT, Retry


class AsyncClient:
    """A complexity service, from asyncio. Its methods are those of `Client`, where they are explained.

    >>> import asyncio
    >>> from clicv2_client import AsyncClient
    >>> async def both():
    ...     async with AsyncClient() as client:
    ...         photo, sky = await asyncio.gather(client.score("photo.png"), client.score("sky.png"))
    ...     return photo.score > sky.score
    >>> asyncio.run(both())
    True

    Files are read, and arrays and PIL images encoded, in threads.

    Args:
        transport: `httpx.AsyncHTTPTransport(...)`, or `clicv2_client.testing.FakeService()`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry = PATIENT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        options = Options.of(base_url, api_key)
        self._url = options.base_url
        self._timeout_s = timeout_s
        self._asking = AsyncAsking(options, retry, transport)
        self.jobs = AsyncJobs(self._asking, timeout_s)

    def __repr__(self) -> str:
        return f"AsyncClient({str(self._url)!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._asking.close()

    async def score(
        self,
        picture: Picture,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Complexity:
        """`Client.score`."""
        return await self._asking.ask(calls.score(picture, self._terms(timeout_s, idempotency_key), **options))

    def score_many(
        self,
        pictures: Iterable[Picture] | AsyncIterable[Picture],
        *,
        concurrency: int = 8,
        timeout_s: float = DEFAULT_MANY_TIMEOUT_S,
        **options: Unpack[ScoreOptions],
    ) -> AsyncGenerator[Scored, None]:
        """`Client.score_many`; the pictures may come asynchronously.

        >>> async def first(client):
        ...     async for each in client.score_many(["photo.png", "sky.png"]):
        ...         return each.index
        >>> run(first)
        0

        Who breaks off and goes on with something else closes it, with `contextlib.aclosing`.
        """
        terms = self._terms(timeout_s, None)

        async def one(index: int, picture: Picture) -> Scored:
            try:
                return Scored(index, picture, result=await self._asking.ask(calls.score(picture, terms, **options)))
            except Clicv2Error as error:
                return Scored(index, picture, error=error)

        return in_order_async(pictures, one, concurrency)

    async def score_batch(
        self,
        pictures: Sequence[Picture],
        *,
        timeout_s: float = DEFAULT_MANY_TIMEOUT_S,
        idempotency_key: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Batch:
        """`Client.score_batch`."""
        return await self._asking.ask(calls.score_batch(pictures, self._terms(timeout_s, idempotency_key), **options))

    async def score_archive(
        self,
        archive: Picture,
        *,
        timeout_s: float = DEFAULT_MANY_TIMEOUT_S,
        idempotency_key: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Batch:
        """`Client.score_archive`."""
        return await self._asking.ask(calls.score_archive(archive, self._terms(timeout_s, idempotency_key), **options))

    async def heatmap(
        self,
        picture: Picture,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[HeatmapOptions],
    ) -> HeatmapPicture:
        """`Client.heatmap`."""
        return await self._asking.ask(calls.heatmap(picture, self._terms(timeout_s, idempotency_key), **options))

    async def compare(
        self,
        pictures: Sequence[Picture],
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[CompareOptions],
    ) -> Comparison:
        """`Client.compare`."""
        return await self._asking.ask(calls.compare(pictures, self._terms(timeout_s, idempotency_key), **options))

    async def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """`Client.models`."""
        return await self._asking.ask(calls.models(self._terms(timeout_s, None)))

    async def model(self, name: str = "clicv2", *, timeout_s: float | None = None) -> Model:
        """`Client.model`."""
        return await self._asking.ask(calls.model(name, self._terms(timeout_s, None)))

    def _terms(self, timeout_s: float | None, key: str | None) -> Terms:
        return Terms(self._timeout_s if timeout_s is None else timeout_s, key)
