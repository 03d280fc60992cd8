"""The store's steps, each one script: Redis runs it whole or not at all, and nothing in between.

The data layout is drawn at the top of `common.lua`.
"""

from importlib.resources import files

NAMES = (
    "begin", "add", "refuse", "submit", "forget", "claim", "renew", "take", "finish", "release", "claim_hook",
    "settle_hook", "held",
)  # fmt: skip


def source(name: str) -> str:
    """A script with what they all share in front, for Lua in Redis can include nothing."""
    folder = files(__name__)
    return "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name))
