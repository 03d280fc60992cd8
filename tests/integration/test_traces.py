"""One request, one trace: through gateway, Redis, worker and Triton as processes of their own, to a real collector."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
import tiny_model
from collector import Collector, Received, collecting
from fleet import PICTURES, Fleet, fleet
from pictures import encode, noise
from prometheus import prometheus
from redis_server import RedisServer, redis_server
from serving import HOST, Server, serving
from triton_server import install_configs, triton_server

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
FAILED = 2


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def processes(repository: Path, redis: RedisServer, collector: Collector) -> Iterator[Fleet]:
    with fleet(repository, redis, otlp_endpoint=collector.url, deadline_s=60) as processes:
        yield processes


def until_ready(gateway: Server) -> None:
    until = time.monotonic() + 60
    while not gateway.client.get("/readyz").is_success:
        assert time.monotonic() < until
        time.sleep(0.1)


def ask(gateway: Server, trace_id: str, *, flags: str = "01", **parameters: object) -> httpx.Response:
    headers = {"traceparent": f"00-{trace_id}-{token_hex(8)}-{flags}", "content-type": "image/png"}
    return gateway.client.post("/v1/complexity", content=PICTURES[0], headers=headers, params=parameters)


def traced_triton(collector: Collector) -> tuple[str, ...]:
    settings = ("mode=opentelemetry", "rate=1", "level=TIMESTAMPS", f"opentelemetry,url={collector.url}/v1/traces")
    further = ("opentelemetry,resource=service.name=triton", "opentelemetry,bsp_schedule_delay=200")
    return tuple(f"--trace-config={setting}" for setting in (*settings, *further))


def named(*names: str) -> Counter[str]:
    return Counter(names)


def tree(spans: list[Received]) -> dict[str, str]:
    """Name -> name of the span above, or "" for one that came with the request."""
    names = {span.id: span.name for span in spans}
    return {span.name: names.get(span.parent, "") for span in spans}


def assert_within(spans: list[Received]) -> None:
    """Each lies in the one above it: the clock is one machine's.

    When a wait in the queue began, the worker knows only as well as its way to Redis is short; and Triton goes on for
    a moment when it has answered.
    """
    by_id = {span.id: span for span in spans}
    for span in spans:
        assert span.ended >= span.began
        if above := by_id.get(span.parent):
            assert above.began - (5 if span.name == "queue" else 0) <= span.began
            assert span.ended <= above.ended or (span.service, above.service) == ("triton", "clicv2-worker")


def test_one_trace_from_the_upload_to_triton(tmp_path: Path, redis: RedisServer, collector: Collector) -> None:
    """Triton's own spans are in it too, where it is told to trace what comes with a traceparent."""
    models = install_configs(tiny_model.write(tmp_path))
    with (
        triton_server(models, *traced_triton(collector)) as triton,
        fleet(models, redis, otlp_endpoint=collector.url, deadline_s=60) as processes,
    ):
        gateway = processes.gateway()
        processes.worker(triton_url=triton.url, backend_stall_s=30, backend_timeout_s=30)
        until_ready(gateway)
        trace_id = token_hex(16)
        answer = ask(gateway, trace_id, heatmap="png").raise_for_status()
        ours = {"POST /v1/complexity", "decode", "job", "queue", "infer", "triton", "render"}
        every = ours | {"InferRequest", "clicv2", "compute"}
        collector.wait_for(lambda spans: every <= {span.name for span in spans if span.trace_id == trace_id})
    spans = collector.trace(trace_id)
    assert Counter(span.name for span in spans) == named(*every)
    assert tree(spans) == {
        "POST /v1/complexity": "",
        "decode": "POST /v1/complexity",
        "job": "POST /v1/complexity",
        "queue": "job",
        "infer": "job",
        "triton": "infer",
        "render": "POST /v1/complexity",
        "InferRequest": "triton",
        "clicv2": "InferRequest",
        "compute": "clicv2",
    }
    assert_within(spans)
    found = {span.name: span for span in spans}
    root = found["POST /v1/complexity"]
    assert root.parent != ""
    assert (root.kind, root.facts["http.route"], root.facts["http.response.status_code"]) == (
        SERVER,
        "/v1/complexity",
        200,
    )
    assert root.facts["clicv2.request_id"] == answer.headers["x-request-id"]
    assert found["queue"].facts["clicv2.job_id"] == found["job"].facts["clicv2.job_id"] == answer.json()["id"]
    assert found["triton"].kind == CLIENT
    assert {span.name: span.service for span in spans if span.name in ("job", "queue", "triton")} == {
        "job": "clicv2-gateway",
        "queue": "clicv2-worker",
        "triton": "clicv2-worker",
    }
    others = {span.service for span in collector.spans if span.trace_id != trace_id}
    assert others <= {"triton"}, "probes are nobody's trace"
    assert not any(PICTURES[0] in body or b"heatmap" in body for body in collector.bodies), "nor what was asked"


