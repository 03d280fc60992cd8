"""Spans: which is above which, what goes with a job, and what they cost where nobody wants them."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from secrets import token_hex

import numpy as np
import pytest
from collector import Collector, Received, collecting
from hypothesis import given
from hypothesis import strategies as st
from redis_server import RedisServer, redis_server
from scripted import pixels

from service import tracing
from service.otlp import OtlpTracer
from service.queue.keys import Keys
from service.queue.protocol import Job
from service.queue.redis import RedisQueue
from service.queue.wire import name_caller, trace_of

pytestmark = pytest.mark.anyio

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
FAILED = 2


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def sent(tracer: OtlpTracer, collector: Collector) -> dict[str, Received]:
    tracer.close()
    assert max(Counter(span.name for span in collector.spans).values(), default=0) <= 1
    return {span.name: span for span in collector.spans}


async def test_spans_lie_in_one_another_across_tasks(collector: Collector) -> None:
    tracer = OtlpTracer(collector.url, "test")

    async def work(name: str) -> str | None:
        with tracing.span(name, {"one": 1}):
            await asyncio.sleep(0.001)
            return tracing.trace_id()

    assert tracing.trace_id() is None
    with tracing.within(tracer.begin("top", {}, "server", parent=PARENT)):
        assert tracing.traceparent().startswith(f"00-{'ab' * 16}-")
        assert await asyncio.gather(work("a"), work("b")) == ["ab" * 16] * 2
        inside = asyncio.create_task(work("c"))
        with tracing.span("d"), pytest.raises(ValueError, match="bad"), tracing.span("e"):
            raise ValueError("bad")
        await inside
    assert tracing.trace_id() is None
    assert tracing.traceparent() == ""
    assert await work("outside") is None
    spans = sent(tracer, collector)
    assert spans.keys() == {"top", "a", "b", "c", "d", "e"}
    assert {span.trace_id for span in spans.values()} == {"ab" * 16}
    assert spans["top"].parent == "cd" * 8
    assert {spans[name].parent for name in "abcd"} == {spans["top"].id}
    assert spans["e"].parent == spans["d"].id
    assert spans["a"].facts == {"one": 1}
    assert (spans["e"].status, spans["e"].why, spans["e"].facts) == (FAILED, "bad", {"error.type": "ValueError"})
    assert spans["d"].status != FAILED


async def test_who_is_cancelled_has_not_failed(collector: Collector) -> None:
    tracer = OtlpTracer(collector.url, "test")

    async def work() -> None:
        with tracing.within(tracer.begin("top", {}, "server")):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    top = sent(tracer, collector)["top"]
    assert top.status != FAILED
    assert top.facts == {"error.type": "CancelledError"}


def test_what_is_over_began_before(collector: Collector) -> None:
    tracer = OtlpTracer(collector.url, "test")
    tracing.over(tracer, "queue", {}, parent=PARENT, took_s=2.5)
    tracing.over(tracer, "nobody's", {}, parent="", took_s=2.5)
    tracing.over(None, "unwanted", {}, parent=PARENT, took_s=2.5)
    (span,) = sent(tracer, collector).values()
    assert span.ended - span.began == pytest.approx(2.5, abs=0.5)
    assert span.parent == "cd" * 8


@pytest.mark.parametrize("parents", [[], [""], ["", ""]])
def test_work_for_nobody_who_is_traced(collector: Collector, parents: list[str]) -> None:
    tracer = OtlpTracer(collector.url, "test")
    with tracing.shared(tracer, "infer", {}, parents):
        assert tracing.trace_id() is None
    assert sent(tracer, collector) == {}


def test_shared_work_fails_for_all(collector: Collector) -> None:
    tracer = OtlpTracer(collector.url, "test")
    traces = [token_hex(16) for _ in range(3)]
    parents = [f"00-{one}-{token_hex(8)}-01" for one in traces]
    with suppress(RuntimeError), tracing.shared(tracer, "infer", {}, ["", *parents]):
        assert tracing.trace_id() == traces[0]
        raise RuntimeError("broken")
    tracer.close()
    lead, *others = sorted(collector.spans, key=lambda span: traces.index(span.trace_id))
    assert [span.trace_id for span in (lead, *others)] == traces
    assert {span.why for span in (lead, *others)} == {"broken"}
    assert len(lead.links) == 2
    assert [span.links for span in others] == [(f"{lead.trace_id}/{lead.id}",)] * 2


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("flags", ["00", "01"])
def test_who_sent_a_traceparent_has_decided(ratio: float, flags: str, collector: Collector) -> None:
    tracer = OtlpTracer(collector.url, "test", ratio=ratio)
    asked = tracer.begin("asked", {}, "server", parent=PARENT[:-2] + flags)
    own = tracer.begin("own", {}, "server")
    assert (asked is not None) is (flags == "01")
    assert (own is not None) is (ratio == 1)
    tracer.close()


@given(st.text(max_size=80) | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True), st.data())
def test_a_key_tells_the_trace_that_its_name_has(trace: str, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, 10**9))
    well_formed = bool(trace_of(f"/{trace}".encode()))
    key = Keys("clicv2").pixels(name_caller("host-1-ab", number, trace)).encode()
    assert trace_of(key) == (trace if well_formed else "")
    for gateway in ("host-1-ab", f"host/{PARENT}", f"host/{trace}"):
        assert trace_of(Keys("clicv2").pixels(name_caller(gateway, number, "")).encode()) == ""


@pytest.mark.parametrize("trace", ["", PARENT])
async def test_a_job_takes_its_trace_through_redis(redis: RedisServer, trace: str) -> None:
    redis.client.flushall()
    gateway, worker = (
        RedisQueue(redis.url, capacity=10, lease_s=60, max_attempts=3, result_ttl_s=0, timeout_s=30) for _ in range(2)
    )
    await worker.present(True)
    now = asyncio.get_running_loop().time()
    job = Job("one", pixels(7), now + 60, now, trace=trace)
    await gateway.admit(job)
    (lease,) = await worker.lease(5)
    assert lease.job.trace == trace
    assert np.array_equal(lease.job.pixels, job.pixels)
    await gateway.cancel(job)
    assert not [key for key in redis.client.scan_iter() if b"pixels" in key or b"job:" in key]
    await gateway.close()
    await worker.close()


def test_what_is_not_wanted_is_not_imported() -> None:
    """FastAPI has OpenTelemetry's API of its own accord, and redis-py its figures, where they are installed."""
    script = """
import sys
import service.app, service.cli, service.worker, service.triton_client, service.jobs.runner
assert not {"service.otlp", "opentelemetry.sdk.trace", "opentelemetry.exporter"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
