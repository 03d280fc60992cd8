"""The SDK's reference out of its docstrings, as Sphinx's autodoc reads them."""

import re

from clicv2_client import errors
from clicv2_client.pictures import Picture
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

_PARTS = {
    "The clients": """
.. autoclass:: clicv2_client.Client
   :members:

.. autoclass:: clicv2_client.AsyncClient
   :members:
""",
    "Jobs": """
.. autoclass:: clicv2_client.jobs.Jobs
   :members:
   :exclude-members: __init__

.. autoclass:: clicv2_client.jobs.AsyncJobs
   :members:
   :exclude-members: __init__
""",
    "Pictures and options": """
.. py:type:: Picture

   A path, the bytes of a file, a binary file object, a PIL image, a numpy array (uint8, [H, W], RGB or RGBA), or a URL
   as "https://...".

.. autoclass:: clicv2_client.pictures.ImageLike
.. autoclass:: clicv2_client.pictures.ArrayLike
.. autoclass:: clicv2_client.ScoreOptions
.. autoclass:: clicv2_client.HeatmapOptions
.. autoclass:: clicv2_client.CompareOptions
.. autoclass:: clicv2_client.calls.JobOptions
.. autoclass:: clicv2_client.Retry
.. py:data:: NEVER

   `Retry(attempts=1)`: fails at once.
""",
    "Results": """
.. autoclass:: clicv2_client.Scored
   :members:

.. automodule:: clicv2_client.results
   :members:
   :exclude-members: model_config
""",
    "Errors": """
.. code-block:: text

{tree}

.. autoclass:: clicv2_client.errors.Clicv2Error
   :members:
.. autoclass:: clicv2_client.errors.Problem
   :members:
.. autoclass:: clicv2_client.errors.ProblemDocument
""",
    "For your tests": """
.. autoclass:: clicv2_client.testing.FakeService
   :members: fail, disconnect
""",
}
_SPELT_OUT = stringify_annotation(Picture, "smart")
_SEVERAL = re.compile(r"^(\s+)(\w+(?:, \w+)+): (.*)$")


def markdown() -> str:
    tree = "\n".join("   " + line for line in (errors.__doc__ or "").strip().split("\n\n")[1].splitlines())
    return "".join(
        f"\n## {title}\n\n```{{eval-rst}}\n{text.replace('{tree}', tree).strip()}\n```\n"
        for title, text in _PARTS.items()
    )


def one_attribute_each(
    _app: Sphinx, _what: str, _name: str, _thing: object, _options: object, lines: list[str]
) -> None:
    """Sphinx's `autodoc-process-docstring`, before napoleon's, to which `width, height: ...` is one strange name."""
    place = 0
    while place < len(lines):
        found = _SEVERAL.match(lines[place])
        end = place + 1
        if found:
            indent, names, text = found.groups()
            while end < len(lines) and lines[end].startswith(f"{indent}    "):
                end += 1
            lines[place:end] = [
                line for each in names.split(", ") for line in (f"{indent}{each}: {text}", *lines[place + 1 : end])
            ]
        place += 1


def pictures_by_name(
    _app: Sphinx, _what: str, _name: str, _thing: object, _options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Sphinx's `autodoc-process-signature`: a picture is not everything that it may be, each time."""
    return signature and signature.replace(_SPELT_OUT, "Picture"), returns
