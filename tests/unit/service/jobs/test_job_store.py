"""What every store of jobs does, in memory and in a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from secrets import token_hex

import pytest
from jobs import LEASE_S, OPTIONS, Stores, begin, job_limits
from redis_server import RedisServer

from service.errors import JobsFull, JobShareTaken, JobTooLarge, KeyReused, Unavailable, UnknownJob
from service.jobs.protocol import Draft, Earlier, End, JobLimits, Lease, LeaseLost, Source, Store

pytestmark = pytest.mark.anyio

GOOD = End(True, b'{"index":0,"name":"a","result":{}}', b'{"index":0,"name":"a","score":0.5}')
BAD = End(False, b'{"index":1,"name":"b","problem":{}}', b'{"index":1,"name":"b","problem":"urn:x"}')
LIMITS = job_limits(lease_s=60)  # no test waits so long, however busy its machine is
BRIEF = job_limits(lease_s=LEASE_S)
TWO = {"a": b"A" * 100, "b": b"B" * 2000}


@asynccontextmanager
async def opened(stores: Stores, limits: JobLimits = LIMITS) -> AsyncIterator[Store]:
    """A store that holds nothing at its end but what the test says."""
    store = stores.make(limits)
    try:
        yield store
    finally:
        await store.close()


async def claimed(store: Store) -> Lease:
    """The job whose lease is free, or runs out soon."""
    async with asyncio.timeout(30):
        while (lease := await store.claim()) is None:  # noqa: ASYNC110  # as drivers ask
            await asyncio.sleep(0.02)
    return lease


async def test_from_upload_to_end(stores: Stores) -> None:
    async with opened(stores) as store:
        job = await begin(store, TWO)
        facts = (await store.look(job, "ann")).facts
        assert (facts.status, facts.items, facts.left, facts.ended_at) == ("waiting", 2, 2, None)
        assert facts.expires_at == pytest.approx(facts.created_at + LIMITS.ttl_s)

        lease = await claimed(store)
        assert (lease.job_id, lease.options, lease.request_id) == (job, OPTIONS, "request")
        assert (list(lease.left), lease.abandoned) == ([(0, 0), (1, 0)], False)
        assert (await store.look(job, "ann")).facts.status == "running"

        taken = await store.take(lease, 1)
        assert taken is not None
        assert (taken.source.name, taken.source.data, taken.attempt) == ("b", TWO["b"], 1)
        await store.finish(lease, 1, BAD)
        await store.take(lease, 0)
        await store.finish(lease, 0, GOOD)

        page = await store.look(job, "ann", 0, 10)
        assert list(page.results) == [BAD.result, GOOD.result], "in the order in which they were done"
        facts = page.facts
        assert (facts.status, facts.scored, facts.failed, facts.left) == ("done", 1, 1, 0)
        assert facts.ended_at is not None
        assert facts.expires_at == pytest.approx(facts.ended_at + LIMITS.ttl_s)
        assert (await store.look(job, "ann", 1, 10)).results == [GOOD.result]
        assert not (await store.look(job, "ann", 2, 10)).results
        assert await store.claim() is None


async def test_events(stores: Stores) -> None:
    async with opened(stores) as store:
        job = await begin(store, TWO)
        assert not await store.events(job, "ann", 0, 0.05)
        waiting = asyncio.create_task(store.events(job, "ann", 0, 20))
        lease = await claimed(store)
        await store.finish(lease, 0, GOOD)
        (first,) = await waiting
        assert (first.id, first.kind, first.summary, first.scored, first.failed) == (1, "item", GOOD.summary, 1, 0)
        await store.finish(lease, 1, BAD)
        found = await store.events(job, "ann", 1, 20)
        assert [(event.id, event.kind, event.scored, event.failed) for event in found] == [
            (2, "item", 1, 1),
            (3, "end", 1, 1),
        ]
        assert found[-1].summary == b"done"
        assert len(await store.events(job, "ann", 0, 20)) == 3


async def test_nobody_else_sees_a_job(stores: Stores) -> None:
    async with opened(stores) as store:
        job = await begin(store, TWO)
        for other in ("bob", ""):
            for call in (store.look(job, other), store.events(job, other, 0, 0.01), store.forget(job, other)):
                with pytest.raises(UnknownJob):
                    await call
        with pytest.raises(UnknownJob):
            await store.look("0" * 32, "ann")
        assert (await store.look(job, "ann")).facts.items == 2


async def test_an_upload_is_no_job_yet(stores: Stores) -> None:
    async with opened(stores) as store:
        draft = Draft("draft", "ann", OPTIONS)
        await store.begin(draft, None)
        await store.add(draft.id, 0, Source("a", b"A"))
        with pytest.raises(UnknownJob):
            await store.look(draft.id, "ann")
        assert await store.claim() is None
        await store.forget(draft.id, "ann")
        with pytest.raises(UnknownJob):
            await store.add(draft.id, 1, Source("b", b"B"))
        with pytest.raises(UnknownJob):
            await store.submit(draft.id, None, "d")
        assert await store.held_bytes() == 0
        assert stores.left() == []


async def test_items_refused_during_the_upload_count(stores: Stores) -> None:
    async with opened(stores) as store:
        draft = Draft("one", "ann", OPTIONS, result_bytes=1000)
        await store.begin(draft, None)
        await store.refuse(draft.id, BAD)
        await store.add(draft.id, 1, Source("a", url="https://example.com/ä"))
        await store.submit(draft.id, None, "d")
        lease = await claimed(store)
        assert list(lease.left) == [(1, 0)]
        taken = await store.take(lease, 1)
        assert taken is not None
        assert (taken.source.url, taken.source.data) == ("https://example.com/ä", None)
        await store.finish(lease, 1, GOOD)
        assert [event.kind for event in await store.events("one", "ann", 0, 1)] == ["item", "item", "end"]

        await store.begin(Draft("none", "ann", OPTIONS), None)
        await store.refuse("none", BAD)
        await store.submit("none", None, "d")
        assert (await store.look("none", "ann")).facts.status == "done"
        assert await store.claim() is None


async def test_a_result_is_written_once(stores: Stores) -> None:
    """Whoever's lease ran out may still be at work, and his connection may break so that he asks twice."""
    async with opened(stores, BRIEF) as store, opened_again(stores, store, BRIEF) as other:
        job = await begin(store, TWO)
        zombie = await claimed(store)
        await store.take(zombie, 0)
        await store.finish(zombie, 0, GOOD)
        await store.finish(zombie, 0, GOOD)
        assert await other.claim() is None, "the lease is held"
        lease = await claimed(other)
        assert lease.abandoned
        assert list(lease.left) == [(1, 0)], "only what has no result"
        assert await other.take(lease, 0) is None
        assert not (await store.renew(zombie)).held
        for late in (store.take(zombie, 1), store.finish(zombie, 1, GOOD)):
            with pytest.raises(LeaseLost):
                await late
        await store.release(zombie, [1])
        assert (await other.renew(lease)).held, "a release by who has lost it changes nothing"
        await other.finish(lease, 1, BAD)
        await other.finish(lease, 1, BAD)
        with pytest.raises(LeaseLost):
            await store.finish(zombie, 1, GOOD)
        assert list((await store.look(job, "ann", 0, 9)).results) == [GOOD.result, BAD.result]
        assert len(await store.events(job, "ann", 0, 1)) == 3


