"""A real Redis, with the settings of production, on a port and in a folder of its own."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from ports import free_port

HOST = "127.0.0.1"
BINARY = os.environ.get("REDIS_SERVER", "redis-server")


class RedisServer:
    """A redis-server that can be killed and started again, and then has what its append-only file has.

    Attributes:
        url: the same for its whole life.
        client: for looking into it; not async.
    """

    def __init__(self, folder: Path) -> None:
        binary = shutil.which(BINARY)
        if binary is None:
            raise RuntimeError(f"the tests need {BINARY} >= 6.2 on PATH (Debian: apt-get install redis-server)")
        self._binary = binary
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.client = redis.Redis(host=HOST, port=self.port, protocol=2)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it has loaded its data."""
        options = {
            "bind": HOST,
            "port": self.port,
            "dir": self._folder,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "logfile": self._folder / "redis.log",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen([self._binary, *arguments])
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"redis-server ended: {(self._folder / 'redis.log').read_text()[-2000:]}")
            with suppress(redis.RedisError):
                if self.client.ping():
                    return
            time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def kill(self) -> None:
        """SIGKILL: it has no time to write anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, as a host does when it shuts down."""
        self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: connections stay, and nothing answers any more."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self._signal(number)
            self._process.wait(30)
            self._process = None


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A running Redis for as long as the block lasts."""
    with TemporaryDirectory(prefix="clicv2-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.client.close()
            server.stop()
