"""Runbooks rehearsed: the fault is made, a real Prometheus says so, what the page says is done, and it is over.

Alerts wait for nothing here; what they ask for is what they ask for in production. GpuMemoryNearlyFull needs a GPU, and
the two erosions need hours: for those there are Prometheus' own tests of rules alone.
"""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import tiny_model
from fleet import fleet
from pictures import encode, noise
from prometheus import HOST, ROOT, prometheus
from redis_server import RedisServer
from sizes import SIZES
from triton_server import TritonServer, install_configs, triton_server
from watched import callers, until_ready, watched

from service import keys

PICTURE = encode(noise(64, 64), "PNG")
BROKEN = PICTURE[:100]
BLACK = encode(np.zeros((64, 64, 3), np.uint8), "PNG")
# A rehearsal takes 10 to 20 seconds, most of them until everything runs.
long = pytest.mark.skipif(not SIZES.rehearsals, reason="`make chaos` rehearses all of them")


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("poisoned"), poison=True)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 0.4 s a picture."""
    return tiny_model.write(tmp_path_factory.mktemp("slow"), work=150)


@long
def test_the_worker_dies(poisoned: Path, redis: RedisServer) -> None:
    with watched(poisoned, redis) as stack, callers(stack.gateway, 2, PICTURE):
        stack.worker.kill()
        stack.wait_for("NoWorkers", "AvailabilityBudgetBurn", "TargetDown")
        assert stack.firing() <= {"NoWorkers", "AvailabilityBudgetBurn", "QueueTooOld"}
        stack.fleet.worker()
        stack.wait_for_end("NoWorkers")


def test_redis_dies(poisoned: Path, redis: RedisServer) -> None:
    with watched(poisoned, redis, redis_timeout_s=0.5) as stack, callers(stack.gateway, 2, PICTURE):
        redis.kill()
        try:
            stack.wait_for("RedisDown", "AvailabilityBudgetBurn")
            assert stack.firing() == {"RedisDown", "AvailabilityBudgetBurn"}, "nobody knows how many workers there are"
        finally:
            redis.start()
        stack.wait_for_end("RedisDown")
        until_ready(stack.gateway)


@long
def test_redis_is_nearly_full(poisoned: Path, redis: RedisServer) -> None:
    with watched(poisoned, redis) as stack:
        while redis.client.info("memory")["used_memory"] < 0.85 * (64 << 20):
            redis.client.rpush("somebody-else", b"0" * (1 << 16))
        stack.wait_for("RedisNearlyFull")
        assert stack.firing() == {"RedisNearlyFull"}
        redis.client.config_set("maxmemory", 128 << 20)  # as the page says
        stack.wait_for_end("RedisNearlyFull")


@long
def test_the_gateway_dies(poisoned: Path, redis: RedisServer) -> None:
    with watched(poisoned, redis) as stack:
        stack.gateway.kill()
        stack.wait_for("NoGateway", "TargetDown")
        assert stack.firing() == {"NoGateway"}


@long
def test_a_worker_hangs(poisoned: Path, redis: RedisServer) -> None:
    """Its job is redelivered; with nobody else there it grows old. Here the deadline leaves it the time."""
    with watched(poisoned, redis, deadline_s=30, lease_s=20) as stack, ThreadPoolExecutor(1) as caller:
        stack.worker.pause()
        asked = caller.submit(stack.gateway.score, PICTURE)
        stack.wait_for("QueueTooOld")
        stack.worker.resume()
        assert asked.result().is_success
        stack.wait_for_end("QueueTooOld")


def test_a_picture_that_the_model_cannot_answer(poisoned: Path, redis: RedisServer) -> None:
    with watched(poisoned, redis) as stack:
        assert stack.gateway.score(BLACK).status_code == 500
        stack.wait_for("DeadLetters")
        # What the page asks, to see which and why.
        page = (ROOT / "docs/runbooks/dead-letters.md").read_text()
        script = page.partition('EVAL "')[2].partition('"')[0]
        [[_, why, attempts]] = redis.client.eval(script, 1, "{clicv2}:dead")  # type: ignore[misc]
        assert b"finite" in why or b"not in [0, 1]" in why
        assert int(attempts) == 1


@long
def test_too_much_is_asked(slow: Path, redis: RedisServer) -> None:
    with watched(slow, redis, max_in_flight=4) as stack, callers(stack.gateway, 12, PICTURE):
        stack.wait_for("Shedding", "LatencyBudgetBurn")
        assert "AvailabilityBudgetBurn" not in stack.firing(), "refusing is no failure"


def test_hostile_uploads(poisoned: Path, redis: RedisServer) -> None:
    with watched(poisoned, redis) as stack, callers(stack.gateway, 2, BROKEN, b"no picture", PICTURE):
        stack.wait_for("UndecodableUploads")
        assert stack.firing() == {"UndecodableUploads"}


@long
def test_other_pictures_than_the_models(poisoned: Path, redis: RedisServer) -> None:
    """All of one kind: of the model's reference each tenth has as many."""
    with watched(poisoned, redis) as stack, callers(stack.gateway, 6, PICTURE, pause_s=0):
        stack.wait_for("ScoreDrift", within_s=120)
        assert stack.firing() == {"ScoreDrift"}


