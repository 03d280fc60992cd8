"""Progress bars and messages go to standard error: standard output is for results alone."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

CONSOLE = Console(stderr=True)


def show_progress(items: Iterable[T], description: str) -> Iterator[T]:
    """Iterate with a progress bar that knows the number of items."""
    yield from track(items, description=description, console=CONSOLE)
