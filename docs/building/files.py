"""Files of the project that pages link to, as pages: a reader of the site may have no other copy at hand."""

import html
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder

FOLDER = "files"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".md": "markdown", ".json": "json", ".lua": "lua"}
ROOT = Path(__file__).parents[2]


class Copies:
    """The files that pages have linked to so far. Every page must be read anew in a build: `sphinx-build -E`."""

    def __init__(self) -> None:
        self._wanted: set[Path] = set()

    def page_of(self, path: Path) -> str:
        """The path, from the site's root, of the page that the file or folder will have."""
        self._wanted.add(path)
        if path.is_dir():  # what it lists is a link too
            self._wanted.update(_listed(path))
        return f"{FOLDER}/{path.relative_to(ROOT)}.html"

    def pages(self, app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
        """Sphinx's `html-collect-pages`."""
        for path in sorted(self._wanted):
            name = str(path.relative_to(ROOT))
            body = _folder(path) if path.is_dir() else _highlighted(app, path)
            title = html.escape(name)
            yield f"{FOLDER}/{name}", {"title": title, "body": f"<h1>{title}</h1>{body}"}, "page.html"


def _listed(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_file() and not each.name.startswith("."))


def _folder(folder: Path) -> str:
    names = [html.escape(path.name) for path in _listed(folder)]
    return "<ul>" + "".join(f'<li><a href="{folder.name}/{name}.html">{name}</a></li>' for name in names) + "</ul>"


def _highlighted(app: Sphinx, path: Path) -> str:
    assert isinstance(app.builder, StandaloneHTMLBuilder)  # noqa: S101  # no other collects pages
    language = LANGUAGES.get(path.suffix, "text")
    return app.builder.highlighter.highlight_block(path.read_text(), language)