async def test_a_renewed_lease_holds(stores: Stores) -> None:
    lease_s = 3 * LEASE_S
    async with opened(stores, replace(LIMITS, lease_s=lease_s)) as store:
        await begin(store, TWO)
        lease = await claimed(store)
        for _ in range(6):
            await asyncio.sleep(lease_s / 4)
            renewed = await store.renew(lease)
            assert (renewed.held, renewed.waiting) == (True, 0)
            assert await store.claim() is None
        await begin(store, TWO)
        assert (await store.renew(lease)).waiting == 1


async def test_a_released_job_is_free_at_once_and_behind_the_others(stores: Stores) -> None:
    async with opened(stores) as store:
        first = await begin(store, TWO)
        await asyncio.sleep(0.01)
        second = await begin(store, TWO)
        lease = await claimed(store)
        assert lease.job_id == first
        await store.take(lease, 0)
        await store.take(lease, 1)
        await asyncio.sleep(0.01)
        await store.release(lease, [1])
        assert (await claimed(store)).job_id == second
        again = await claimed(store)
        assert (again.job_id, list(again.left), again.abandoned) == (first, [(0, 1), (1, 0)], False)


async def test_attempts_are_counted_over_drivers(stores: Stores) -> None:
    async with opened(stores, BRIEF) as store:
        await begin(store, {"bomb": b"x"})
        for attempt in (1, 2, 3):
            lease = await claimed(store)
            assert list(lease.left) == [(0, attempt - 1)]
            taken = await store.take(lease, 0)
            assert taken is not None
            assert taken.attempt == attempt


