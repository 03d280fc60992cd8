"""The service in processes of its own, under load, and the CPU time that it took."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop
from ports import free_port
from redis_server import redis_server
from triton_server import triton_server

from bench import load
from service.settings import Settings

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Served:
    """Attributes: answers a second, latencies and the server's CPU milliseconds an answer, at a concurrency."""

    concurrency: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    errors: int


@dataclass(frozen=True)
class Stack:
    """Attributes: the port of the gateway, and every process whose CPU time a request costs."""

    port: int
    pids: tuple[int, ...]


@contextmanager
def embedded() -> Iterator[Stack]:
    """Gateway, worker and model in one process."""
    with _process("serve") as (port, pid):
        _await_ready(port)
        yield Stack(port, (pid,))


@contextmanager
def over_redis() -> Iterator[Stack]:
    """A gateway and a worker that has the model, with Redis between them."""
    with redis_server() as redis:
        address = {"CLICV2_REDIS_URL": redis.url}
        with _process("worker", **address) as (_, worker), _process("serve", **address) as (port, gateway):
            _await_ready(port)
            yield Stack(port, (gateway, worker, int(redis.client.info("server")["process_id"])))


@contextmanager
def over_redis_and_triton(sharing: str) -> Iterator[Stack]:
    """The production shape: gateway, Redis, worker, and Triton with its python backend on the CPU.

    `sharing`: whether pictures go to Triton through shared memory ("on") or by the wire ("off").
    """
    with redis_server() as redis, triton_server(Settings().model_repository.resolve()) as triton:
        address = {
            "CLICV2_REDIS_URL": redis.url,
            "CLICV2_TRITON_URL": triton.url,
            "CLICV2_TRITON_SHARED_MEMORY": sharing,
            "CLICV2_BACKEND_STALL_S": "5",
        }
        with _process("worker", **address) as (_, worker), _process("serve", **address) as (port, gateway):
            _await_ready(port)
            servers = (int(redis.client.info("server")["process_id"]), triton.process.pid, *triton.stubs())
            yield Stack(port, (gateway, worker, *servers))


STACKS = {
    "embedded": embedded,
    "over Redis": over_redis,
    "over Redis and Triton": partial(over_redis_and_triton, "off"),
    "over Redis and Triton, shared memory": partial(over_redis_and_triton, "on"),
}


@contextmanager
def _process(command: str, **settings: str) -> Iterator[tuple[int, int]]:
    """`clicv2 COMMAND` on a free port: the port and the process id."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", command],
        env={**os.environ, **settings, "HOST": HOST, "PORT": str(port)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def measure(stack: Stack, body: bytes, concurrency: int, seconds: float) -> Served:
    uvloop.run(load.run(HOST, stack.port, body, concurrency, min(1.0, seconds / 4)))  # warm up
    before = sum(map(cpu_s, stack.pids))
    result = uvloop.run(load.run(HOST, stack.port, body, concurrency, seconds))
    cpu = sum(map(cpu_s, stack.pids)) - before
    count = len(result.latencies)
    return Served(
        concurrency, result.rate, result.percentile_ms(50), result.percentile_ms(99), cpu / count * 1e3, result.errors
    )


def _await_ready(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=3):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the service did not become ready; does `clicv2 serve` run?")


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
