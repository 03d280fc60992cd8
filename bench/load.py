"""A closed loop of clients on raw sockets: on two cores, a heavier client would be what is measured."""

import asyncio
import time
from dataclasses import dataclass, field

# Longer than the service's deadline: who has no answer by then has found a defect.
STUCK_S = 30.0


@dataclass
class Load:
    """Attributes: seconds of each answer, how many were not 200, and how long it all took."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    elapsed: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.elapsed

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e3


class _Client(asyncio.Protocol):
    """Sends the next request as soon as it has the answer to the last, on one connection."""

    def __init__(self, request: bytes, load: Load, until: float) -> None:
        self._request = request
        self._load = load
        self._until = until
        self._answer = bytearray()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP's
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, separator, body = self._answer.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        if head.startswith(b"HTTP/1.1 200"):
            self._load.latencies.append(time.perf_counter() - self._sent)
        else:
            self._load.errors += 1
        if time.perf_counter() < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._answer.clear()
        self._sent = time.perf_counter()
        self._transport.write(self._request)


async def run(host: str, port: int, body: bytes, concurrency: int, seconds: float) -> Load:
    """Post `body` from `concurrency` connections for so long."""
    head = (
        f"POST /v1/complexity HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    load = Load()
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    clients = [
        await loop.create_connection(lambda: _Client(head.encode() + body, load, started + seconds), host, port)
        for _ in range(concurrency)
    ]
    async with asyncio.timeout(seconds + STUCK_S):
        await asyncio.gather(*(client.done for _, client in clients))
    load.elapsed = time.perf_counter() - started
    return load