async def test_an_idempotency_key_makes_one_job(stores: Stores) -> None:
    async with opened(stores) as store:
        first = await begin(store, TWO, slot="slot", digest="same")
        assert await store.begin(Draft("later", "ann", OPTIONS), "slot") == Earlier(first, "same")
        with pytest.raises(UnknownJob):
            await store.add("later", 0, Source("a", b"A"))

        # Two at once: neither knows of the other until one has been submitted.
        for name in ("x", "y", "z"):
            await store.begin(Draft(name, "ann", OPTIONS), "race")
            await store.add(name, 0, Source("a", b"A"))
        assert await store.submit("x", "race", "same") == "x"
        assert await store.submit("y", "race", "same") == "x"
        with pytest.raises(KeyReused):
            await store.submit("z", "race", "other")
        for gone in ("y", "z"):
            with pytest.raises(UnknownJob):
                await store.look(gone, "ann")

        await store.forget("x", "ann")
        assert await store.begin(Draft("anew", "ann", OPTIONS), "race") is None


async def test_forgetting_leaves_nothing(stores: Stores) -> None:
    async with opened(stores) as store:
        job = await begin(store, TWO, slot="slot")
        lease = await claimed(store)
        await store.take(lease, 0)
        watching = asyncio.create_task(store.events(job, "ann", 0, 0.5))
        await asyncio.sleep(0.05)
        await store.forget(job, "ann")
        with pytest.raises(UnknownJob):
            await watching
        for late in (store.take(lease, 1), store.finish(lease, 0, GOOD)):
            with pytest.raises(LeaseLost):
                await late
        assert not (await store.renew(lease)).held
        await store.release(lease, [0])
        with pytest.raises(UnknownJob):
            await store.look(job, "ann")
        assert await store.claim() is None
        assert await store.held_bytes() == 0
        assert stores.left() == []


async def test_what_is_held_is_counted(stores: Stores) -> None:
    async with opened(stores) as store:
        assert await store.held_bytes() == 0
        job = await begin(store, TWO)
        full = await store.held_bytes()
        assert full > 2100 + 2 * 1000, "pictures, and room for their results"
        lease = await claimed(store)
        await store.finish(lease, 1, BAD)
        less = await store.held_bytes()
        assert less == full - 2000 - 1000 + len(BAD.result)
        await store.finish(lease, 0, GOOD)
        assert await store.held_bytes() == less - 100 - 1000 + len(GOOD.result)
        await store.forget(job, "ann")
        assert await store.held_bytes() == 0


async def test_bytes_of_all_jobs_are_bounded(stores: Stores) -> None:
    limits = replace(LIMITS, held_bytes=12_000, share=1.0)
    async with opened(stores, limits) as store:
        job = await begin(store, TWO)
        draft = Draft("draft", "bob", OPTIONS)
        await store.begin(draft, None)
        for call in (
            lambda: store.add(draft.id, 0, Source("c", bytes(6_000))),
            lambda: store.refuse(draft.id, replace(BAD, result=bytes(6_000))),
        ):
            with pytest.raises(JobsFull) as refusal:
                await call()
            assert (refusal.value.reason, refusal.value.maximum) == ("job-bytes", 12_000)
        await store.forget(job, "ann")
        await store.add(draft.id, 0, Source("c", bytes(6_000)))
        await store.forget(draft.id, "bob")
        assert await store.held_bytes() == 0
        job = await begin(store, {"a": bytes(7_000)})
        with pytest.raises(JobsFull):
            await store.begin(draft, None)
        await store.forget(job, "ann")


async def test_a_job_that_could_never_be_held_is_told_apart(stores: Stores) -> None:
    """Whoever waits for room that can never be there waits for ever."""
    async with opened(stores, replace(LIMITS, held_bytes=20_000, share=0.5)) as store:
        await begin(store, TWO)
        for owner, most in (("bob", 10_000), ("", 20_000)):
            draft = Draft(token_hex(16), owner, OPTIONS)
            await store.begin(draft, None)
            for call in (
                lambda draft=draft, most=most: store.add(draft.id, 0, Source("c", bytes(most))),
                lambda draft=draft, most=most: store.refuse(draft.id, replace(BAD, result=bytes(most))),
            ):
                with pytest.raises(JobTooLarge) as refusal:
                    await call()
                assert refusal.value.facts() == {"limit": "job-bytes", "maximum": most}
            await store.forget(draft.id, owner)


