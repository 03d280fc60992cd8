"""A page as Sphinx shall read it: what its comments ask for put in, and links that leave docs/ led to copies.

    <!-- site: include ../MODEL_CARD.md -->
    On GitHub this is seen: [the model card](../MODEL_CARD.md).
    <!-- site: end -->

On GitHub the comments are not seen and what stands between them is; in the site it is the other way round.
"""

import json
import re
from pathlib import Path

from sphinx.application import Sphinx

from building import api, commands, sdk
from building.files import Copies
from building.links import Links

# Markdown of other folders that is a page of the site, so a link to it is a link to that page.
ELSEWHERE = {
    "MODEL_CARD.md": "model-card",
    "CHANGELOG.md": "changelog",
    "client/README.md": "sdk",
    "docker/README.md": "containers",
}
_ASKED = re.compile(r"<!-- site: (?P<what>\w+) ?(?P<of>\S*) -->\n.*?<!-- site: end -->\n", re.DOTALL)


class Reader:
    """Reads the pages.

    Args:
        copies: of what they link to outside docs/.
    """

    def __init__(self, copies: Copies) -> None:
        self._copies = copies

    def read(self, app: Sphinx, docname: str, source: list[str]) -> None:
        """Sphinx's `source-read`: replaces `source[0]`."""
        docs = Path(app.srcdir)
        page = docs / f"{docname}.md"
        links = Links(docs, page, ELSEWHERE, self._copies)

        def put_in(match: re.Match[str]) -> str:
            name, _, section = match["of"].partition("#")
            target = (page.parent / name).resolve()
            match match["what"]:
                case "include":
                    return links.led(_section(target.read_text(), section), target)
                case "api":
                    return api.markdown(json.loads(target.read_text()))
                case "sdk":
                    return sdk.markdown()
                case "commands":
                    return commands.markdown()
                case other:
                    raise ValueError(f"{page}: there is no {other!r} to put in")

        text = source[0]
        # What is put in was written elsewhere, and its links are led from there.
        read, last = [], 0
        for asked in _ASKED.finditer(text):
            read += [links.led(text[last : asked.start()], page), put_in(asked)]
            last = asked.end()
        source[0] = "".join(read) + links.led(text[last:], page)
        if docname == app.config.root_doc:
            source[0] += "".join(_toctree(title, pages) for title, pages in app.config.navigation.items())


def _section(text: str, name: str) -> str:
    """What stands under the heading `name`, or below the first heading if there is no name."""
    if name:
        found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
        if found is None:
            raise ValueError(f"no section {name!r}")
        return found[1]
    return re.sub(r"\A# .*\n", "", text)


def _toctree(title: str, pages: list[str]) -> str:
    glob = ":glob:\n" if any("*" in page for page in pages) else ""
    return f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n{glob}\n" + "\n".join(pages) + "\n```\n"
