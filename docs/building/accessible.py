"""What the generator forgets to tell a screen reader; axe looks after it in the site's test."""

import re
from pathlib import Path

from sphinx.application import Sphinx

_MENDED = {
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Pages of this site">',
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    # Markdown's tables must have a head; where it says nothing, it is none.
    '<th class="head"><p></p></th>': "<td></td>",
    # A table that is wider than a phone is scrolled, by keyboard too.
    '<div class="table-wrapper ': '<div tabindex="0" class="table-wrapper ',
}
# Parameters on lines of their own are called definitions, of nothing.
_LINES = re.compile(r"<dl>\n((?:<dd>.*?</dd>\n)+)</dl>")


def mend(app: Sphinx, error: Exception | None) -> None:
    """Sphinx's `build-finished`."""
    if error is not None:
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text()
        for forgotten, said in _MENDED.items():
            text = text.replace(forgotten, said)
        text = _LINES.sub(lambda lines: f'<div class="lines">{re.sub("(?<=[</])dd>", "div>", lines[1])}</div>', text)
        page.write_text(text)
