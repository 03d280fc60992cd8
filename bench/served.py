"""The service in a process of its own, under load, and the CPU time that it took."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import load

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


@contextmanager
def server() -> Iterator[tuple[int, int]]:
    """A ready server: its port and process id."""
    with closing(socket.create_server((HOST, 0))) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve"],
        env={**os.environ, "HOST": HOST, "PORT": str(port)},
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_ready(process, port)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)


def measure(port: int, pid: int, body: bytes, concurrency: int, seconds: float) -> Served:
    uvloop.run(load.run(HOST, port, body, concurrency, min(1.0, seconds / 4)))  # warm up
    cpu = _cpu_s(pid)
    result = uvloop.run(load.run(HOST, port, body, concurrency, seconds))
    cpu = _cpu_s(pid) - cpu
    count = len(result.latencies)
    return Served(
        concurrency, result.rate, result.percentile_ms(50), result.percentile_ms(99), cpu / count * 1e3, result.errors
    )


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=3):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the service did not become ready; does `clicv2 serve` run?")


def _cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
