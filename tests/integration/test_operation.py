"""Under load, with clients that leave, pictures that poison, and at the end: a real process each time."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from math import ceil
from pathlib import Path

import httpx
import numpy as np
import pytest
import tiny_model
from pictures import encode, noise
from serving import COMMAND, HOST, Server, serving

PICTURE = encode(noise(64, 64), "PNG")
BLACK = encode(np.zeros((64, 64, 3), np.uint8), "PNG")
IN_FLIGHT = 6


@pytest.fixture(scope="module")
def slow_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 0.4 s a picture."""
    return tiny_model.write(tmp_path_factory.mktemp("slow"), work=150)


@pytest.fixture(scope="module")
def slow(slow_repository: Path) -> Iterator[Server]:
    # On a busy machine the last of them waits for longer than the ten seconds that are the default.
    with serving(slow_repository, threads=1, max_batch_size=1, max_in_flight=IN_FLIGHT, deadline_s=60) as running:
        yield running


@pytest.fixture
def together() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def test_a_batch_gives_what_single_calls_give(repository: Path, together: ThreadPoolExecutor) -> None:
    pictures = [encode(noise(64, 64, seed) // (1 + seed), "PNG") for seed in range(24)]
    with serving(repository, threads=1, max_batch_size=8) as server:
        single = [server.score(picture, heatmap="grid").json() for picture in pictures]
        batched = list(together.map(lambda picture: server.score(picture, heatmap="grid").json(), pictures))
        assert server.metric("clicv2_batch_size_bucket", le="1.0") < server.metric("clicv2_batch_size_count")
        server.assert_metrics_add_up()
    for alone, in_batch in zip(single, batched, strict=True):
        assert in_batch["image"] == alone["image"]
        assert in_batch["score"] == pytest.approx(alone["score"], abs=1e-4)
        assert in_batch["entropy"] == pytest.approx(alone["entropy"], abs=1e-4)
        np.testing.assert_allclose(in_batch["heatmap"]["values"], alone["heatmap"]["values"], atol=2e-4)
    assert len({answer["score"] for answer in single}) == len(pictures)


def test_overload_is_refused_at_the_door(slow: Server, together: ThreadPoolExecutor) -> None:
    def timed(_: int) -> tuple[httpx.Response, float]:
        started = time.monotonic()
        return slow.score(PICTURE), time.monotonic() - started

    answers = list(together.map(timed, range(20)))
    assert {response.status_code for response, _ in answers} == {200, 429}
    accepted = [seconds for response, seconds in answers if response.status_code == 200]
    refused = [(response, seconds) for response, seconds in answers if response.status_code == 429]
    assert len(accepted) >= IN_FLIGHT
    for response, seconds in refused:
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["maximum"] == IN_FLIGHT
        assert response.json()["type"] == "urn:clicv2:problem:overloaded"
        assert seconds < max(accepted) / 2, "at once, and not after a while in a queue"
    assert slow.metric("clicv2_requests_shed_total") == len(refused)
    slow.assert_metrics_add_up()
    assert slow.score(PICTURE).status_code == 200


def test_who_disconnects_costs_nothing(slow: Server, together: ThreadPoolExecutor) -> None:
    """Three in the queue leave; the one being inferred stays."""
    inferred = slow.metric("clicv2_batch_size_sum")
    cancelled = slow.metric("clicv2_jobs_finished_total", outcome="cancelled")
    head = f"POST /v1/complexity HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/png\r\n"
    request = f"{head}Content-Length: {len(PICTURE)}\r\n\r\n".encode() + PICTURE
    staying = slow.connect()
    staying.sendall(request)
    slow.wait_for("clicv2_jobs_in_flight", 1)
    leaving = [slow.connect() for _ in range(3)]
    for connection in leaving:
        connection.sendall(request)
    slow.wait_for("clicv2_jobs_in_flight", 4)
    for connection in leaving:
        connection.close()
    slow.wait_for("clicv2_jobs_finished_total", cancelled + 3, outcome="cancelled")
    assert staying.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    staying.close()
    answers = together.map(slow.score, [PICTURE] * (IN_FLIGHT - 2))
    assert {answer.status_code for answer in answers} == {200}, "they take nobody's place either"
    assert slow.metric("clicv2_batch_size_sum") == inferred + 1 + IN_FLIGHT - 2
    slow.assert_metrics_add_up()


def test_an_idle_connection_is_kept_for_who_may_use_it_again(repository: Path) -> None:
    """Closed sooner than a proxy expects, the next picture that it sends there is answered 502."""
    with serving(repository) as server, serving(repository, keep_alive_s=1) as impatient:
        kept, closed = (HTTPConnection(HOST, process.port, timeout=10) for process in (server, impatient))
        with closing(kept), closing(closed):
            for connection in (kept, closed):
                connection.request("GET", "/livez")
                connection.getresponse().read()
            assert closed.sock.recv(1) == b""
            time.sleep(6)  # uvicorn by itself waits for 5
            kept.request("GET", "/livez")  # on the same connection: this client makes no other by itself
            assert kept.getresponse().read()


def test_the_deadline_is_kept(slow_repository: Path, together: ThreadPoolExecutor) -> None:
    with serving(slow_repository, threads=1, max_batch_size=1, deadline_s=1) as server:
        started = time.monotonic()
        answers = list(together.map(lambda _: server.score(PICTURE), range(16)))
        assert time.monotonic() - started < 5  # all of them would take 6.4 s
        late = [response for response in answers if response.status_code == 504]
        assert late
        assert late[0].json()["type"] == "urn:clicv2:problem:deadline-exceeded"
        assert server.metric("clicv2_jobs_finished_total", outcome="expired") == len(late)
        time.sleep(1)
        # Some were with the model when their deadline came (they did not all arrive at once); the rest never were.
        assert server.metric("clicv2_batch_size_sum") <= len(answers) - len(late) + 3
        server.assert_metrics_add_up()


def test_poison_stays_alone(tmp_path: Path, together: ThreadPoolExecutor) -> None:
    with serving(tiny_model.write(tmp_path, work=10, poison=True), threads=1, max_batch_size=8) as server:
        pictures = [PICTURE] * 7 + [BLACK] + [PICTURE] * 8
        answers = list(together.map(server.score, pictures))
        assert [response.status_code for response in answers] == [500 if p is BLACK else 200 for p in pictures]
        assert answers[7].json()["type"] == "urn:clicv2:problem:inference-failed"
        assert server.metric("clicv2_jobs_finished_total", outcome="dead") == 1
        assert server.score(PICTURE).status_code == 200
        server.assert_metrics_add_up()


def test_sigterm_finishes_what_is_in_flight(slow_repository: Path, together: ThreadPoolExecutor) -> None:
    with serving(slow_repository, threads=1, max_batch_size=1, drain_notice_s=1, deadline_s=30) as server:
        started = time.monotonic()
        server.score(PICTURE)
        # Six seconds of work: longer than the notice and what uvicorn waits by itself.
        pictures = min(32, ceil(6 / (time.monotonic() - started)))
        before = server.metric("clicv2_jobs_admitted_total")
        answers = [together.submit(server.score, PICTURE) for _ in range(pictures)]
        server.wait_for("clicv2_jobs_in_flight", pictures - 1)
        server.wait_for("clicv2_jobs_admitted_total", before + pictures)  # all: one that came later would be refused
        server.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 5
        while server.client.get("/readyz").status_code != 503:
            assert time.monotonic() < until, "it is still ready"
        refused = server.score(PICTURE)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:clicv2:problem:draining")
        assert server.client.get("/livez").status_code == 200
        assert [answer.result().status_code for answer in answers] == [200] * pictures
        answered = time.monotonic()
        assert server.process.wait(10) == 0
        assert time.monotonic() - answered < 5


def test_sigterm_does_not_wait_for_ever(slow_repository: Path, together: ThreadPoolExecutor) -> None:
    with serving(slow_repository, threads=1, max_batch_size=64, drain_timeout_s=0.5, deadline_s=60) as server:
        answers = [together.submit(server.score, PICTURE) for _ in range(32)]
        server.wait_for("clicv2_batch_size_sum", 1)  # the others are one batch of more than ten seconds by now
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(15)
        assert time.monotonic() - started < 6
        assert answers[-1].result().json()["type"] == "urn:clicv2:problem:unavailable"
        assert "Traceback" not in server.printed()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_no_model_no_service(tmp_path: Path) -> None:
    ended = run("serve", "--model-repository", str(tmp_path))
    assert ended.returncode == 2
    assert "no model version" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_worker_of_its_own_needs_a_queue_that_others_reach(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLICV2_REDIS_URL", raising=False)
    ended = run("worker", "--model-repository", str(repository))
    assert ended.returncode == 2
    assert "set CLICV2_REDIS_URL" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_model_for_other_preprocessing_is_never_served(tmp_path: Path) -> None:
    ended = run("serve", "--model-repository", str(tiny_model.write(tmp_path, fingerprint="0123456789abcdef")))
    assert ended.returncode == 2
    assert "0123456789abcdef" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_worker_that_cannot_live_ends_the_process(repository: Path) -> None:
    """Its orchestrator then starts a fresh one; a process that only says 503 would be kept for ever."""
    script = (
        "import service.worker, service.cli\n"
        "async def run(self): raise RuntimeError('a defect')\n"
        "service.worker.Worker.run = run\n"
        "service.cli.main()\n"
    )
    command = [sys.executable, "-c", script, "serve", "--port", "0", "--model-repository", str(repository)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "giving up" in ended.stderr


def test_score_command_agrees_with_the_service(server: Server, repository: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "a.png", tmp_path / "b.png"
    good.write_bytes(PICTURE)
    bad.write_bytes(b"text")
    ended = run("score", str(good), str(bad), "--json", "--model-repository", str(repository))
    assert ended.returncode == 1
    first, second = ended.stdout.splitlines()
    assert f'"score": {server.score(PICTURE).json()["score"]}' in first
    assert '"error": "not a picture' in second
    assert "Traceback" not in ended.stderr
