"""Rows in order and bounded, a road that can be left at any moment, and the bar beside it."""

import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from clicv2.errors import Corrupt
from clicv2.sources import ImageSource
from service.files.errors import ServerFailed
from service.files.finding import Finder, Found, Picture, Trouble
from service.files.pipeline import PictureError, rows
from service.files.progress import Bar
from service.files.rows import Row
from service.files.score_file import Making
from service.files.stopping import Ahead, Stop

MAKING = Making.by("clicv2", 1, "ab" * 32, None)


def picture(number: int) -> Picture:
    return Picture(str(number), ImageSource(str(number), Path(str(number))))


class Slow:
    """Takes longer for the first of every eight; knows how many it has begun."""

    making = MAKING
    max_bytes = 1_000

    def __init__(self, errors: dict[int, Exception] | None = None) -> None:
        self.begun = 0
        self._errors = errors or {}
        self._lock = threading.Lock()

    def row(self, picture: Picture) -> Row:
        number = int(picture.path)
        with self._lock:
            self.begun += 1
        time.sleep(0.02 if number % 8 == 0 else 0.001)
        if number in self._errors:
            raise self._errors[number]
        return Row(path=picture.path, score=0.5)


def test_rows_keep_their_order() -> None:
    found = rows(map(picture, range(100)), Slow(), 4, Stop())
    assert [row.path for row in found] == [str(n) for n in range(100)]


def test_what_is_wrong_with_one_picture_is_its_row() -> None:
    errors = {
        1: OSError(2, "No such file or directory", "/secret/path"), 2: Corrupt("torn\nin two"), 3: PictureError("NaN"),
        4: MemoryError(),
    }  # fmt: skip
    given: list[Found] = [*map(picture, range(6)), Trouble("dir", "Permission denied")]
    found = list(rows(given, Slow(errors), 2, Stop()))
    assert [row.error for row in found] == [
        None, "No such file or directory", "torn in two", "NaN", "there is not enough memory for it", None,
        "Permission denied",
    ]  # fmt: skip
    assert {row.model for row in found if row.error} == {"clicv2:1"}


def test_what_is_wrong_with_all_of_them_ends_it() -> None:
    with pytest.raises(ServerFailed, match="gone"):
        list(rows(map(picture, count()), Slow({3: ServerFailed("gone")}), 2, Stop()))


def test_what_finds_pictures_may_fail() -> None:
    def failing() -> Iterator[Found]:
        yield picture(1)
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        list(rows(failing(), Slow(), 2, Stop()))


def test_few_pictures_are_begun_ahead_of_who_takes_them() -> None:
    taken = iter(count())
    scorer = Slow()
    found = rows(map(picture, taken), scorer, 2, Stop())
    next(found)
    time.sleep(0.5)
    assert scorer.begun <= 2 * 8 + 4
    assert next(taken) <= 2 * 8 + 4
    found.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_row_does_not_wait_for_the_next_picture() -> None:
    more = threading.Event()

    def typed() -> Iterator[Found]:
        yield picture(1)
        more.wait(30)
        yield picture(2)

    found = rows(typed(), Slow(), 2, Stop())
    assert next(found).path == "1"  # the second is there only now:
    more.set()
    assert next(found).path == "2"


def test_asked_to_stop_what_is_begun_is_finished() -> None:
    with Stop() as stop:
        found = rows(map(picture, count()), Slow(), 2, stop)
        first = [next(found) for _ in range(10)]
        os.kill(os.getpid(), signal.SIGINT)
        rest = list(found)
    assert stop.exit_code == 130
    numbers = [int(row.path) for row in [*first, *rest]]
    assert numbers == list(range(len(numbers)))
    assert len(rest) <= 2 * 8 + 4


def test_a_list_that_nobody_continues_does_not_hold_up_a_stop() -> None:
    with Stop() as stop:
        items = Ahead(iter(threading.Event().wait, None), 4, stop)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert not list(items)
    assert stop.exit_code == 143


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_no_bar_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    with Bar("scoring", range(10), shown=True) as bar:
        bar.advance()
    assert capfd.readouterr() == ("", "")


def test_the_bar_tells_rate_and_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Bar("scoring", range(2000), 500, shown=True) as bar:
        for _ in range(1000):
            bar.advance()
            time.sleep(0.0005)
    shown = terminal.getvalue()
    assert "scoring" in shown
    assert "1500/2000" in shown
    assert "/s" in shown


class Reading(Slow):
    """Reads what it is given."""

    def row(self, picture: Picture) -> Row:
        data = picture.source.read(self.max_bytes)
        return Row(path=picture.path, score=0.5, bytes=len(data))


def test_what_streams_by_is_held_until_its_turn(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as tar:
        for number, size in enumerate([10, 1_001, *[20] * 50]):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    with Stop() as stop:
        found = list(rows(Finder([str(tmp_path / "s.tar.gz")]), Reading(), 3, stop))
    assert [row.bytes for row in found] == [10, None, *[20] * 50]
    assert "1001 bytes" in str(found[1].error)
