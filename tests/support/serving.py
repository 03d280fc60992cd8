"""The service as its users meet it: a process of its own, spoken to over HTTP."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import httpx
from ports import free_port

HOST = "127.0.0.1"
COMMAND = (sys.executable, "-m", "service.cli")


@dataclass
class Server:
    """A running `clicv2 serve` or `clicv2 worker`."""

    port: int
    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: IO[str]

    def printed(self) -> str:
        """What the process has written to its standard error."""
        self.log.seek(0)
        return self.log.read()

    def score(self, data: bytes, media_type: str = "image/png", **parameters: object) -> httpx.Response:
        headers = {"Content-Type": media_type}
        return self.client.post("/v1/complexity", content=data, headers=headers, params=parameters)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 if there is none."""
        total = 0.0
        for line in self.client.get("/metrics").text.splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                found = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                if labels.items() <= found.items():
                    total += float(match[3])
        return total

    def wait_for(self, name: str, value: float, **labels: str) -> None:
        until = time.monotonic() + 30
        while self.metric(name, **labels) < value:
            assert time.monotonic() < until, f"{name}{labels} never became {value}"
            time.sleep(0.02)

    def assert_metrics_add_up(self) -> None:
        finished = self.metric("clicv2_jobs_finished_total")
        assert self.metric("clicv2_jobs_admitted_total") == finished + self.metric("clicv2_jobs_in_flight")

    def kill(self) -> None:
        """SIGKILL: it has no time to say goodbye to anybody."""
        self.process.kill()
        self.process.wait(20)

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and it does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM, and wait for the drain; the exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=60)


@contextmanager
def serving(repository: Path, command: str = "serve", **settings: object) -> Iterator[Server]:
    """Start `clicv2 COMMAND` and stop it at the end; `settings` are environment variables without their prefix."""
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CLICV2_")}
    environment |= {"HOST": HOST, "PORT": str(port), "CLICV2_MODEL_REPOSITORY": str(repository)}
    environment |= {f"CLICV2_{name.upper()}": str(value) for name, value in settings.items()}
    with (
        # Not a pipe: nobody would empty it, and the process would stop when it is full.
        TemporaryFile("w+") as log,
        subprocess.Popen([*COMMAND, command], env=environment, stderr=log) as process,
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=90) as client,
    ):
        server = Server(port, process, client, log)
        try:
            _wait_until_alive(server)
            yield server
        finally:
            server.resume()
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _wait_until_alive(server: Server) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise AssertionError(f"the server ended: {server.printed()}")
        try:
            server.client.get("/livez").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server did not start")
