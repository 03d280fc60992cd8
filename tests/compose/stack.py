"""The stack of docker-compose.yml, built, run and broken: `make test-compose` (needs a Docker engine).

No part of `make test`, for its name does not begin with test_. The tests go in this order on one
stack, each leaves it whole, and at the end nothing is left of it: its project is not that of a stack
in use, and its port is a free one.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pages import DOCS, ROOT, Reader
from ports import free_port

PICTURES = sorted((ROOT / "tests/data").glob("*.jpg"))
MEGABYTE = 1_000_000
WORKERS = 2
# All but Grafana, whose image is the largest by far; its dashboards are judged in tests/integration/test_monitoring.py.
WATCHED = ("gateway", "worker", "triton", "redis", "prometheus", "alertmanager", "redis-exporter")
REFUSED = 0
TRY_AGAIN = (429, 503, 504)
TRIES = 30
PATIENCE_S = 120.0


class Stack:
    """A running project of docker compose, and its gateway."""

    def __init__(self) -> None:
        self.port = free_port()
        self.settings = {
            "GATEWAY_PORT": str(self.port),
            "TAG": "test",
            "COMPOSE_PROJECT_NAME": "clicv2-test",
            "COMPOSE_PROFILES": "monitoring",
        }
        self._environment = os.environ | self.settings
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = ""

    def make_key(self, scope: str) -> str:
        return self.compose("run", "--rm", "--no-TTY", "keys", "create", "--name", scope, "--scope", scope).strip()

    def compose(self, *arguments: str, check: bool = True) -> str:
        done = self.docker("compose", *arguments, check=check)
        return done.stdout

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", *arguments], cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def up(self) -> None:
        """Start what does not run, and wait until all of it is healthy: compose gives up early on what is not."""
        wait = ("--wait", "--wait-timeout", "60")
        up = ("compose", "up", "--detach", "--no-build", "--scale", f"worker={WORKERS}", *wait, *WATCHED)
        _wait_until(lambda: self.docker(*up, check=False).returncode == 0, "all containers are healthy")

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--all", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, dict[str, object]]:
        [found] = json.loads(self.docker("inspect", container).stdout)
        assert isinstance(found, dict)
        return found

    def score(self, picture: Path, **parameters: str) -> httpx.Response:
        headers = {"Content-Type": "image/jpeg"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        return httpx.post(
            f"{self.url}/v1/complexity", content=picture.read_bytes(), headers=headers, params=parameters, timeout=30
        )

    def status(self, picture: Path) -> int:
        """Of the answer; REFUSED where nobody listens: Docker's proxy then takes the connection and hangs up."""
        try:
            return self.score(picture).status_code
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            return REFUSED

    def status_at_last(self, picture: Path) -> int:
        """Of a client that asks again when it is told to try again later."""
        for _ in range(TRIES):
            status = self.status(picture)
            if status not in TRY_AGAIN:
                break
            time.sleep(1)
        return status

    @contextmanager
    def load(self, requests: int, ask: Callable[[Path], int]) -> Iterator[list[int]]:
        """Eight clients ask for pictures' scores meanwhile; afterwards the list holds what came of each."""
        answers: list[int] = []
        with ThreadPoolExecutor(8) as pool:
            posted: list[Future[int]] = [
                pool.submit(ask, PICTURES[number % len(PICTURES)]) for number in range(requests)
            ]
            _wait_until(lambda: sum(one.done() for one in posted) > requests // 10, "the first pictures were answered")
            yield answers
            answers += [one.result() for one in posted]

    def ask_prometheus(self, expression: str) -> dict[str, float]:
        """As the runbooks do; values by how Prometheus writes their labels."""
        told = self.compose(
            "exec", "--no-TTY", "prometheus", "promtool", "query", "instant", "http://127.0.0.1:9090", expression
        )
        found = re.findall(r"^(.*) => (\S+) @\[", told, re.MULTILINE)
        return {labels: float(value) for labels, value in found}

    def alerts(self) -> set[str]:
        """Names of those of which Alertmanager would tell somebody now."""
        told = self.compose(
            "exec", "--no-TTY", "alertmanager", "amtool", "--alertmanager.url=http://127.0.0.1:9093", "alert", "query"
        )
        return {line.split()[0] for line in told.splitlines()[1:]}

    def metric(self, name: str) -> float:
        """Of the gateway: the sum over all labels."""
        headers = {"Authorization": f"Bearer {self.key}"}
        lines = httpx.get(f"{self.url}/metrics", headers=headers, timeout=30).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.partition(" ")[0].partition("{")[0] == name)


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"never came true: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    stack = Stack()
    failed_before = request.session.testsfailed
    try:
        stack.compose("build", *WATCHED)
        stack.up()
        stack.key = stack.make_key("admin")  # of admin's scope, for /metrics
        yield stack
    finally:
        if request.session.testsfailed > failed_before:
            print(stack.compose("ps", "--all", check=False), stack.compose("logs", "--tail=50", check=False))
        stack.compose("down", "--volumes", "--timeout", "30", check=False)


