"""Prometheus' and Alertmanager's own tools judge their files; and each alert has what an alert needs."""

import math
import re
import subprocess
from pathlib import Path

import prometheus
import pytest
import yaml
from prometheus import CONFIG, ROOT, program
from prometheus_client.exposition import generate_latest

from clicv2 import contract
from service.metrics import Metrics

ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((CONFIG / "rules/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
TESTS = [test["name"] for test in yaml.safe_load((CONFIG / "tests.yml").read_text())["tests"]]
BOARDS = {path.stem for path in (ROOT / "docker/grafana/dashboards").glob("*.json")}
RUNBOOKS = ROOT / "docs/runbooks"
ALERTMANAGER = ROOT / "docker/alertmanager/alertmanager.yml"


def run(*command: str | Path, given: str | None = None) -> str:
    """Standard output. Fails with what the program says."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def slug(alert: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", alert).lower()


def test_the_configuration_is_one(tmp_path: Path) -> None:
    """As it is, but for the file of the key, which must be there to be found."""
    text = (CONFIG / "prometheus.yml").read_text()
    (tmp_path / "prometheus.key").write_text("clicv2_key")
    (tmp_path / "rules").symlink_to(CONFIG / "rules")
    (tmp_path / "prometheus.yml").write_text(text.replace("/keys/prometheus.key", str(tmp_path / "prometheus.key")))
    assert "2 rule files found" in run(program("promtool"), "check", "config", tmp_path / "prometheus.yml")


def test_the_rules_do_what_their_tests_say() -> None:
    run(program("promtool"), "check", "rules", *sorted(Path("rules").glob("*.yml")), *CONFIG.glob("rules/*.yml"))
    run(program("promtool"), "test", "rules", "tests.yml")


@pytest.mark.parametrize("shares", [(1,) * 10, (20, *(1,) * 8, 2), (0, *(3,) * 9), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)])
def test_the_index_of_drift_is_the_textbooks(tmp_path: Path, shares: tuple[int, ...]) -> None:
    """The population stability index: the sum of (p - q) ln(p / q), where an empty class counts as a thousandth."""
    found = [max(share / sum(shares), 0.001) for share in shares]
    expected = sum((p - 0.1) * math.log(p / 0.1) for p in found)
    series = [
        {"series": f'clicv2_score_deciles_total{{version="1", decile="{n}"}}', "values": f"0+{share}x90"}
        for n, share in enumerate(shares, 1)
    ]
    asked = {
        "expr": "round(1000 * clicv2:score_psi:psi1h)",
        "eval_time": "80m",
        "exp_samples": [{"labels": '{version="1"}', "value": round(1000 * expected)}],
    }
    content = {
        "rule_files": [str(CONFIG / "rules/recording.yml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [asked]}],
    }
    (tmp_path / "drift.yml").write_text(yaml.safe_dump(content))
    run(program("promtool"), "test", "rules", tmp_path / "drift.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tested_both_ways(alert: str) -> None:
    for does in ("fires", "is quiet"):
        assert any(name.startswith(f"{alert} {does}: ") for name in TESTS), f"no test in which it {does}"


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    told = rule["annotations"]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert told["summary"]
    assert told["description"]
    assert told["runbook"] == f"docs/runbooks/{slug(alert)}.md"
    assert told["runbook_url"] == f"{{{{ $externalLabels.grafana }}}}/d/runbook-{alert}"
    assert len(f"runbook-{alert}") <= 40, "Grafana takes no longer ones"
    board = told["dashboard_url"].rpartition("/clicv2-")[2]
    assert board in BOARDS


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {slug(alert) for alert in ALERTS} | {"in-kubernetes"}


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_says_all_four_things(alert: str) -> None:
    lines = (RUNBOOKS / f"{slug(alert)}.md").read_text().splitlines()
    assert lines[0] == f"# {alert}"
    titles = ["## What it means", "## How to confirm", "## What to do", "## How to know that it is over"]
    assert [line for line in lines if line.startswith("## ")] == titles
    assert "In Kubernetes each command is [another](in-kubernetes.md)." in lines


def test_what_a_runbook_names_is_there() -> None:
    """Alerts, settings, metrics and services, wherever a page names one."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    exposed = set(re.findall(r"^# TYPE (\w+)", generate_latest(_full().registry).decode(), re.MULTILINE))
    recorded = set(re.findall(r"record: (\S+)", (CONFIG / "rules/recording.yml").read_text()))
    settings = (ROOT / "docs/configuration.md").read_text()
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text()
        for other in re.findall(r"\]\(([^)]+)\)", text):
            assert (page.parent / other).exists(), (page.name, other)
        for service in re.findall(
            r"docker compose (?:exec|restart|logs|start|up -d|ps)(?: -\S+(?: \w+)?)* ([\w-]+)", text
        ):
            assert service in services, (page.name, service)
        for setting in re.findall(r"CLICV2_[A-Z_]+", text):
            assert f"`{setting}`" in settings, (page.name, setting)
        for metric in re.findall(r"\bclicv2_[a-z_]+\b(?!:)", text):
            family = re.sub(r"_(total|bucket|count|sum)$", "", metric)
            assert {metric, family} & exposed or f"{family}_total" in exposed, (page.name, metric)
        for rule in re.findall(r"\bclicv2:[\w:]+", text):
            assert rule in recorded, (page.name, rule)


def test_nobody_is_told_to_wait_for_what_is_down() -> None:
    """`up` starts a service when what it depends on is healthy, and gives up when that is not."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for down in ("triton", "redis"):
        page = (RUNBOOKS / f"{down}-down.md").read_text()
        for options, service in re.findall(r"docker compose up((?: -\S+)*) ([\w-]+)", page):
            assert "--no-deps" in options or down not in services[service].get("depends_on", ()), service


def _full() -> Metrics:
    """As after a request, a picture and a look at a backend."""
    metrics = Metrics()
    metrics.watch(_Backend(), 1)
    return metrics


class _Backend:
    healthy = True
    events = {"calls": 1}  # noqa: RUF012  # as a Watched has it


def test_names_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    metrics = _full()
    metrics.serves(contract.find_version(ROOT / "model_repository/clicv2").manifest)
    metrics.request_began()
    metrics.request_ended("/v1/complexity", "POST", 200, 0.1, 1000)
    lint = run(program("promtool"), "check", "metrics", given=generate_latest(metrics.registry).decode())
    assert not lint


def test_the_alertmanager_knows_whom_to_tell() -> None:
    run(program("amtool"), "check-config", ALERTMANAGER)
    for severity, receiver in (("page", "pages"), ("ticket", "tickets")):
        found = run(
            program("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"severity={severity}"
        )
        assert found.strip() == receiver


def test_what_follows_from_something_is_an_alert() -> None:
    for rule in yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, names = re.fullmatch(r"(\w+)=~?\"?([^\"]*)\"?", matcher).groups()  # type: ignore[union-attr]
            assert label != "alertname" or set(names.split("|")) <= ALERTS.keys(), matcher


def test_what_the_tests_watch_is_what_is_watched(tmp_path: Path) -> None:
    """The configuration that tests use differs from the real one in targets and haste alone."""
    real = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    used = prometheus.configuration({}, tmp_path / "key")
    assert [job["job_name"] for job in used["scrape_configs"]] == [job["job_name"] for job in real["scrape_configs"]]  # type: ignore[attr-defined]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for host in re.findall(r"(?:names: \[|targets: \[\")([a-z][\w-]*)", (CONFIG / "prometheus.yml").read_text()):
        assert host in services