def test_a_batch_serves_several_traces(redis: RedisServer, tmp_path: Path, collector: Collector) -> None:
    """The work is in the first one's trace, and those of the others lead to it."""
    slow = tiny_model.write(tmp_path, work=20)
    with fleet(
        slow, redis, otlp_endpoint=collector.url, deadline_s=60, max_batch_size=8, max_batch_delay_s=0.5
    ) as processes:
        gateway = processes.gateway()
        processes.worker()
        until_ready(gateway)
        traces = [token_hex(16) for _ in range(9)]
        callers = [threading.Thread(target=ask, args=(gateway, one)) for one in traces]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        collector.wait_for(lambda spans: Counter(span.name for span in spans)["POST /v1/complexity"] == len(traces))
        collector.wait_for(lambda spans: Counter(span.name for span in spans)["infer"] == len(traces))
    for one in traces:
        spans = collector.trace(one)
        assert Counter(span.name for span in spans) == named("POST /v1/complexity", "decode", "job", "queue", "infer")
        assert tree(spans)["infer"] == tree(spans)["queue"] == "job"
    infers = [span for span in collector.spans if span.name == "infer"]
    largest = max(int(span.facts["clicv2.batch_size"]) for span in infers)
    assert largest > 1, "no two were computed together"
    leads = {f"{span.trace_id}/{span.id}": span for span in infers}
    jobs = {f"{span.trace_id}/{span.id}" for span in collector.spans if span.name == "job"}
    led = [span for span in infers if len(span.links) == 1 and span.links[0] in leads]
    for span in led:
        lead = leads[span.links[0]]
        assert lead.facts["clicv2.batch_size"] == span.facts["clicv2.batch_size"] == len(lead.links) + 1
        assert set(lead.links) <= jobs
        assert f"{span.trace_id}/{span.parent}" in lead.links
        assert (span.began, span.ended) == (pytest.approx(lead.began, abs=5), pytest.approx(lead.ended, abs=5))
    assert len(led) >= largest - 1


def test_who_is_traced_decides_who_asked_first(processes: Fleet, collector: Collector) -> None:
    gateway = processes.gateway(otlp_ratio=0)
    processes.worker()
    until_ready(gateway)
    unwanted, wanted = token_hex(16), token_hex(16)
    ask(gateway, unwanted, flags="00").raise_for_status()
    gateway.score(PICTURES[0]).raise_for_status()
    for bad in ("", "00-", f"00-{'0' * 32}-{'0' * 16}-01", f"ff-{wanted}-{token_hex(8)}-01", "x" * 5000, "00-\xff"):
        gateway.client.get("/v1/models", headers={"traceparent": bad.encode("latin-1")}).raise_for_status()
    ask(gateway, wanted).raise_for_status()
    collector.wait_for(lambda spans: {"POST /v1/complexity", "infer"} <= {span.name for span in spans})
    assert {span.trace_id for span in collector.spans} == {wanted}


def test_what_fails_is_marked(processes: Fleet, collector: Collector) -> None:
    gateway = processes.gateway()
    trace_id = token_hex(16)
    assert ask(gateway, trace_id).status_code == 503  # there is no worker
    collector.wait_for(lambda spans: any(span.name.startswith("POST") for span in spans))
    found = {span.name: span for span in collector.trace(trace_id)}
    assert found["POST /v1/complexity"].status == found["job"].status == FAILED
    assert found["job"].facts["error.type"] == "NoWorker"
    assert found["decode"].status != FAILED


def test_each_picture_of_a_job_is_a_trace(repository: Path, collector: Collector) -> None:
    """The embedded service: the same spans, in one process."""
    with serving(repository, otlp_endpoint=collector.url) as server:
        files = [("file", (f"{n}.png", encode(noise(64, 64, n), "PNG"), "image/png")) for n in range(3)]
        made = server.client.post("/v1/jobs", files=files)
        job_id = made.raise_for_status().json()["id"]
        items = collector.wait_for(lambda spans: Counter(span.name for span in spans)["item"] == 3)
        items = [span for span in items if span.name == "item"]
    assert len({span.trace_id for span in items}) == 3
    for item in items:
        assert item.facts["clicv2.api_job_id"] == job_id
        assert item.facts["clicv2.request_id"] == made.headers["x-request-id"]
        assert tree(collector.trace(item.trace_id)) == {
            "item": "",
            "decode": "item",
            "job": "item",
            "queue": "job",
            "infer": "job",
        }


def test_a_figure_leads_to_its_trace(processes: Fleet, collector: Collector) -> None:
    """By exemplars, which Prometheus asks for, keeps, and gives to Grafana."""
    worker = processes.worker()
    gateway = processes.gateway()
    until_ready(gateway)
    traces = {token_hex(16) for _ in range(3)}
    with prometheus({"gateway": [f"{HOST}:{gateway.port}"], "worker": [f"{HOST}:{worker.port}"]}) as seen:
        for one in traces:
            ask(gateway, one, heatmap="png").raise_for_status()
        expected = {"upload", "decode", "queue", "inference", "render", "total", "/v1/complexity"}

        def led() -> set[str]:
            found = seen.exemplars('{__name__=~"clicv2_.+_bucket"}')
            assert {exemplar["trace_id"] for _, exemplar in found} <= traces, "probes are nobody's trace"
            return {series.get("stage") or series["route"] for series, _ in found}

        seen.wait_for(lambda: led() >= expected, "something leads nowhere")
    collector.wait_for(lambda spans: traces <= {span.trace_id for span in spans})


def test_a_collector_that_is_away_costs_nobody_anything(repository: Path, collector: Collector) -> None:
    collector.status = 503
    with serving(repository, otlp_endpoint=collector.url, drain_notice_s=0) as server:
        for picture in PICTURES:
            server.score(picture).raise_for_status()
        assert server.end() == 0
    assert not collector.spans
    with serving(repository, otlp_endpoint=f"http://{HOST}:1", drain_notice_s=0) as server:
        server.score(PICTURES[0]).raise_for_status()
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 20  # what is promised for an exit


def test_what_is_not_wanted_is_not_imported(repository: Path) -> None:
    with serving(repository) as server:
        server.score(PICTURES[0]).raise_for_status()
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        threads = {task.read_text().strip() for task in Path(f"/proc/{server.process.pid}/task").glob("*/comm")}
    assert "protobuf" not in maps
    assert not any("OtelBatch" in thread for thread in threads)