@pytest.mark.timeout(1800)  # the first test waits for the images
def test_pictures_are_scored(stack: Stack) -> None:
    for picture in PICTURES:
        answer = stack.score(picture, heatmap="grid")
        assert answer.status_code == 200, answer.text
        assert 0 <= answer.json()["score"] <= 1
        assert answer.json()["heatmap"]["values"]


def test_callers_need_a_key(stack: Stack) -> None:
    """Made while the gateway runs, and known to it within a second; no more once it is revoked."""
    assert httpx.get(f"{stack.url}/readyz", timeout=30).status_code == 200
    admin, stack.key = stack.key, ""
    try:
        assert stack.status(PICTURES[0]) == 401
        stack.key = stack.make_key("read")
        _wait_until(lambda: stack.status(PICTURES[0]) == 200, "the new key is known")
        assert httpx.get(f"{stack.url}/metrics", headers={"Authorization": f"Bearer {stack.key}"}).status_code == 403
        listed = stack.compose("run", "--rm", "--no-TTY", "keys", "list").splitlines()
        [key_id] = [line.split()[0] for line in listed if line.endswith("  read")]
        stack.compose("run", "--rm", "--no-TTY", "keys", "revoke", key_id)
        _wait_until(lambda: stack.status(PICTURES[0]) == 401, "the revoked key is refused")
    finally:
        stack.key = admin


def test_a_gateway_adds_less_than_200_megabytes_to_its_base(stack: Stack) -> None:
    sizes = [
        int(stack.docker("image", "inspect", "--format", "{{.Size}}", image).stdout)
        for image in ("clicv2-gateway:test", "python:3.11-slim-bookworm")
    ]
    assert sizes[0] - sizes[1] < 200 * MEGABYTE


