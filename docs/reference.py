"""Write the pages that are made from the code, openapi.json, errors.md and configuration.md: `make schema`.

They are as the default settings make them. A test fails when they are not what the code says.
"""

import json
from pathlib import Path

from service.app import assemble, create_app
from service.catalog import Catalog
from service.queue.memory import MemoryQueue
from service.routes import problem_pages
from service.settings import Settings

DOCS = Path(__file__).parent


def pages() -> dict[Path, str]:
    """Each page and its text."""
    # Without a look at the environment, in which the reader's own settings may be.
    settings = Settings.model_construct(host="127.0.0.1", port=8000)
    catalog = Catalog(DOCS.parent / settings.model_repository / settings.model)
    queue = MemoryQueue(capacity=1, lease_s=1, max_attempts=1, clock=lambda: 0.0)
    app = create_app(assemble(settings, catalog, queue, None))
    return {
        DOCS / "openapi.json": json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n",
        DOCS / "errors.md": problem_pages.markdown(),
        DOCS / "configuration.md": _configuration(),
    }


_CONFIGURATION = """# Configuration

`clicv2 serve` and `clicv2 worker` read their settings from the environment, once, at start. `HOST` and
`PORT` are named as everywhere; all others begin with `CLICV2_`. A test keeps this page true to
[service/settings.py](../service/settings.py), where each default is argued for.

| Variable | Default | What it is, and why the default |
|---|---|---|
"""
# What a default is that a machine or a folder decides.
_BY_CIRCUMSTANCE = {
    "threads": "number of cores",
    "model_version": "highest",
    "model_repository": "`model_repository` here",
}


def _configuration() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        variable = field.validation_alias or f"CLICV2_{name.upper()}"
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        rows.append(f"| `{variable}` | {_BY_CIRCUMSTANCE.get(name, default)} | {field.description} |\n")
    return _CONFIGURATION + "".join(rows)


def main() -> None:
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
