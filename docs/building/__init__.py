"""What Sphinx does for this site beyond its own: an extension, see `setup`."""

from sphinx.application import Sphinx

from building import accessible, sdk
from building.files import Copies
from building.pages import Reader


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("navigation", {}, "env")
    copies = Copies()
    app.connect("source-read", Reader(copies).read)
    app.connect("html-collect-pages", copies.pages)
    app.connect("build-finished", accessible.mend)
    app.connect("autodoc-process-signature", sdk.pictures_by_name)
    app.connect("autodoc-process-docstring", sdk.one_attribute_each, priority=400)  # napoleon's is 500
    return {"parallel_read_safe": False, "parallel_write_safe": True}
