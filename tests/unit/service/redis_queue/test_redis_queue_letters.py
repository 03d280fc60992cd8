"""What the queue between processes sets aside: jobs that killed their workers, and what cannot be read."""

import time

import numpy as np
import pytest
from queues import CLIC, LEASE_S, Ends, answer, closing, new_job, score
from redis_server import RedisServer

from service.queue import redis as module
from service.queue import wire
from service.queue.protocol import Failure, Reason
from service.queue.redis import RedisQueue

pytestmark = pytest.mark.anyio


async def test_a_dead_letter_can_be_examined(redis: RedisServer, brief: Ends) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    await brief.admit(new_job("refused", pixels=pixels), new_job("deadly", pixels=pixels))
    refused, _ = await brief.worker.lease(2)
    await brief.worker.finish(refused, Failure(Reason.DEAD, "indigestible"))
    assert (await brief.worker.lease(1))[0].job.attempt == 2
    assert not await brief.worker.lease(1, time.monotonic() + 2 * LEASE_S)
    letters = [fields for _, fields in redis.client.xrange(CLIC.dead)]
    assert [(letter[b"id"], letter[b"attempts"]) for letter in letters] == [(b"refused", b"1"), (b"deadly", b"2")]
    assert letters[0][b"detail"] == b"indigestible"
    assert b"2 attempts" in letters[1][b"detail"]
    for letter in letters:
        assert np.array_equal(wire.decode_pixels(letter[b"pixels"]), pixels)


async def test_dead_letters_are_so_many_at_most(redis: RedisServer) -> None:
    async with closing(
        RedisQueue(redis.url, capacity=50, lease_s=5, max_attempts=2, result_ttl_s=1, dead_letters=3, timeout_s=10)
    ) as (queue,):
        await queue.present(True)
        for value in range(5):
            await queue.admit(new_job(f"{value}"))
            (lease,) = await queue.lease(1)
            await queue.finish(lease, Failure(Reason.DEAD, "indigestible"))
        assert [fields[b"id"] for _, fields in redis.client.xrange(CLIC.dead)] == [b"2", b"3", b"4"]


async def test_a_job_that_cannot_be_read_is_set_aside(
    redis: RedisServer, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ends.worker.present(True)
    job, good = new_job("bad"), new_job("good")
    with monkeypatch.context() as newer:
        newer.setattr(module, "encode_pixels", lambda _: b"CJ\x63")
        await ends.admit(job)
    redis.client.xadd(CLIC.jobs, {"what": "is this"})
    await ends.admit(good)
    (lease,) = await ends.worker.lease(10)
    assert lease.job.id == "good"
    outcome = await ends.gateway.result(job)
    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.DEAD
    assert "version 99" in outcome.detail
    assert redis.client.xlen(CLIC.jobs) == 1
    assert redis.client.xlen(CLIC.dead) == 1


async def test_an_answer_that_cannot_be_read_is_told_and_harms_nobody_else(redis: RedisServer, ends: Ends) -> None:
    (job,) = await ends.admit_new("a")
    (field,) = [name for name in redis.client.hkeys(CLIC.job("a")) if name not in (b"entry", b"pixels")]
    redis.client.xadd(CLIC.answers("gateway"), {"not": "ours"})
    redis.client.xadd(CLIC.answers("gateway"), {"caller": field, "outcome": b"CA\x63"})
    outcome = await ends.gateway.result(job)
    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.UNAVAILABLE
    assert "version 99" in outcome.detail
    (after,) = await ends.admit_new("b")
    leases = await ends.worker.lease(2)
    for lease in leases:
        await ends.worker.finish(lease, answer(0.25))
    assert score(await ends.gateway.result(after)) == 0.25
