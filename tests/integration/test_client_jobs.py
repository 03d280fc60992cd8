"""Jobs through the SDK, against a gateway that listens on a port of this process."""

import asyncio
import doctest
import io
import itertools
import tarfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import clicv2_client.jobs
import httpx
import pytest
from clicv2_client import AsyncClient, Client, TimedOut, errors
from clicv2_client.results import JobEvent
from jobs import Gateway, gateway, job_limits
from pictures import encode
from proxy import Fault, proxy
from scripted import ScriptedBackend, pixels

from clicv2 import contract
from service.catalog import Catalog
from service.jobs.memory import MemoryStore
from service.jobs.protocol import JobLimits

pytestmark = pytest.mark.anyio
MARKS = (0, 50, 100, 150, 200)
PICTURES = [encode(pixels(mark), "PNG") for mark in MARKS]
SCORES = [mark / 250 for mark in MARKS]
LIMITS = job_limits(lease_s=0.5, poll_s=0.1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def running(repository: Path, *, limits: JobLimits = LIMITS, call_s: float = 0.0) -> AsyncIterator[Gateway]:
    backend = ScriptedBackend(contract.open_version(repository / "clicv2").manifest, call_s=call_s)
    catalog = Catalog(repository / "clicv2")
    async with gateway(catalog, backend, MemoryStore(limits), limits=limits, over_http=True) as served:
        yield served


def url(served: Gateway) -> str:
    return str(served.client.base_url)


async def test_from_pictures_to_results(repository: Path) -> None:
    async with running(repository) as served, AsyncClient(url(served)) as client:
        job = await client.jobs.submit([*PICTURES, b"text"], heatmap="grid")
        assert job.status == "waiting"
        assert not job.ended
        ended = await client.jobs.wait(job.id, timeout_s=60)
        assert (ended.status, ended.counts.scored, ended.counts.failed, ended.counts.left) == ("done", 5, 1, 0)
        assert ended == await client.jobs.get(job.id)
        found = sorted([item async for item in client.jobs.results(job.id)], key=lambda item: item.index)
        assert [item.unwrap().score for item in found[:5]] == pytest.approx(SCORES)
        assert found[0].unwrap().heatmap is not None
        assert isinstance(found[5].error, errors.UnsupportedImage)
        with pytest.raises(errors.UnsupportedImage):
            found[5].unwrap()
        assert [item async for item in client.jobs.results(job.id, offset=6)] == []
        events = [event async for event in client.jobs.events(job.id)]
        assert [event.kind for event in events] == ["job", *["item"] * 6, "end"]
        assert [event async for event in client.jobs.events(job.id, after=events[-1].id or 0)] == [], "a 204"
        await client.jobs.delete(job.id)
        for again in (client.jobs.get(job.id), client.jobs.delete(job.id), client.jobs.wait(job.id)):
            with pytest.raises(errors.UnknownJob):
                await again
        with pytest.raises(errors.UnknownJob):
            await anext(client.jobs.events(job.id))


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as packed:
            for number, picture in enumerate(PICTURES):
                packed.writestr(f"{number}.png", picture)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as tar:
        for number, picture in enumerate(PICTURES):
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(picture)
            tar.addfile(entry, io.BytesIO(picture))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
async def test_archives(repository: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"pictures.{kind}"
    path.write_bytes(archive(kind))
    async with running(repository) as served, AsyncClient(url(served)) as client:
        job = await client.jobs.submit_archive(path)
        await client.jobs.wait(job.id)
        found = sorted([item async for item in client.jobs.results(job.id)], key=lambda item: item.index)
        assert [item.unwrap().score for item in found] == pytest.approx(SCORES)


async def test_many_results_come_by_page(repository: Path) -> None:
    limits = job_limits(lease_s=0.5, poll_s=0.1, max_page=7)
    async with running(repository, limits=limits) as served, AsyncClient(url(served)) as client:
        job = await client.jobs.wait((await client.jobs.submit(PICTURES * 6)).id)
        found = [item.index async for item in client.jobs.results(job.id)]
        assert sorted(found) == list(range(30))


async def test_what_cannot_be_submitted(repository: Path) -> None:
    async with running(repository) as served, AsyncClient(url(served)) as client:
        with pytest.raises(errors.UnreadablePicture, match="two jobs"):
            await client.jobs.submit([PICTURES[0], "https://example.com/a.png"])
        with pytest.raises(errors.UrlInputDisabled):
            await client.jobs.submit(["https://example.com/a.png"])
        with pytest.raises(errors.WebhooksDisabled):
            await client.jobs.submit(PICTURES, webhook="https://example.com/hook")
        with pytest.raises(errors.MissingFile):
            await client.jobs.submit([])
        with pytest.raises(errors.UnreadablePicture):
            await client.jobs.submit([PICTURES[0], "missing.png"])
        with pytest.raises(TypeError, match="heatmaps"):
            await client.jobs.submit(PICTURES, heatmaps="grid")  # type: ignore[call-arg]


class Forgetful(httpx.AsyncBaseTransport):
    """Loses the first answers on their way back: the service has done what was asked, and nobody knows."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self._real = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._real.handle_async_request(request)
        if self.losses:
            self.losses -= 1
            await response.aread()
            await response.aclose()
            raise httpx.ReadError("lost", request=request)
        return response

    async def aclose(self) -> None:
        await self._real.aclose()


async def test_an_answer_that_is_lost_makes_no_second_job(repository: Path) -> None:
    async with running(repository) as served:
        transport = Forgetful(losses=2)
        async with AsyncClient(url(served), transport=transport) as client:
            job = await client.jobs.submit(PICTURES)
            assert transport.losses == 0
            assert served.count("clicv2_requests_total", route="/v1/jobs", method="POST", status="202") == 3
            await client.jobs.wait(job.id)
            assert served.count("clicv2_jobs_admitted_total") == len(PICTURES)
            transport.losses = 1
            await client.jobs.delete(job.id)  # it is gone by the second attempt, which is what was asked for
            with pytest.raises(errors.UnknownJob):
                await client.jobs.get(job.id)


async def test_events_go_on_after_the_network_has_failed(repository: Path) -> None:
    async with running(repository, call_s=0.05) as served:
        port = served.client.base_url.port
        assert port is not None
        with proxy(port) as network:
            async with AsyncClient(f"http://127.0.0.1:{network.port}") as client:
                job = await client.jobs.submit(PICTURES * 6)
                events: list[JobEvent] = []
                async for event in client.jobs.events(job.id, timeout_s=60):
                    events.append(event)
                    if event.id in (5, 15):
                        await asyncio.to_thread(network.impose, Fault.RESET if event.id == 5 else Fault.CUT)
                        asyncio.get_running_loop().call_later(0.2, lambda: setattr(network, "fault", Fault.NONE))
        assert [event.id for event in events if event.id is not None] == list(range(1, 32)), "each once"
        assert events[-1].kind == "end"
        assert sum(event.kind == "job" for event in events) >= 3, "the stream was broken twice"


async def test_who_waits_no_longer_is_told(repository: Path) -> None:
    async with running(repository, call_s=0.5) as served, AsyncClient(url(served)) as client:
        job = await client.jobs.submit(PICTURES * 4)
        with pytest.raises(TimedOut, match="left"):
            await client.jobs.wait(job.id, timeout_s=0.5)
        with pytest.raises(TimedOut):
            _ = [event async for event in client.jobs.events(job.id, timeout_s=0.7)]
        await client.jobs.delete(job.id)


async def test_a_job_that_is_deleted_ends_its_events(repository: Path) -> None:
    async with running(repository, call_s=0.2) as served, AsyncClient(url(served)) as client:
        job = await client.jobs.submit(PICTURES * 4)
        events = []
        async for event in client.jobs.events(job.id, timeout_s=60):
            events.append(event)
            if len(events) == 2:
                await client.jobs.delete(job.id)
        assert (events[-1].kind, events[-1].status) == ("end", "deleted")


async def test_the_same_in_a_thread(repository: Path) -> None:
    def use(base_url: str) -> None:
        with Client(base_url) as client:
            job = client.jobs.submit(PICTURES)
            kinds = [event.kind for event in client.jobs.events(job.id, timeout_s=60)]
            assert kinds == ["job", *["item"] * 5, "end"]
            assert client.jobs.wait(job.id) == client.jobs.get(job.id)
            assert sorted(item.index for item in client.jobs.results(job.id)) == list(range(5))
            first = list(itertools.islice(client.jobs.events(job.id), 2))
            assert [event.id for event in first] == [None, 1]
            client.jobs.delete(job.id)
            with pytest.raises(errors.UnknownJob):
                list(client.jobs.events(job.id))

    async with running(repository) as served:
        await asyncio.to_thread(use, url(served))


async def test_examples_of_the_docstrings(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.png").write_bytes(PICTURES[4])
    (tmp_path / "sky.png").write_bytes(PICTURES[0])
    (tmp_path / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)

    def examples(base_url: str) -> doctest.TestResults:
        def run(use: object) -> object:
            async def inside() -> object:
                async with AsyncClient(base_url) as client:
                    return await use(client)  # type: ignore[operator]

            return asyncio.run(inside())

        with Client(base_url) as client:
            return doctest.testmod(clicv2_client.jobs, extraglobs={"client": client, "run": run})

    async with running(repository) as served:
        result = await asyncio.to_thread(examples, url(served))
    assert (result.failed, result.attempted > 5) == (0, True)