@long
def test_a_file_of_keys_that_cannot_be_read(poisoned: Path, redis: RedisServer, tmp_path: Path) -> None:
    entry, key = keys.make("me", "admin")
    keys.add(tmp_path / "keys.json", entry)
    (tmp_path / "key").write_text(key)
    with fleet(poisoned, redis) as processes:
        gateway = processes.gateway(auth="on", keys_file=tmp_path / "keys.json")
        processes.gateways.remove(gateway)  # its figures are for who has a key
        with prometheus({"gateway": [f"{HOST}:{gateway.port}"]}, tmp_path / "key") as seen:
            seen.wait_for(lambda: seen.value("clicv2_keys_unusable_total") == 0, "nothing was scraped")
            (tmp_path / "keys.json").write_text("{")
            gateway.client.get("/v1/models", headers={"X-API-Key": key})  # a request is what makes it look
            seen.wait_for(lambda: "KeysUnusable" in seen.firing(), "never fired")


@pytest.fixture
def triton(poisoned: Path, tmp_path: Path) -> Iterator[TritonServer]:
    repository = install_configs(shutil.copytree(poisoned, tmp_path / "repository"))
    with triton_server(repository) as server:
        yield server


@long
@pytest.mark.parametrize("fault", ["killed", "silent"])
def test_triton_fails(triton: TritonServer, redis: RedisServer, fault: str) -> None:
    with watched(triton.repository, redis, triton, backend_stall_s=1) as stack, callers(stack.gateway, 2, PICTURE):
        triton.kill() if fault == "killed" else triton.stop()
        stack.wait_for("TritonDown", "BreakerOpen", "NoWorkers", "AvailabilityBudgetBurn")
        triton.start() if fault == "killed" else triton.resume()
        triton.supervise()
        stack.wait_for_end("TritonDown", "BreakerOpen", "NoWorkers")


@long
def test_triton_is_slow(triton: TritonServer, redis: RedisServer) -> None:
    """Given up and taken up again: whoever looks now and then sees a closed breaker, or an open one by chance."""
    with watched(triton.repository, redis, triton, backend_stall_s=1) as stack, callers(stack.gateway, 2, PICTURE):
        enough = Event()

        def slow_down() -> None:
            while not enough.is_set():
                triton.stop()
                time.sleep(1.5)
                triton.resume()
                time.sleep(0.5)

        with ThreadPoolExecutor(1) as slowing:
            slowed = slowing.submit(slow_down)
            try:
                stack.wait_for("BreakerOpen", "AvailabilityBudgetBurn")
                again = 'increase(clicv2_backend_events_total{event="opened"}[10m]) > 2.5'
                stack.seen.wait_for(lambda: bool(stack.seen.query(again)), "it opened once or twice")
                assert "BreakerOpen" in stack.firing()
            finally:
                enough.set()
                slowed.result()
                triton.supervise()
        until_ready(stack.gateway)
        assert "BreakerOpen" in stack.firing(), "for ten minutes, or who looks a minute later knows of nothing"
