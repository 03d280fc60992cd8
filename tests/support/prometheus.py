"""A real Prometheus with the project's own configuration and rules, and a real exporter for Redis.

They are Debian's; `make test` unpacks the packages, so that no service of theirs is ever started.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import yaml
from ports import free_port

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "docker/prometheus"
UNPACKED = ROOT / ".venv/prometheus/usr/bin"
STEP_S = 1  # between scrapes, and between looks at the rules
Sample = tuple[Mapping[str, str], float]


def program(name: str) -> str:
    """Where prometheus, promtool, amtool, ... are."""
    found = shutil.which(name, path=f"{UNPACKED}:{os.environ['PATH']}")
    if found is None:
        raise AssertionError(f"there is no {name} in {UNPACKED}: run `make test`, which puts it there")
    return found


@dataclass
class Prometheus:
    """A running one."""

    client: httpx.Client

    def query(self, expression: str) -> list[Sample]:
        """Labels and values, as of now."""
        result = self._get("/api/v1/query", query=expression)["result"]
        assert isinstance(result, list), f"not a vector: {expression}"
        return [(one["metric"], float(one["value"][1])) for one in result]

    def value(self, expression: str) -> float | None:
        """Of an expression with one result; None if there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def curves(
        self, expression: str, start: float, end: float, step_s: float
    ) -> list[tuple[Mapping[str, str], list[tuple[float, float]]]]:
        """Labels, and instants with values, of each series."""
        result = self._get("/api/v1/query_range", query=expression, start=start, end=end, step=step_s)["result"]
        assert isinstance(result, list)
        return [(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in result]

    def exemplars(self, expression: str) -> list[tuple[Mapping[str, str], Mapping[str, str]]]:
        """Labels of the series, and of the exemplar, of the last minutes."""
        now = time.time()
        parameters = {"query": expression, "start": str(now - 600), "end": str(now + 60)}
        answer = self.client.get("/api/v1/query_exemplars", params=parameters).raise_for_status().json()
        return [(one["seriesLabels"], each["labels"]) for one in answer["data"] for each in one["exemplars"]]

    def firing(self) -> set[str]:
        """Names of the alerts."""
        found = self._get("/api/v1/alerts")["alerts"]
        assert isinstance(found, list)
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def wait_for(self, what: Callable[[], bool], why: str, within_s: float = 120) -> float:
        """Until it is so; the seconds that this took."""
        started = time.monotonic()
        while not what():
            assert time.monotonic() - started < within_s, f"{why}; firing: {sorted(self.firing())}"
            time.sleep(0.2)
        return time.monotonic() - started

    def _get(self, path: str, **parameters: object) -> dict[str, object]:
        answer = self.client.get(path, params=parameters).json()
        assert answer["status"] == "success", f"{answer.get('error')}: {parameters}"
        return dict(answer["data"])


@contextmanager
def prometheus(targets: Mapping[str, Sequence[str]], credentials: Path | None = None) -> Iterator[Prometheus]:
    """The project's configuration, but quick, and with these targets.

    Args:
        targets: host:port, by job; a job of the configuration that is not here has none.
        credentials: file of the key for gateways; None: they ask for none.
    """
    with TemporaryDirectory(prefix="clicv2-prometheus-") as name:
        folder = Path(name)
        if credentials is None:
            credentials = folder / "key"
            credentials.write_text("none is asked for")
        config = configuration(targets, credentials)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "rules").mkdir()
        for rules in (CONFIG / "rules").glob("*.yml"):
            (folder / "rules" / rules.name).write_text(_quick(rules.read_text()))
        port = free_port()
        command = (
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={HOST}:{port}",
            "--enable-feature=exemplar-storage",  # as in docker-compose.yml
            "--log.level=warn",
        )
        with (
            (folder / "log").open("w+") as log,
            subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"GOMAXPROCS": "1"}) as process,
            httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60) as client,
        ):
            try:
                _wait_until_ready(process, client, "/-/ready", folder / "log")
                yield Prometheus(client)
            finally:
                process.terminate()
                process.wait(30)


@contextmanager
def redis_exporter(redis_url: str) -> Iterator[str]:
    """Its host:port."""
    port = free_port()
    command = (program("prometheus-redis-exporter"), "-redis.addr", redis_url, "-web.listen-address", f"{HOST}:{port}")
    with (
        TemporaryDirectory(prefix="clicv2-exporter-") as name,
        (Path(name) / "log").open("w+") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=30) as client,
    ):
        try:
            _wait_until_ready(process, client, "/health", Path(name) / "log")
            yield f"{HOST}:{port}"
        finally:
            process.terminate()
            process.wait(30)


def configuration(targets: Mapping[str, Sequence[str]], credentials: Path) -> dict[str, object]:
    """docker/prometheus/prometheus.yml for targets of a test."""
    config: dict[str, object] = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": f"{STEP_S}s", "evaluation_interval": f"{STEP_S}s"}  # type: ignore[operator]
    del config["alerting"]
    jobs = []
    for job in config["scrape_configs"]:  # type: ignore[attr-defined]
        kept = {key: value for key, value in job.items() if not key.endswith("_sd_configs")}
        if "authorization" in kept:
            kept["authorization"] = {"credentials_file": str(credentials)}
        # A process that is busy answers late, and a second is soon over.
        jobs.append(
            kept
            | {"scrape_timeout": f"{STEP_S}s", "static_configs": [{"targets": list(targets.get(job["job_name"], ()))}]}
        )
    known = {job["job_name"] for job in jobs}
    assert targets.keys() <= known, f"{targets.keys() - known} is watched by nobody"
    return config | {"scrape_configs": jobs}


def _quick(rules: str) -> str:
    """Rules that wait for nothing; what they ask for stays."""
    return re.sub(r"^( +)(for|interval): \w+$", rf"\1\2: {STEP_S}s", rules, flags=re.MULTILINE)


def _wait_until_ready(process: subprocess.Popen[bytes], client: httpx.Client, path: str, log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError(f"it ended: {log.read_text()}")
        try:
            if client.get(path).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"it did not become ready: {log.read_text()}")
