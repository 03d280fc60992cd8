"""A real Prometheus watches a real stack under load: gateways, a worker, Redis with its exporter, and Triton.

Every expression of every panel is asked, and has an answer; what cannot have one here is named below.
"""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import dashboards
import httpx
import numpy as np
import pytest
import tiny_model
import yaml
from dashboards import Asked
from fleet import fleet
from pictures import encode, noise
from prometheus import CONFIG, HOST, ROOT, Prometheus, prometheus, redis_exporter
from redis_server import redis_server
from serving import Server, serving
from triton_server import install_configs, triton_server

from docs.dashboard import draw
from service import keys

PICTURES = [encode(noise(64, 64, seed) // (seed + 1), "PNG") for seed in range(8)]
BROKEN = PICTURES[0][:100]
BLACK = encode(np.zeros((64, 64, 3), np.uint8), "PNG")
RUNBOOKS = sorted(set((ROOT / "docs/runbooks").glob("*.md")) - {ROOT / "docs/runbooks/in-kubernetes.md"})
# Triton has these only where there is a GPU. Where there is none, what these panels ask is judged against the names
# that Triton's documentation has (user guide, metrics), and its answer is not.
OF_GPUS = {
    "nv_gpu_utilization",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_power_usage",
    "nv_gpu_power_limit",
}
ASKED = list(dashboards.asked("20s"))
NEED_GPU = [asked for asked in ASKED if "nv_gpu_" in asked.expression]


@dataclass
class Watched:
    """The stack, Prometheus, and what the callers have counted themselves: pictures by status, and forbidden URLs."""

    gateways: list[Server]
    worker: Server
    prometheus: Prometheus
    statuses: Counter[int]
    urls: int

    @property
    def pictures(self) -> int:
        return self.statuses[200]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    repository = install_configs(tiny_model.write(tmp_path_factory.mktemp("watched"), poison=True))
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        redis.client.config_set("maxmemory", 256 << 20)
        triton = stack.enter_context(triton_server(repository))
        settings = {"triton_url": triton.url, "backend_stall_s": 5, "cache_bytes": 1 << 20, "url_input": "true"}
        processes = stack.enter_context(fleet(repository, redis, **settings))
        worker = processes.worker()
        gateways = [processes.gateway() for _ in range(2)]
        targets = {
            "gateway": [f"{HOST}:{gateway.port}" for gateway in gateways],
            "worker": [f"{HOST}:{worker.port}"],
            "triton": [f"{HOST}:{triton.ports[2]}"],
            "redis": [stack.enter_context(redis_exporter(redis.url))],
        }
        seen = stack.enter_context(prometheus(targets))
        for gateway in gateways:
            _wait_until_ready(gateway)
        yield Watched(gateways, worker, seen, *_load(gateways, seen))


def _wait_until_ready(server: Server) -> None:
    until = time.monotonic() + 60
    while not server.client.get("/readyz").is_success:
        assert time.monotonic() < until, server.printed()
        time.sleep(0.1)


def _load(gateways: list[Server], seen: Prometheus, for_s: float = 12) -> tuple[Counter[int], int]:
    """Pictures of all kinds, and URLs that lead where none may, between two moments in which everything was scraped."""
    scrapes = "min(count_over_time(up[1m]))"
    seen.wait_for(lambda: (seen.value(scrapes) or 0) >= 2, "nothing was scraped")
    started = time.monotonic()

    def one(caller: int) -> tuple[Counter[int], int]:
        statuses: Counter[int] = Counter()
        urls = 0
        number = caller
        with httpx.Client(base_url=f"http://{HOST}:{gateways[caller % 2].port}", timeout=60) as client:
            while time.monotonic() - started < for_s:
                data = (*PICTURES, BROKEN, BLACK)[number % 10]
                answer = client.post(
                    "/v1/complexity", content=data, headers={"Content-Type": "image/png"}, params={"heatmap": "png"}
                )
                statuses[answer.status_code] += 1
                if number % 10 == 0:
                    refused = client.post("/v1/complexity", json={"url": "http://127.0.0.1/picture.png"})
                    assert refused.json()["type"] == "urn:clicv2:problem:forbidden-url"
                    urls += 1
                number += 1
                time.sleep(0.05)
        return statuses, urls

    with ThreadPoolExecutor(4) as callers:
        counted = list(callers.map(one, range(4)))
    scraped = (seen.value("sum(count_over_time(up[10m]))") or 0) + 8
    seen.wait_for(lambda: (seen.value("sum(count_over_time(up[10m]))") or 0) >= scraped, "scraping has ended")
    return sum((statuses for statuses, _ in counted), Counter()), sum(urls for _, urls in counted)


@pytest.mark.parametrize("asked", [asked for asked in ASKED if asked not in NEED_GPU], ids=str)
def test_every_panel_has_an_answer(watched: Watched, asked: Asked) -> None:
    assert watched.prometheus.query(asked.expression), "nothing"
    now = time.time()
    curves = watched.prometheus.curves(asked.expression, now - 15, now, 1)
    assert any(math.isfinite(value) for _, points in curves for _, value in points), "no number"


@pytest.mark.parametrize("asked", NEED_GPU, ids=str)
def test_a_panel_of_a_gpu_asks_what_could_be_answered(watched: Watched, asked: Asked) -> None:
    answer = watched.prometheus.query(asked.expression)  # fails if it is no expression
    assert set(re.findall(r"\bnv_gpu_\w+", asked.expression)) <= OF_GPUS
    if Path("/dev/nvidia0").exists():
        assert answer, "nothing, and there is a GPU"


def test_the_overview_is_drawn_and_says_what_is_wrong(watched: Watched) -> None:
    """As docs/dashboard.py draws it, which is how the layout is looked at where there is no Grafana."""
    now, board = time.time(), json.loads((dashboards.FOLDER / "overview.json").read_text())
    figure = draw(board, watched.prometheus.client, now - 20, now, "20s")
    figure.savefig(BytesIO())
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    rules = yaml.safe_load((CONFIG / "rules/alerts.yml").read_text())["groups"][0]["rules"]
    [dead] = [rule for rule in rules if rule["alert"] == "DeadLetters"]
    assert f"DeadLetters: {dead['annotations']['summary']}" in texts, "a black picture has no answer"
    tiles = [axes.texts[0].get_text() for axes in figure.axes[:8]]
    assert tiles[1:6] == ["2", "1", "1", "1", "0"]  # gateways, workers, Redis, Triton, breakers


def test_the_figures_are_the_callers_own(watched: Watched) -> None:
    ask = watched.prometheus.value
    assert watched.statuses.keys() == {200, 422, 500}  # good, broken, and one for which the model has no answer
    for status, count in (watched.statuses + Counter({422: watched.urls})).items():
        assert ask(f'sum(clicv2_requests_total{{route="/v1/complexity",status="{status}"}})') == count
    assert ask("sum(clicv2_score_count)") == watched.pictures
    assert ask("sum(clicv2_entropy_count)") == watched.pictures
    assert ask("sum(clicv2_score_deciles_total)") == watched.pictures
    assert ask("sum(clicv2_image_pixels_sum)") == watched.pictures * 64 * 64
    assert ask('sum(clicv2_stage_duration_seconds_count{stage="total"})') == watched.pictures
    assert ask("sum(clicv2_decode_failures_total)") == watched.statuses[422]
    assert ask('sum(clicv2_upload_bytes_count{route="/v1/complexity"})') == watched.statuses.total() + watched.urls
    assert ask('sum(clicv2_fetch_duration_seconds_count{outcome="forbidden"})') == watched.urls > 0
    computed = ask('sum(clicv2_cache_lookups_total{result="miss"})')
    probes = ask("sum(clicv2_probes_total)")
    assert computed is not None
    assert probes is not None
    assert ask('sum(clicv2_jobs_finished_total{outcome="answered"})') == computed + probes
    assert ask("sum(abs(clicv2:jobs_unaccounted:difference))") == 0
    assert ask("count(clicv2:jobs_unaccounted:difference)") == 3  # the worker admits nothing, and says so


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_what_a_runbook_asks_can_be_asked(watched: Watched, page: Path) -> None:
    text = page.read_text()
    expressions = re.findall(r"promtool query instant http://127\.0\.0\.1:9090 '(.*)'$", text, re.MULTILINE)
    assert len(expressions) == text.count("promtool query")
    assert expressions
    for expression in expressions:
        watched.prometheus.query(expression)


def test_every_process_is_seen(watched: Watched) -> None:
    found = {labels["job"]: value for labels, value in watched.prometheus.query("sum by (job) (up)")}
    assert found == {"gateway": 2, "worker": 1, "triton": 1, "redis": 1}


def test_the_key_of_the_scope_admin_opens_the_figures(tmp_path: Path, repository: Path) -> None:
    entry, key = keys.make("prometheus", "admin")
    keys.add(tmp_path / "keys.json", entry)
    (tmp_path / "prometheus.key").write_text(f"{key}\n")  # as `clicv2 keys create` prints it
    (tmp_path / "wrong.key").write_text("clicv2_wrong\n")
    with serving(repository, auth="on", keys_file=tmp_path / "keys.json") as gateway:
        for file, up in (("prometheus.key", 1), ("wrong.key", 0)):
            with prometheus({"gateway": [f"{HOST}:{gateway.port}"]}, tmp_path / file) as seen:
                seen.wait_for(lambda: seen.value("up") is not None, "nothing was scraped")
                assert seen.value("up") == up
