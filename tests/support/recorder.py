"""What this process asks the kernel for, as Python itself tells it: below asyncio, so nothing of it goes unseen.

uvloop connects without telling.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Recorder:
    """Connections that were even tried, and names that the operating system's resolver was asked for.

    Attributes:
        connects: addresses, in order.
        lookups: hosts, in order.
    """

    connects: list[str] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)
    recording: bool = False

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.recording:
            return
        if event in ("socket.connect", "socket.sendto"):
            where = arguments[1]
            self.connects.append(str(where[0]) if isinstance(where, tuple) else repr(where))
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self.lookups.append(str(arguments[0]))


_RECORDER = Recorder()
sys.addaudithook(_RECORDER.hear)  # cannot be taken back, only made to stop recording


@contextmanager
def recorded() -> Iterator[Recorder]:
    """What happens while the block lasts."""
    _RECORDER.connects.clear()
    _RECORDER.lookups.clear()
    _RECORDER.recording = True
    try:
        yield _RECORDER
    finally:
        _RECORDER.recording = False
