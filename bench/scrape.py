"""What it costs to be watched: Prometheus asks for the figures again and again, and each time they are written anew."""

import time
import urllib.request
from dataclasses import dataclass

from bench.served import HOST, Stack, cpu_s

EVERY_S = 10.0  # docker/prometheus/prometheus.yml
# As Prometheus asks, for what it then is given takes longest to write.
_ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
_SCRAPES = 100


@dataclass(frozen=True)
class Scraped:
    """Attributes: milliseconds and, of all the service's processes, CPU milliseconds of a scrape; its bytes."""

    wall_ms: float
    cpu_ms: float
    size: int

    @property
    def share(self) -> float:
        """Of what one core does."""
        return self.cpu_ms / 1e3 / EVERY_S


def measure(stack: Stack) -> Scraped:
    """Of the gateway, which has the most figures; all of them are there once it has been used."""
    request = urllib.request.Request(f"http://{HOST}:{stack.port}/metrics", headers={"Accept": _ACCEPT})
    began, before, size = time.perf_counter(), sum(map(cpu_s, stack.pids)), 0
    for _ in range(_SCRAPES):
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            size = len(answer.read())
    cpu, wall = sum(map(cpu_s, stack.pids)) - before, time.perf_counter() - began
    return Scraped(wall / _SCRAPES * 1e3, cpu / _SCRAPES * 1e3, size)
