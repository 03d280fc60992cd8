"""Paths as text that any reader of tables takes: UTF-8, on one line, and one text for one path.

Names on a disk are bytes. Those that are no UTF-8, and control characters, are written \\xNN; so is the backslash
itself, that no other name has the same text.
"""

import os
import re

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
# Control characters, the backslash, and the surrogates by which Python carries bytes that are no UTF-8.
_TO_ESCAPE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
_NOT_SHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_LONGEST_MESSAGE = 500


def as_text(path: str) -> str:
    return _TO_ESCAPE.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in os.fsencode(found[0])), path)


def as_path(text: str) -> str:
    """What `as_text` was made of. Raises ValueError for a text that it does not write."""
    if "\\" not in text:
        return text
    path = os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text.encode()))
    if as_text(path) != text:
        raise ValueError(f"not a path as it is written here: {text}")
    return path


def one_line(message: object) -> str:
    """A message that disturbs no table and no terminal."""
    return _NOT_SHOWN.sub(" ", str(message)).strip()[:_LONGEST_MESSAGE]
