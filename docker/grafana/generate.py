"""Write dashboards/ anew, from the code here and the runbooks: `make dashboards`. A test fails when they differ.

Runbooks are dashboards too: where an alert leads, at three in the morning, nothing but Grafana need be there.
"""

import argparse
import json
import re
from pathlib import Path

import yaml
from boards import model, objectives, overview, queue, redis, triton
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from panels import board, markdown

HERE = Path(__file__).parent
RUNBOOKS = HERE.parents[1] / "docs/runbooks"
ALERTS = HERE.parent / "prometheus/rules/alerts.yml"


def in_grafana(page: str) -> str:
    """A runbook whose ways to other runbooks and to dashboards lead there in Grafana, too."""
    page = re.sub(r"\]\(([a-z-]+)\.md\)", lambda found: f"](/d/{runbook_uid(found[1])})", page)
    return re.sub(r"dashboard \*(\w+)\*", lambda found: f"dashboard [{found[1]}](/d/clicv2-{found[1].lower()})", page)


def runbook_uid(page: str) -> str:
    """By the alert's name, which is all that a panel knows of an alert; `page`: no-workers."""
    return "runbook-" + "".join(word.capitalize() for word in page.split("-"))


def summaries() -> dict[str, str]:
    """What each alert means, by its name."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["annotations"]["summary"] for group in groups for rule in group["rules"]}


def dashboards() -> dict[str, Dashboard]:
    """By their path, without the suffix."""
    found = {"overview": overview.build(summaries())}
    for module in (queue, model, triton, redis, objectives):
        found[module.__name__.rpartition(".")[2]] = module.build()
    for page in sorted(RUNBOOKS.glob("*.md")):
        title, _, rest = page.read_text(encoding="utf-8").partition("\n")
        name = f"Runbook: {title.removeprefix('# ')}"
        runbook = board(runbook_uid(page.stem), name, "What to do about this alert.")
        found[f"runbooks/{page.stem}"] = runbook.tags(["clicv2-runbook"]).with_panel(markdown(in_grafana(rest.strip())))
    return found


def write(folder: Path) -> None:
    """Exactly these files, and no other JSON."""
    wanted = {folder / f"{name}.json": each for name, each in dashboards().items()}
    for old in set(folder.rglob("*.json")) - wanted.keys():
        old.unlink()
    for path, each in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        built = each.build()
        for number, panel in enumerate(built.panels or (), 1):
            panel.id_val = number  # by which links find it
        text = json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=HERE / "dashboards")
    write(parser.parse_args().to)