async def test_nobody_holds_more_than_his_share(stores: Stores) -> None:
    async with opened(stores, replace(LIMITS, held_bytes=20_000, share=0.5)) as store:
        job = await begin(store, TWO)
        draft = Draft("draft", "ann", OPTIONS)
        await store.begin(draft, None)
        for call in (
            lambda: store.add(draft.id, 0, Source("c", bytes(2_000))),
            lambda: store.refuse(draft.id, replace(BAD, result=bytes(2_000))),
        ):
            with pytest.raises(JobShareTaken) as refusal:
                await call()
            assert refusal.value.facts() == {"limit": "job-share", "share_of": "job-bytes", "maximum": 10_000}
        # What is full for one is not for another, and what another gives back is not his.
        await store.forget(await begin(store, {"c": bytes(2_000)}, owner="bob"), "bob")
        other = await begin(store, {"c": bytes(2_000)}, owner="bob")
        with pytest.raises(JobShareTaken):
            await store.add(draft.id, 0, Source("c", bytes(2_000)))
        # An end gives way to its result, and what is forgotten gives back all.
        lease = await claimed(store)
        await store.finish(lease, 1, BAD)
        await store.add(draft.id, 0, Source("c", bytes(2_000)))
        await store.forget(draft.id, "ann")
        await store.forget(job, "ann")
        again = await begin(store, {"c": bytes(5_000)})
        await store.forget(again, "ann")
        await store.forget(other, "bob")
        assert await store.held_bytes() == 0
        assert stores.left() == []


async def test_nobody_has_more_unfinished_jobs_than_his_share(stores: Stores) -> None:
    async with opened(stores, replace(LIMITS, open_at_once=4, share=0.5)) as store:
        await store.begin(Draft("upload", "ann", OPTIONS), None)
        job = await begin(store, {"a": b"A"})
        with pytest.raises(JobShareTaken) as refusal:
            await store.begin(Draft("third", "ann", OPTIONS), None)
        assert refusal.value.facts() == {"limit": "job-share", "share_of": "jobs", "maximum": 2}
        lease = await claimed(store)
        assert lease.job_id == job
        await begin(store, {"b": b"B"}, owner="bob")
        await store.finish(lease, 0, GOOD)
        await store.begin(Draft("third", "ann", OPTIONS), None)
        await begin(store, {"b": b"B"}, owner="bob")
        with pytest.raises(JobsFull) as full:
            await store.begin(Draft("fifth", "bob", OPTIONS), None)
        assert full.value.reason == "jobs", "nobody has room"


async def test_callers_who_are_not_told_apart_have_no_share(stores: Stores) -> None:
    async with opened(stores, replace(LIMITS, open_at_once=2, held_bytes=20_000, share=0.1)) as store:
        await begin(store, {"a": bytes(5_000)}, owner="")
        await begin(store, {"a": bytes(5_000)}, owner="")
        with pytest.raises(JobsFull) as refusal:
            await store.begin(Draft("third", "", OPTIONS), None)
        assert refusal.value.reason == "jobs"


async def test_unfinished_jobs_are_bounded(stores: Stores) -> None:
    async with opened(stores, replace(LIMITS, open_at_once=2, share=1.0)) as store:
        await store.begin(Draft("upload", "ann", OPTIONS), None)
        await begin(store, {"a": b"A"})
        with pytest.raises(JobsFull) as refusal:
            await store.begin(Draft("third", "bob", OPTIONS), None)
        assert (refusal.value.reason, refusal.value.maximum) == ("jobs", 2)
        lease = await claimed(store)
        await store.finish(lease, 0, GOOD)
        assert await store.begin(Draft("third", "bob", OPTIONS), None) is None, "what has ended does not count"


async def test_jobs_grow_old(stores: Stores) -> None:
    """An open job expires, keeps what it has for as long again, and is forgotten; so is an ended one."""
    limits = replace(LIMITS, ttl_s=1.2)
    async with opened(stores, limits) as store:
        job = await begin(store, TWO)
        lease = await claimed(store)
        await store.finish(lease, 0, GOOD)
        await asyncio.sleep(1.3)
        assert await store.claim() is None
        with pytest.raises(LeaseLost):
            await store.finish(lease, 1, BAD)
        page = await store.look(job, "ann", 0, 9)
        assert (page.facts.status, page.facts.left, list(page.results)) == ("expired", 1, [GOOD.result])
        assert (await store.events(job, "ann", 1, 1))[-1].summary == b"expired"
        await asyncio.sleep(1.3)
        assert await store.claim() is None
        with pytest.raises(UnknownJob):
            await store.look(job, "ann")
        assert await store.held_bytes() == 0
        assert stores.left() == []


