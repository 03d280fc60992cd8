"""The real Triton Inference Server, out of the wheel nvidia-pytriton, on free ports and with the CPU's config."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import httpx
from ports import free_port

from clicv2 import contract, triton

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
SERVER = ROOT / ".venv/triton/pytriton/tritonserver"  # where `make test` installs it
PYTHON_MODEL = ROOT / "training/templates/triton_model.py"


def install_configs(repository: Path, model: str = "clicv2") -> Path:
    """Add what `clicv2-train export` writes for Triton to a model repository; returns the repository."""
    folder = repository / model
    for path, text in triton.configs(contract.open_version(folder).manifest).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    for version in folder.glob("[1-9]*"):
        shutil.copyfile(PYTHON_MODEL, version / triton.PYTHON_MODEL)
    return repository


@dataclass
class TritonServer:
    """A tritonserver that can be killed, stopped and started again on the same ports.

    Attributes:
        url: host:port of gRPC.
        http: base URL of HTTP.
    """

    repository: Path
    options: tuple[str, ...]
    ports: tuple[int, int, int]
    log: IO[str]
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"{HOST}:{self.ports[0]}"

    @property
    def http(self) -> str:
        return f"http://{HOST}:{self.ports[1]}"

    @property
    def shared(self) -> str:
        """Start of the names of the memory that server and stubs share."""
        return f"clicv2-triton-{self.ports[0]}-"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        grpc_port, http_port, metrics_port = self.ports
        command = (
            SERVER / "bin/tritonserver",
            f"--model-repository={self.repository}",
            f"--backend-directory={SERVER / 'backends'}",
            "--model-config-name=cpu",
            "--disable-auto-complete-config",  # the configs are whole; asking the model too doubles a load's time
            "--allow-gpu-metrics=false",
            "--exit-timeout-secs=5",
            f"--backend-config=python,shm-region-prefix-name={self.shared}",
            *(f"--{protocol}-address={HOST}" for protocol in ("grpc", "http", "metrics")),
            f"--grpc-port={grpc_port}",
            f"--http-port={http_port}",
            f"--metrics-port={metrics_port}",
            *self.options,
        )
        # The stub runs whichever python comes first: ours, which has ONNX Runtime.
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        # A session of its own, so that a kill takes the stubs along, as a container's end does.
        self.process = subprocess.Popen(
            command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"tritonserver ended: {self.printed()}")
            try:
                if httpx.get(f"{self.http}/v2/health/ready", timeout=5).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"tritonserver did not become ready: {self.printed()}")

    def printed(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def supervise(self) -> bool:
        """Start it again if it has ended by itself, as a container's restart policy does; whether it had.

        Triton 2.51 sometimes aborts (boost's lock_exception in the python backend) when its stub was killed
        or both were stopped in the midst of a request.
        """
        ended = self.process.poll() is not None
        if ended:
            self.start()
        return ended

    def kill(self) -> None:
        """SIGKILL for the server and its stubs: what a lost container looks like."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for region in Path("/dev/shm").glob(f"{self.shared}*"):  # noqa: S108  # a container's end takes them along
            region.unlink(missing_ok=True)

    def stop(self) -> None:
        """SIGSTOP: connections stay open and nobody answers."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def kill_stub(self) -> None:
        """SIGKILL for the process behind the python backend; Triton lives on and calls itself ready."""
        stubs = self.stubs()
        assert stubs, "there is no stub to kill"
        for stub in stubs:
            os.kill(stub, signal.SIGKILL)

    def stubs(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        found = [int(child) for file in children for child in file.read_text().split()]
        return [pid for pid in found if b"python_backend_stub" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextmanager
def triton_server(
    repository: Path, *options: str, control: str = "explicit", model: str = "clicv2"
) -> Iterator[TritonServer]:
    """Start a server on a repository that has configs and stop it at the end.

    Args:
        options: further ones for tritonserver.
        control: its --model-control-mode; with "explicit" `model` is loaded at the start.
    """
    if not (SERVER / "backends/python/triton_python_backend_stub").is_file():
        raise AssertionError(f"there is no Triton server in {SERVER}: run `make test`, which installs it")
    load = (f"--load-model={model}",) if control == "explicit" else ()
    with TemporaryFile("w+", errors="replace") as log:
        ports = (free_port(), free_port(), free_port())
        server = TritonServer(repository, (f"--model-control-mode={control}", *load, *options), ports, log)
        try:
            server.start()
            yield server
        finally:
            server.kill()
