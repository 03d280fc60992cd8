"""Gateways that come and go while they drive a job in a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from secrets import token_hex
from typing import Any

import orjson
import pytest
import tiny_model
from jobs import Gateway, Stores, begin, gateway, job_limits
from queues import eventually
from redis_server import RedisServer, redis_server
from scripted import ScriptedBackend
from uploads import flat, form

from clicv2 import contract
from clicv2.contract import Manifest
from service.answering import Answering
from service.catalog import Catalog
from service.errors import Unavailable
from service.jobs.protocol import JobLimits, Lease
from service.jobs.redis import RedisStore

pytestmark = pytest.mark.anyio

LIMITS = job_limits(lease_s=0.5, poll_s=0.1, lanes=2, driven=1)
MARKS = range(10, 130, 10)
PICTURES = {f"{mark}.png": flat(mark) for mark in MARKS}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as in production


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def stores(redis: RedisServer) -> Stores:
    return Stores(redis, f"test-{token_hex(4)}")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_model.write(tmp_path_factory.mktemp("model"))


@pytest.fixture
def catalog(repository: Any) -> Catalog:
    return Catalog(repository / "clicv2")


@pytest.fixture
def manifest(repository: Any) -> Manifest:
    return contract.open_version(repository / "clicv2").manifest


class Dead(RedisStore):
    """A store that a killed process had: nothing that it says arrives any more once it is dead."""

    dead = False

    async def release(self, lease: Lease, under_way: Any) -> None:
        if self.dead:
            raise Unavailable("killed")
        await super().release(lease, under_way)

    async def finish(self, lease: Lease, place: int, end: Any) -> None:
        if self.dead:
            await asyncio.Event().wait()
        await super().finish(lease, place, end)


Makes = Callable[..., Dead]


@pytest.fixture
async def mortal(stores: Stores) -> AsyncIterator[Makes]:
    """Makes stores of one Redis, and closes them at the end of the test, however that comes."""
    made: list[Dead] = []

    def make(limits: JobLimits = LIMITS) -> Dead:
        assert stores.redis
        made.append(Dead(stores.redis.url, limits, prefix=stores.prefix, timeout_s=5))
        return made[-1]

    yield make
    for store in made:
        await store.close()


async def posted(running: Gateway, files: Mapping[str, bytes] = PICTURES) -> str:
    accepted = await running.client.post("/v1/jobs", files=form(files))
    assert accepted.status_code == 202, accepted.text
    return str(accepted.headers["location"])


def assert_whole(document: Mapping[str, Any]) -> None:
    """Each picture has one result, and its own."""
    assert document["counts"] == {"items": len(MARKS), "scored": len(MARKS), "failed": 0, "left": 0}
    found = {item["name"]: item["result"]["score"] for item in document["results"]}
    assert len(document["results"]) == len(MARKS)
    assert found == {f"{mark}.png": pytest.approx(mark / 250, abs=1e-6) for mark in MARKS}


async def test_another_gateway_goes_on_with_what_is_left(mortal: Makes, catalog: Catalog, manifest: Manifest) -> None:
    """The first is killed: its lease runs out, and what it had done is not done again."""
    first, second = ScriptedBackend(manifest, call_s=0.03), ScriptedBackend(manifest)
    store = mortal()
    async with gateway(catalog, first, store, limits=LIMITS) as killed:
        path = await posted(killed)
        await killed.until(path, lambda document: document["counts"]["scored"] >= 4)
        store.dead = True
    store = mortal()
    page = await store.look(path.rpartition("/")[2], "", 0, 1000)
    before = {orjson.loads(result)["name"] for result in page.results}
    assert len(before) >= 4
    async with gateway(catalog, second, store, limits=LIMITS) as heir:
        assert_whole(await heir.until_done(path))
        assert heir.count("clicv2_api_jobs_taken_over_total") == 1
    again = {f"{mark}.png" for (mark,) in second.calls}
    assert not again & before, "only items that had no result yet"
    assert len(second.calls) == len(MARKS) - len(before)


async def test_a_gateway_that_ends_lets_go_at_once(mortal: Makes, catalog: Catalog, manifest: Manifest) -> None:
    """Its lease would last for a minute; and what was under way counts as not begun."""
    limits = replace(LIMITS, lease_s=60)
    store = mortal(limits)
    async with gateway(catalog, ScriptedBackend(manifest, call_s=0.05), store, limits=limits) as ending:
        path = await posted(ending)
        await ending.until(path, lambda document: document["counts"]["scored"] >= 2)
    free = await store.look(path.rpartition("/")[2], "")
    assert free.facts.status == "waiting"
    lease = await store.claim()
    assert lease is not None
    assert not lease.abandoned
    assert all(attempts == 0 for _, attempts in lease.left)
    await store.release(lease, [])
    async with gateway(catalog, ScriptedBackend(manifest), store, limits=limits) as heir:
        assert_whole(await heir.until_done(path))


async def test_a_gateway_that_drains_finishes_its_pictures_and_lets_go(
    mortal: Makes, catalog: Catalog, manifest: Manifest
) -> None:
    limits = replace(LIMITS, lease_s=60)
    store, other = mortal(limits), mortal(limits)
    backend = ScriptedBackend(manifest, call_s=0.1)
    async with gateway(catalog, backend, store, limits=limits) as draining:
        path = await posted(draining)
        await eventually(lambda: backend.calls)
        draining.service.door.drain()
        await eventually(lambda: draining.count("clicv2_api_jobs_driven") == 0)
        assert draining.service.door.in_flight == 0
        done = (await other.look(path.rpartition("/")[2], "")).facts.scored
        assert done == len(backend.calls), "what had begun was brought to its end"
        assert done < len(MARKS)
        async with gateway(catalog, ScriptedBackend(manifest), other, limits=limits) as heir:
            assert_whole(await heir.until_done(path))
        assert len(backend.calls) == done


async def test_a_zombie_writes_nothing(
    mortal: Makes, catalog: Catalog, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that stands still for longer than its lease, with a picture in its hands."""
    go, held = asyncio.Event(), asyncio.Event()
    store, other = mortal(), mortal()
    late: list[int] = []
    finish, renew = store.finish, store.renew

    async def slow_finish(lease: Lease, place: int, end: Any) -> None:
        held.set()
        await go.wait()
        late.append(place)
        await finish(lease, place, end)

    async def slow_renew(lease: Lease) -> Any:
        await go.wait()
        return await renew(lease)

    monkeypatch.setattr(store, "finish", slow_finish)
    monkeypatch.setattr(store, "renew", slow_renew)
    async with gateway(catalog, ScriptedBackend(manifest), store, limits=LIMITS) as zombie:
        path = await posted(zombie)
        await held.wait()
        zombie.service.door.drain()  # so that it does not claim the job again
        async with gateway(catalog, ScriptedBackend(manifest), other, limits=LIMITS) as heir:
            assert_whole(await heir.until_done(path))
            go.set()
            await eventually(lambda: zombie.count("clicv2_api_jobs_driven") == 0)
            assert late
            assert zombie.count("clicv2_api_job_items_total", outcome="scored") == 0
            assert_whole(await heir.until_done(path))


