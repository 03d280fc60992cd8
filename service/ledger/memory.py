"""A ledger in this process's memory."""

from collections import OrderedDict
from collections.abc import Callable


class MemoryLedger:
    """See `service.ledger.protocol.Ledger`. Of too many names the oldest is forgotten early."""

    def __init__(self, *, capacity: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._ttl_s = ttl_s
        self._clock = clock
        self._pages: OrderedDict[str, tuple[float, str]] = OrderedDict()  # until when, and what; oldest first

    async def first(self, name: str, content: str) -> str:
        now = self._clock()
        while self._pages and next(iter(self._pages.values()))[0] <= now:
            self._pages.popitem(last=False)
        if name in self._pages:
            return self._pages[name][1]
        if len(self._pages) >= self._capacity:
            self._pages.popitem(last=False)
        self._pages[name] = (now + self._ttl_s, content)
        return content

    async def close(self) -> None:
        pass
