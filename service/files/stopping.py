"""SIGINT and SIGTERM: the first time what is begun is finished and written, the second time nothing is."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Semaphore, Thread
from types import FrameType, TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FAREWELL_S = 0.5  # for the thread to see that it is over; one that waits for a list does not


class Stop:
    """Takes both signals while it is entered.

    Attributes:
        number: of the signal that came, 0 before.
    """

    def __init__(self) -> None:
        self.number = 0
        self._told: list[Callable[[], None]] = []
        self._before: list[tuple[int, object]] = []

    def __enter__(self) -> Self:
        self._before = [(number, signal.signal(number, self._take)) for number in _SIGNALS]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]  # it is what `signal` returned

    @property
    def asked(self) -> bool:
        return self.number > 0

    @property
    def exit_code(self) -> int:
        """As a shell tells which signal it was."""
        return 128 + self.number

    def tell(self, told: Callable[[], None]) -> None:
        """Call this once it is asked to stop; by a signal handler, so it must not wait."""
        self._told.append(told)

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number
        for told in self._told:
            told()


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


class _End:
    """After the last item."""


class Ahead(Generic[T]):
    """Items that a thread of its own makes, at most `most` of them ahead of whoever takes them, in their order.

    So that who takes them waits for nothing else: not for a slow disk, nor for a list that somebody is still typing.
    Once it is asked to stop, no more are made; those that are there are still given.
    """

    def __init__(self, items: Iterable[T], most: int, stop: Stop) -> None:
        self._items = items
        self._room = Semaphore(most)
        self._made: SimpleQueue[T | _Failed | _End] = SimpleQueue()
        self._stop = stop
        self._over = False
        stop.tell(lambda: self._made.put(_End()))  # the thread may be waiting for ever

    def __iter__(self) -> Iterator[T]:
        maker = Thread(target=self._make, daemon=True, name="find")
        maker.start()
        try:
            while not isinstance(made := self._made.get(), _End):
                if isinstance(made, _Failed):
                    raise made.error
                self._room.release()
                yield made
        finally:
            self._over = True
            self._room.release()
            maker.join(_FAREWELL_S)

    def _make(self) -> None:
        try:
            for item in self._items:
                self._made.put(item)
                self._room.acquire()
                if self._over or self._stop.asked:
                    break
            self._made.put(_End())
        except BaseException as error:  # noqa: BLE001  # whoever takes the items is to have it
            self._made.put(_Failed(error))