async def test_an_upload_that_was_left_is_forgotten(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("redis", "memory"):
        monkeypatch.setattr(f"service.jobs.{module}.GRACE_S", 0.0)
    async with opened(stores, replace(LIMITS, upload_s=0.8)) as store:
        await store.begin(Draft("left", "ann", OPTIONS), None)
        await store.add("left", 0, Source("a", b"A"))
        await asyncio.sleep(0.9)
        await store.claim()
        assert await store.held_bytes() == 0
        if stores.redis:  # the picture goes by its own time
            assert all(b":picture:" in key for key in stores.left())


async def test_webhooks(stores: Stores) -> None:
    async with opened(stores) as store, opened_again(stores, store) as other:
        await store.begin(Draft("job", "ann", OPTIONS, webhook="https://example.com/"), None)
        await store.add("job", 0, Source("a", b"A"))
        await store.submit("job", None, "d")
        assert (await store.look("job", "ann")).facts.hook == "pending"
        assert await store.claim_hook(60) is None, "not before its end"
        lease = await claimed(store)
        await store.finish(lease, 0, GOOD)

        hook = await store.claim_hook(0.8)
        assert hook is not None
        assert (hook.url, hook.attempt, hook.facts.id, hook.facts.status) == ("https://example.com/", 1, "job", "done")
        assert await other.claim_hook(0.8) is None, "it is under way"
        await asyncio.sleep(0.9)  # whoever had it is dead
        second = await other.claim_hook(60)
        assert second is not None
        assert second.attempt == 2
        await store.settle_hook(hook, "failed", "late")
        assert (await store.look("job", "ann")).facts.hook == "pending", "fenced"
        await other.settle_hook(second, "pending", "status 500", 0.8)
        assert (await store.look("job", "ann")).facts.hook_detail == "status 500"
        assert await other.claim_hook(60) is None
        await asyncio.sleep(0.9)
        third = await store.claim_hook(60)
        assert third is not None
        await store.settle_hook(third, "delivered", "status 200")
        facts = (await store.look("job", "ann")).facts
        assert (facts.hook, facts.hook_attempts, facts.hook_detail) == ("delivered", 3, "status 200")
        await store.forget("job", "ann")
        await store.settle_hook(third, "delivered")
        assert await store.claim_hook(60) is None


async def test_jobs_outlive_redis_and_its_absence_is_said(redis: RedisServer) -> None:
    stores = Stores(redis, f"test-{token_hex(4)}")
    async with opened(stores, BRIEF) as store:
        job = await begin(store, TWO)
        lease = await claimed(store)
        await store.finish(lease, 0, GOOD)
        redis.kill()
        with pytest.raises(Unavailable, match="jobs"):
            await store.look(job, "ann")
        redis.start()
        assert list((await store.look(job, "ann", 0, 9)).results) == [GOOD.result]
        taken = await store.take(await claimed(store), 1)
        assert taken is not None
        assert taken.source.data == TWO["b"]


async def test_a_full_redis_takes_no_upload_and_loses_no_result(redis: RedisServer) -> None:
    stores = Stores(redis, f"test-{token_hex(4)}")
    async with opened(stores) as store:
        job = await begin(store, TWO)
        lease = await claimed(store)
        redis.client.config_set("maxmemory", 1)
        try:
            with pytest.raises(Unavailable):
                await store.begin(Draft("more", "ann", OPTIONS), None)
            await store.finish(lease, 0, GOOD)
            await store.finish(lease, 1, BAD)
        finally:
            redis.client.config_set("maxmemory", 0)
        assert len((await store.look(job, "ann", 0, 9)).results) == 2


async def test_what_was_deleted_by_hand_stops_nobody(redis: RedisServer) -> None:
    stores = Stores(redis, f"test-{token_hex(4)}")
    async with opened(stores) as store:
        first = await begin(store, TWO)
        await asyncio.sleep(0.01)
        second = await begin(store, TWO)
        for kind in ("job:", "picture:"):
            for key in redis.client.scan_iter(f"{{{stores.prefix}}}:bulk:{kind}{first}*"):
                redis.client.delete(key)
        assert await store.claim() is None
        lease = await claimed(store)
        assert lease.job_id == second
        redis.client.delete(f"{{{stores.prefix}}}:bulk:picture:{second}:0")
        taken = await store.take(lease, 0)
        assert taken is not None
        assert taken.source.data == b"", "which is an item's error, and not an endless one"


@asynccontextmanager
async def opened_again(stores: Stores, store: Store, limits: JobLimits = LIMITS) -> AsyncIterator[Store]:
    """The same jobs, as another gateway has them; in memory there is one."""
    if stores.redis is None:
        yield store
        return
    async with opened(stores, limits) as other:
        yield other
