"""What is asked of whatever remembers Idempotency-Keys."""

from typing import Protocol


class Ledger(Protocol):
    """Remembers for a while the first content that came under a name."""

    async def first(self, name: str, content: str) -> str:
        """What came first under the name: `content` itself if nothing had. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
