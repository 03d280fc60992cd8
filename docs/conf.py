"""The documentation site: `make docs` builds it into site/, and any warning fails the build.

Sphinx reads the same Markdown that GitHub shows. What a page cannot be there (the API's reference, another folder's
Markdown) is put in at build time by `building`, between two comments; a reader on GitHub sees a link in its place.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

project = "CLICv2 complexity service"
html_title = "CLICv2 complexity"
author = "CLICv2 complexity service"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "building"]
root_doc = "index"
exclude_patterns = ["building", "**/__pycache__"]
nitpicky = True
nitpick_ignore_regex = [
    # Other projects' names in the SDK's signatures: their pages are on the internet, which a build must not need.
    (r"py:.*", r"(httpx|pydantic|numpy|npt|np|PIL|Image|collections|datetime|pathlib|types|typing|os)\b.*"),
]

# The sidebar, in its order; every page must be in it, or the build fails.
navigation = {
    "Begin": ["quickstart"],
    "How to": [
        "how-to/data-set",
        "how-to/http",
        "how-to/nginx",
        "how-to/gpu",
        "how-to/batching",
        "how-to/own-ratings",
        "how-to/own-pictures",
    ],
    "Concepts": ["concepts/complexity", "concepts/learning", "concepts/heatmap", "model-card"],
    "Reference": ["api", "errors", "sdk", "commands", "configuration", "promises"],
    "Operations": ["production", "containers"],
    "When it alerts": ["runbooks/*"],
    "Training": ["training"],
    "Project": ["changelog"],
}

# GitHub's own anchors, so that a link to a heading works in both.
myst_heading_anchors = 3
myst_links_external_new_tab = False
# A page need not begin with its highest heading: what is included begins where its own headings do.
suppress_warnings = ["myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "code"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    # Against both backgrounds at least 4.5 : 1, which Furo's own blue is not on its grey.
    "light_css_variables": {"color-brand-primary": "#0b5c8a", "color-brand-content": "#0b5c8a"},
    "dark_css_variables": {"color-brand-primary": "#7cc4f0", "color-brand-content": "#7cc4f0"},
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