@pytest.mark.parametrize("service", ["gateway", "worker", "triton", "redis", "prometheus", "alertmanager"])
def test_a_container_can_write_and_become_nothing(stack: Stack, service: str) -> None:
    [container, *_] = stack.containers(service)
    host = stack.inspect(container)["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert stack.docker("exec", container, "id", "-u").stdout.strip() != "0"
    assert stack.docker("exec", container, "touch", "/usr/here", check=False).returncode != 0
    status = stack.docker("exec", container, "cat", "/proc/1/status").stdout
    assert f"CapEff:\t{0:016x}\n" in status
    assert "NoNewPrivs:\t1\n" in status


def test_prometheus_sees_all_of_it(stack: Stack) -> None:
    """Also the gateway, which asks who asks; and it has somewhere to send its alerts."""
    expected = {
        "gateway": 1.0,
        "worker": float(WORKERS),
        "triton": 1.0,
        "redis": 1.0,
        "prometheus": 1.0,
        "alertmanager": 1.0,
    }
    jobs = {f'{{job="{job}"}}': up for job, up in expected.items()}
    _wait_until(lambda: stack.ask_prometheus("sum by (job) (up)") == jobs, "all is scraped")
    _wait_until(
        lambda: list(stack.ask_prometheus("prometheus_notifications_alertmanagers_discovered").values()) == [1.0],
        "Alertmanager is known",
    )
    for name in ("clicv2_requests_total", "clicv2_worker_slots", "nv_inference_count", "redis_memory_used_bytes"):
        _wait_until(lambda: bool(stack.ask_prometheus(name)), f"there are figures of {name}")  # noqa: B023  # at once
    _wait_until(
        lambda: list(stack.ask_prometheus("clicv2:queue_workers_ready:max").values()) == [WORKERS],
        "the rules have been evaluated",
    )


def test_an_alert_comes_to_the_alertmanager(stack: Stack) -> None:
    """As long as in production: scraped, looked at, half a minute old, sent."""
    assert "NoWorkers" not in stack.alerts()
    stack.compose("kill", "--signal", "KILL", "worker")
    _wait_until(lambda: "NoWorkers" in stack.alerts(), "the alert comes")
    stack.up()
    _wait_until(lambda: "NoWorkers" not in stack.alerts(), "the alert ends")


def test_no_picture_is_lost_when_a_worker_is_killed(stack: Stack) -> None:
    [victim, *_] = stack.containers("worker")
    with stack.load(120, stack.status_at_last) as answers:
        stack.docker("kill", "--signal", "KILL", victim)
    assert answers == [200] * 120
    stack.up()


def test_redis_keeps_its_queue_over_a_kill(stack: Stack) -> None:
    """While it is away the gateway says so; once it is back, all goes on by itself."""
    with stack.load(120, stack.status_at_last) as answers:
        stack.compose("kill", "--signal", "KILL", "redis")
        _wait_until(lambda: stack.status(PICTURES[0]) == 503, "the gateway says that Redis is away")
        stack.compose("start", "redis")
    assert answers == [200] * 120
    stack.up()
    finished = stack.metric("clicv2_jobs_finished_total")
    assert stack.metric("clicv2_jobs_admitted_total") == finished + stack.metric("clicv2_jobs_in_flight")


KILL_STUB = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if (process / "cmdline").read_bytes().partition(b"\\0")[0].endswith(b"/triton_python_backend_stub"):
        os.kill(int(process.name), signal.SIGKILL)
"""


def test_tritons_model_is_brought_back_when_its_process_dies(stack: Stack) -> None:
    stack.compose("exec", "--no-TTY", "triton", "python3", "-c", KILL_STUB)
    _wait_until(lambda: stack.status(PICTURES[0]) == 200, "pictures are scored again")
    stack.up()


def test_a_gateway_drains_on_sigterm(stack: Stack) -> None:
    """Who is inside gets an answer, who comes late is refused."""
    [container] = stack.containers("gateway")
    with stack.load(120, stack.status) as answers:
        stack.compose("stop", "gateway")  # SIGTERM, and SIGKILL after its stop_grace_period
    assert stack.inspect(container)["State"]["ExitCode"] == 0
    assert set(answers) <= {200, 503, REFUSED}
    stack.up()
    assert stack.status(PICTURES[0]) == 200


# In Kubernetes they are others; no cluster is to be had.
RUNBOOKS = sorted(set((DOCS / "runbooks").glob("*.md")) - {DOCS / "runbooks/in-kubernetes.md"})


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbooks_commands_are_those_of_the_stack(page: Path, stack: Stack, tmp_path: Path) -> None:
    """As the page has them, also those that stop, mend and restart something. There is no GPU to be asked."""
    stack.up()
    replaced = {"nvidia-smi": "id", "the-one-before": stack.settings["TAG"]}
    if stack.compose("exec", "--no-TTY", "prometheus", "sh", "-c", "command -v wget || true") == "":
        replaced["wget -qO-"] = "curl -sS"  # where the image is none of Prometheus' own
    for kind in ("refused", "answered"):
        (tmp_path / "curl" / kind).mkdir(parents=True)
    (tmp_path / "curl/answered/.curlrc").write_text("retry = 60\nretry-delay = 1\nretry-all-errors\n")
    environment = stack.settings | {
        "COMPOSE_FILE": str(ROOT / "docker-compose.yml"),
        "DOCKER_CONFIG": os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker")),
    }
    Reader(tmp_path, replaced, "", {"8000": stack.port, "9090": 9090}, environment).follow(page, PATIENCE_S)
