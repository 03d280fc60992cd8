"""One of several pictures in a request, before anybody has looked at it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

# For people and for the answer; no path is ever made of it.
MAX_NAME = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A part of a form, or an entry of an archive.

    Attributes:
        name: as the sender calls it; not unique.
        read: its bytes; CPU-bound in an archive, so call it off the event loop. Raises ServiceError or ImageError.
    """

    name: str
    read: Callable[[], bytes]

    @classmethod
    def of(cls, name: str, data: bytes) -> "Item":
        return cls(name, lambda: data)

    @classmethod
    def refused(cls, name: str, error: Exception) -> "Item":
        """One whose bytes nobody gets, and why."""

        def read() -> NoReturn:
            raise error

        return cls(name, read)


def as_name(raw: bytes) -> str:
    """What a sender calls a file, whatever the bytes; of a very long name the end."""
    return raw.decode("utf-8", "replace")[-MAX_NAME:]