async def test_a_picture_that_kills_its_driver_is_found_out(
    mortal: Makes, catalog: Catalog, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each driver dies when it works on one of the pictures, with others under way. These are scored all the same."""
    bomb, deaths = 60, 0
    answer_intact = Answering.answer
    path, document = "", {}
    for _ in range(12):
        store = mortal()
        died = asyncio.Event()

        async def answer(self: Answering, data: bytes, *args: Any, died: asyncio.Event = died, **kwargs: Any) -> Any:
            if data == PICTURES[f"{bomb}.png"]:
                died.set()
                await asyncio.Event().wait()
            return await answer_intact(self, data, *args, **kwargs)

        monkeypatch.setattr(Answering, "answer", answer)
        async with gateway(catalog, ScriptedBackend(manifest), store, limits=LIMITS) as running:
            path = path or await posted(running)
            # One task, not two of which one is cancelled: whoever is cancelled within the gateway is answered 503.
            document = await running.until(path, lambda it, died=died: died.is_set() or it.get("status") == "done")
            if not died.is_set():
                break
            deaths += 1
            store.dead = True
    assert deaths == LIMITS.max_attempts
    assert document["counts"] == {"items": 12, "scored": 11, "failed": 1, "left": 0}
    (failed,) = [item for item in document["results"] if "problem" in item]
    assert (failed["name"], failed["problem"]["type"]) == (f"{bomb}.png", "urn:clicv2:problem:inference-failed")


async def test_events_go_on_at_another_gateway(mortal: Makes, catalog: Catalog, manifest: Manifest) -> None:
    store, other = mortal(), mortal()
    backend = ScriptedBackend(manifest, call_s=0.05)
    async with gateway(catalog, backend, store, limits=LIMITS, over_http=True) as first:
        path = await posted(first)
        heard: list[str] = []
        async with first.client.stream("GET", f"{path}/events", timeout=60) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("id: "):
                    heard.append(line[4:])
                if len(heard) == 3:
                    first.service.door.drain()
        assert heard[:3] == ["1", "2", "3"]
        async with gateway(catalog, backend, other, limits=LIMITS, over_http=True) as second:
            rest = await second.client.get(f"{path}/events", headers={"Last-Event-ID": heard[-1]}, timeout=60)
            heard += [line[4:] for line in rest.text.splitlines() if line.startswith("id: ")]
    assert heard == [str(number) for number in range(1, len(MARKS) + 2)], "each once"


async def test_redis_may_die(redis: RedisServer, mortal: Makes, catalog: Catalog, manifest: Manifest) -> None:
    store = mortal()
    async with gateway(catalog, ScriptedBackend(manifest, call_s=0.05), store, limits=LIMITS) as running:
        path = await posted(running)
        await running.until(path, lambda document: document["counts"]["scored"] >= 2)
        redis.kill()
        refused = await running.client.get(path)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:clicv2:problem:unavailable")
        redis.start()
        assert_whole(await running.until_done(path))


async def test_a_job_of_a_newer_release_is_left_to_its_gateways(
    mortal: Makes, catalog: Catalog, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.OPTIONS", '{"heatmap":"hologram"}')
    store = mortal()
    job = await begin(store, {"a": flat(1)}, owner="")
    monkeypatch.undo()
    async with gateway(catalog, ScriptedBackend(manifest), store, limits=LIMITS) as running:
        path = await posted(running)
        assert_whole(await running.until_done(path))
    assert (await store.look(job, "")).facts.left == 1
