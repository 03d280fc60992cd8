"""A gateway, a worker, Redis with its exporter, and a Prometheus that watches them; and callers."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpx
from fleet import Fleet, fleet
from prometheus import HOST, Prometheus, prometheus, redis_exporter
from redis_server import RedisServer
from serving import Server
from triton_server import TritonServer

# What erodes a budget for hours is here, where nobody waits, the same as what burns it. And on a machine that is busy
# with other things a process may answer late, callers and Prometheus alike.
BESIDE = {"AvailabilityBudgetErosion", "LatencyBudgetErosion", "LatencyBudgetBurn", "TargetDown"}


@dataclass
class Stack:
    """What is watched.

    Attributes:
        triton: None: the worker has the model itself; then Triton is missing all the time.
    """

    redis: RedisServer
    fleet: Fleet
    gateway: Server
    worker: Server
    seen: Prometheus
    triton: TritonServer | None

    def firing(self) -> set[str]:
        """Those that mean something here."""
        return self.seen.firing() - BESIDE - (set() if self.triton else {"TritonDown"})

    def wait_for(self, *alerts: str, within_s: float = 60) -> float:
        """Until these fire, whatever else does; in seconds."""
        return self.seen.wait_for(lambda: set(alerts) <= self.seen.firing(), f"never fired: {alerts}", within_s)

    def wait_for_end(self, *alerts: str, within_s: float = 60) -> float:
        return self.seen.wait_for(lambda: not set(alerts) & self.seen.firing(), f"never ended: {alerts}", within_s)


@contextmanager
def watched(
    repository: Path, redis: RedisServer, triton: TritonServer | None = None, **settings: object
) -> Iterator[Stack]:
    if triton:
        settings |= {"triton_url": triton.url}
    redis.client.config_set("maxmemory", 64 << 20)
    with fleet(repository, redis, **settings) as processes, redis_exporter(redis.url) as exporter:
        worker, gateway = processes.worker(), processes.gateway()
        targets = {
            "gateway": [f"{HOST}:{gateway.port}"],
            "worker": [f"{HOST}:{worker.port}"],
            "redis": [exporter],
            "triton": [f"{HOST}:{triton.ports[2]}"] if triton else [],
        }
        with prometheus(targets) as seen:
            until_ready(gateway)
            stack = Stack(redis, processes, gateway, worker, seen, triton)
            seen.wait_for(lambda: not stack.firing() and seen.value("clicv2:queue_workers_ready:max") == 1, "no peace")
            yield stack


def until_ready(gateway: Server, within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while not gateway.client.get("/readyz").is_success:
        assert time.monotonic() < until, "never ready"
        time.sleep(0.1)


@contextmanager
def callers(gateway: Server, count: int, *pictures: bytes, pause_s: float = 0.05) -> Iterator[None]:
    """Who ask for one picture after the other, whatever they are answered."""
    enough = Event()

    def call() -> None:
        with httpx.Client(base_url=f"http://{HOST}:{gateway.port}", timeout=60) as client:
            number = 0
            while not enough.is_set():
                data = pictures[number % len(pictures)]
                client.post("/v1/complexity", content=data, headers={"Content-Type": "image/png"})
                number += 1
                time.sleep(pause_s)

    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(call) for _ in range(count)]
        try:
            yield
        finally:
            enough.set()
            for each in calls:
                each.result()
