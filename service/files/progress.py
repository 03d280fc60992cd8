"""A bar on the standard error, where there is somebody to see it."""

import sys
from collections.abc import Iterable
from threading import Event, Thread
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from service.files.finding import Uncountable

_LOOKS = 1000  # pictures that are counted before the bar hears of them


class Bar:
    """Pictures done, how fast, and how long the rest will take; nothing at all where nobody looks.

    Args:
        description: what is done, in a word.
        pictures: the same that are worked on, to be counted by a thread of its own meanwhile; None if they cannot be.
            They may raise Uncountable.
        done: how many of them were done before.
        shown: False if something else is shown at the same place.
    """

    def __init__(self, description: str, pictures: Iterable[object] | None, done: int = 0, *, shown: bool) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # the results go there, and not through the bar
            redirect_stderr=False,
            disable=not (shown and sys.stderr.isatty()),
        )
        self._task: TaskID = self._progress.add_task(description, total=None, completed=done)
        self._over = Event()
        self._pictures = None if self._progress.disable else pictures

    def __enter__(self) -> Self:
        self._progress.start()
        if self._pictures is not None:
            Thread(target=self._count, args=(self._pictures,), daemon=True, name="count").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._progress.stop()

    def advance(self) -> None:
        self._progress.advance(self._task)

    def _count(self, pictures: Iterable[object]) -> None:
        number = 0
        try:
            for number, _ in enumerate(pictures, 1):
                if number % _LOOKS == 0 and self._over.is_set():
                    return
        except Uncountable:
            return
        self._progress.update(self._task, total=number)


class _Rate(ProgressColumn):
    """Pictures a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "-/s", style="progress.data.speed")
