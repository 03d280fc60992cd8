"""The metrics file of a run that may have been killed."""

import json
from pathlib import Path


def truncate_metrics(file: Path, step: int) -> None:
    """Forget what was measured after `step`, from which the run continues, and a line that a kill cut short."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    file.write_text("".join(kept))
