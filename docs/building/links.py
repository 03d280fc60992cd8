"""Links of Markdown that leave docs/: to the page that shows the file, or to a copy of it in the site."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from sphinx.util import logging

from building.files import Copies

_LOGGER = logging.getLogger(__name__)
_FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*?$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<to>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)")


class Links:
    """The links of one page.

    Args:
        docs: the folder of pages.
        page: that is being read.
        elsewhere: files beside docs/, by their path from the project's root, and the page that shows each.
        copies: of what no page shows.
    """

    def __init__(self, docs: Path, page: Path, elsewhere: Mapping[str, str], copies: Copies) -> None:
        self._docs = docs
        self._folder = page.parent
        self._elsewhere = elsewhere
        self._copies = copies

    def led(self, text: str, written_in: Path) -> str:
        """The text with its links as they must be on this page, wherever the text was written."""
        parts, last = [], 0
        for fence in _FENCE.finditer(text):
            parts += [self._led(text[last : fence.start()], written_in), fence[0]]
            last = fence.end()
        return "".join(parts) + self._led(text[last:], written_in)

    def _led(self, text: str, written_in: Path) -> str:
        def lead(match: re.Match[str]) -> str:
            if re.match(r"[a-z]+:", match["to"]):
                return match[0]
            target = (written_in.parent / match["to"]).resolve()
            name = os.path.relpath(target, self._docs.parent)
            if not target.exists():
                _LOGGER.warning("%s: a link leads nowhere: %s", written_in, match["to"])
                return match[0]
            anchor = match["anchor"] or ""
            if name in self._elsewhere:
                target = self._docs / f"{self._elsewhere[name]}.md"
            elif not target.is_relative_to(self._docs) or target.suffix == ".py" or target.is_dir():
                where = os.path.relpath(self._docs / self._copies.page_of(target), self._folder)
                return f'<a class="reference internal" href="{where}">{match["text"]}</a>'
            return f"{match['image']}[{match['text']}]({os.path.relpath(target, self._folder)}{anchor})"

        return _LINK.sub(lead, text)
