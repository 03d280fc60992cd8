"""Where kept results lie: bytes by key, bounded in size and in time."""

from typing import Protocol


class Store(Protocol):
    """Forgets when it likes and never fails: what it does not have, or cannot reach, is None.

    Keys are digests, so all of them are of one length and their bits are evenly spread.
    """

    async def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, perhaps a little later: nobody waits for it."""
        ...

    async def close(self) -> None:
        """End what is still to be kept, and let go of connections."""
        ...
