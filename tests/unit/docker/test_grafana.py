"""The committed dashboards are what the code makes, and Grafana's files name what there is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dashboards import FOLDER

from service.metrics import Metrics

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "docker/grafana"
BOARDS = sorted(FOLDER.glob("*.json"))


def test_they_are_what_the_code_makes(tmp_path: Path) -> None:
    (tmp_path / "left-over.json").write_text("{}")
    subprocess.run([sys.executable, GRAFANA / "generate.py", "--to", tmp_path], check=True)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.json")}
    kept = {path.relative_to(FOLDER): path.read_text() for path in FOLDER.rglob("*.json")}
    assert made.keys() == kept.keys(), "run `make dashboards`"
    for name in made:
        assert made[name] == kept[name], f"{name}: run `make dashboards`"


def test_there_are_those_that_operators_want() -> None:
    assert {path.stem for path in BOARDS} == {"overview", "queue", "model", "triton", "redis", "objectives"}


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
class TestBoard:
    def test_it_is_found_by_alerts(self, path: Path) -> None:
        assert json.loads(path.read_text())["uid"] == f"clicv2-{path.stem}"

    def test_its_panels_fit(self, path: Path) -> None:
        """None lies over another or beside the screen."""
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            taken |= cells

    def test_each_panel_says_what_it_tells(self, path: Path) -> None:
        for panel in json.loads(path.read_text())["panels"]:
            assert panel["title"]
            if panel["type"] == "row":
                continue
            assert panel["description"]
            unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit") or panel["options"]["yAxis"]["unit"]
            assert unit
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters) > 0

    def test_a_tile_is_of_now(self, path: Path) -> None:
        """Over a range Grafana takes the last number that there is: what a dead worker said last would look well."""
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] in ("stat", "table"):
                for target in panel["targets"]:
                    assert target["instant"] is True, panel["title"]
                    assert target["range"] is False, panel["title"]

    def test_its_data_come_from_the_source_that_is_chosen(self, path: Path) -> None:
        board = json.loads(path.read_text())
        [source] = board["templating"]["list"]
        assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
        for panel in board["panels"]:
            for target in panel.get("targets") or ():
                assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_who_is_woken_reads_what_is_wrong_and_is_led_to_what_to_do() -> None:
    """On the overview, below the tiles: each alert in words, and a click away its runbook."""
    [panel] = [one for one in json.loads((FOLDER / "overview.json").read_text())["panels"] if one["type"] == "table"]
    assert panel["gridPos"]["y"] <= 4
    said, links = {}, set()
    for override in panel["fieldConfig"]["overrides"]:
        for each in override["properties"]:
            if each["id"] == "links":
                links |= {link["url"] for link in each["value"]}
                [mapping] = [one["value"] for one in override["properties"] if one["id"] == "mappings"]
                said = {name: shown["text"] for name, shown in mapping[0]["options"].items()}
    uids = {json.loads(path.read_text())["uid"] for path in FOLDER.rglob("*.json")}
    assert links == {"/d/runbook-${__value.raw}"}
    for group in yaml.safe_load((ROOT / "docker/prometheus/rules/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            name = rule["alert"]
            assert said.pop(name) == f"{name}: {rule['annotations']['summary']}"
            assert f"runbook-{name}" in uids
    assert not said, "alerts that there are no longer"


# What no panel draws: told apart by looking at it once, and not watched.
UNWATCHED = {
    "process_virtual_memory_bytes",
    "process_start_time_seconds",
    "python_info",
    "python_gc_objects_collected",
    "python_gc_objects_uncollectable",
}


def test_whatever_the_service_tells_is_seen_somewhere() -> None:
    """In a panel, or in a rule that one draws or that wakes somebody."""
    asked = "".join(path.read_text() for path in (*BOARDS, *(ROOT / "docker/prometheus/rules").glob("*.yml")))
    told = {family.name for family in Metrics().registry.collect()}
    assert {name for name in told if not re.search(rf"\b{name}(_total|_bucket|_sum|_count)?\b", asked)} == UNWATCHED


def test_a_runbook_is_a_dashboard_of_its_own() -> None:
    for path in (FOLDER / "runbooks").glob("*.json"):
        board = json.loads(path.read_text())
        assert board["uid"] == f"runbook-{board['title'].removeprefix('Runbook: ').replace(' ', '')}"
        [panel] = board["panels"]
        page = (ROOT / f"docs/runbooks/{path.stem}.md").read_text()
        assert panel["options"]["mode"] == "markdown"
        shown, written = panel["options"]["content"].splitlines(), page.strip().splitlines()[2:]
        assert len(shown) == len(written)
        for line, before in zip(shown, written, strict=True):
            assert line == before or "](" in line


def test_a_runbook_leads_on_in_grafana_too() -> None:
    """To other runbooks and to dashboards, each of which is there; who is woken has nothing but Grafana."""
    uids = {json.loads(path.read_text())["uid"] for path in FOLDER.rglob("*.json")}
    ways = 0
    for path in (FOLDER / "runbooks").glob("*.json"):
        content = json.loads(path.read_text())["panels"][0]["options"]["content"]
        for to in re.findall(r"\]\(([^)]*)\)", content):
            assert to.removeprefix("/d/") in uids, f"{path.stem}: {to}"
            ways += 1
        assert not re.search(r"dashboard \*", content), path.stem
    assert ways > 40


def test_what_is_provisioned_is_mounted() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/dashboards.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    assert mounts["./docker/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./docker/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = Path(compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (FOLDER / home.relative_to(provider["options"]["path"])).is_file()
    for source in yaml.safe_load((GRAFANA / "provisioning/datasources/sources.yml").read_text())["datasources"]:
        host = source["url"].removeprefix("http://").partition(":")[0]
        assert host in compose
