"""Many pictures that nobody waits for: `client.jobs`."""

from collections.abc import AsyncGenerator, Generator, Iterable
from functools import partial
from typing import Unpack

from clicv2_client import calls
from clicv2_client.asking import Asking, AsyncAsking
from clicv2_client.calls import JobOptions, Terms
from clicv2_client.exchange import Call
from clicv2_client.options import DEFAULT_SUBMIT_TIMEOUT_S
from clicv2_client.pictures import Picture
from clicv2_client.results import Job, JobEvent, JobItem


class Jobs:
    """The jobs of a service.

    >>> job = client.jobs.submit(["photo.png", "sky.png", "notes.txt"])
    >>> client.jobs.wait(job.id).counts
    JobCounts(items=3, scored=2, failed=1, left=0)
    >>> for item in sorted(client.jobs.results(job.id), key=lambda item: item.index):
    ...     print(item.index, item.name, type(item.error).__name__)
    0 photo.png NoneType
    1 sky.png NoneType
    2 notes.txt UnsupportedImage
    >>> client.jobs.delete(job.id)
    """

    def __init__(self, asking: Asking, timeout_s: float) -> None:
        self._asking = asking
        self._timeout_s = timeout_s

    def submit(
        self,
        pictures: Iterable[Picture],
        *,
        timeout_s: float = DEFAULT_SUBMIT_TIMEOUT_S,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Send pictures to be scored later; or URLs, all of them. Returns when the service has them.

        Args:
            pictures: a file is read when it is its turn, not before.
            timeout_s: of the upload.
            idempotency_key: makes one job of several calls with the same pictures; a call has one of its own.
            options: see `JobOptions`.
        """
        return self._asking.ask(calls.submit(list(pictures), Terms(timeout_s, idempotency_key), **options))

    def submit_archive(
        self,
        archive: Picture,
        *,
        timeout_s: float = DEFAULT_SUBMIT_TIMEOUT_S,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Send a zip, a tar or a tar.gz of pictures to be scored later.

        Args:
            archive: a path, bytes, or a binary file object.
            options: see `JobOptions`.
        """
        return self._asking.ask(calls.submit_archive(archive, Terms(timeout_s, idempotency_key), **options))

    def get(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """How a job stands."""
        return self._asking.ask(calls.job(job_id, self._terms(timeout_s)))

    def results(
        self, job_id: str, *, offset: int = 0, timeout_s: float | None = None
    ) -> Generator[JobItem, None, None]:
        """The results that there are by now, in the order in which they were done; some at a time are held.

        >>> job = client.jobs.wait(client.jobs.submit(["photo.png", "sky.png"]).id)
        >>> [item.unwrap().score for item in client.jobs.results(job.id, offset=2)]
        []

        Args:
            offset: how many to skip: who comes back later goes on where he was, and misses none.
            timeout_s: of each page.
        """
        more = True
        while more:
            page = self._asking.ask(calls.results(job_id, offset, self._terms(timeout_s)))
            yield from page.results
            offset += len(page.results)
            more = page.page.next is not None

    def events(self, job_id: str, *, after: int = 0, timeout_s: float | None = None) -> Generator[JobEvent, None, None]:
        """What happens to a job, as it happens, until it has ended. A stream that breaks is taken up again.

        >>> job = client.jobs.submit(["photo.png"])
        >>> [event.kind for event in client.jobs.events(job.id)][-2:]
        ['item', 'end']

        Args:
            after: `id` of the last event that is known.
            timeout_s: until its end; None: however long it takes, but a service that is out of reach for a minute is an
                error.
        """
        return self._asking.listen(calls.events(job_id, self._terms(None)), after, timeout_s)

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Return when the job has ended: `done` or `expired`.

        A service that restarts meanwhile is waited for. One that keeps its jobs in Redis goes on with this one; any
        other has forgotten it, and that is an `errors.UnknownJob`: submit it again.

        Args:
            timeout_s: None: however long it takes, but a service that is out of reach for a minute is an error.
        """
        return self._asking.run(self._asking.exchange.until_ended(partial(_look, job_id), timeout_s))

    def delete(self, job_id: str, *, timeout_s: float | None = None) -> None:
        """Cancel and forget a job, its pictures and its results."""
        self._asking.ask(calls.delete(job_id, self._terms(timeout_s)))

    def _terms(self, timeout_s: float | None) -> Terms:
        return Terms(self._timeout_s if timeout_s is None else timeout_s)


class AsyncJobs:
    """The jobs of a service, from asyncio. The methods are those of `Jobs`, where they are explained.

    >>> async def counts(client):
    ...     job = await client.jobs.submit(["photo.png", "sky.png"])
    ...     return (await client.jobs.wait(job.id)).counts.scored
    >>> run(counts)
    2
    """

    def __init__(self, asking: AsyncAsking, timeout_s: float) -> None:
        self._asking = asking
        self._timeout_s = timeout_s

    async def submit(
        self,
        pictures: Iterable[Picture],
        *,
        timeout_s: float = DEFAULT_SUBMIT_TIMEOUT_S,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """`Jobs.submit`."""
        return await self._asking.ask(calls.submit(list(pictures), Terms(timeout_s, idempotency_key), **options))

    async def submit_archive(
        self,
        archive: Picture,
        *,
        timeout_s: float = DEFAULT_SUBMIT_TIMEOUT_S,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """`Jobs.submit_archive`."""
        return await self._asking.ask(calls.submit_archive(archive, Terms(timeout_s, idempotency_key), **options))

    async def get(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """`Jobs.get`."""
        return await self._asking.ask(calls.job(job_id, self._terms(timeout_s)))

    async def results(
        self, job_id: str, *, offset: int = 0, timeout_s: float | None = None
    ) -> AsyncGenerator[JobItem, None]:
        """`Jobs.results`."""
        more = True
        while more:
            page = await self._asking.ask(calls.results(job_id, offset, self._terms(timeout_s)))
            for item in page.results:
                yield item
            offset += len(page.results)
            more = page.page.next is not None

    def events(self, job_id: str, *, after: int = 0, timeout_s: float | None = None) -> AsyncGenerator[JobEvent, None]:
        """`Jobs.events`. Who breaks off closes it, with `contextlib.aclosing`."""
        return self._asking.listen(calls.events(job_id, self._terms(None)), after, timeout_s)

    async def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """`Jobs.wait`."""
        return await self._asking.run(self._asking.exchange.until_ended(partial(_look, job_id), timeout_s))

    async def delete(self, job_id: str, *, timeout_s: float | None = None) -> None:
        """`Jobs.delete`."""
        await self._asking.ask(calls.delete(job_id, self._terms(timeout_s)))

    def _terms(self, timeout_s: float | None) -> Terms:
        return Terms(self._timeout_s if timeout_s is None else timeout_s)


def _look(job_id: str, timeout_s: float) -> Call[Job]:
    return calls.job(job_id, Terms(timeout_s))
