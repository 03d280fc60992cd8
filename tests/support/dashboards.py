"""The committed dashboards, and what their panels ask for."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docker/grafana/dashboards"


@dataclass(frozen=True)
class Asked:
    """An expression of a panel, with Grafana's variables filled in."""

    board: str
    panel: str
    expression: str
    legend: str

    def __str__(self) -> str:
        return f"{self.board}: {self.panel}: {self.expression}"


def asked(window: str) -> Iterator[Asked]:
    """By all panels; `window` stands for $__rate_interval."""
    for path in sorted(FOLDER.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets") or ():
                expression = target["expr"].replace("$__rate_interval", window)
                assert "$" not in expression.replace('"$1"', ""), f"a variable that nobody fills in: {expression}"
                yield Asked(path.stem, panel["title"], expression, target["legendFormat"])
