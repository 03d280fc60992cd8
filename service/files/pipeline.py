"""Pictures -> rows on several threads, in order, a bounded number at a time."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from clicv2.errors import ImageError
from service.files.finding import Found, Picture, why
from service.files.rows import Row
from service.files.score_file import Making
from service.files.stopping import Ahead, Stop

# Pictures that are begun, or done and waiting for a slower one before them, for each thread.
_AHEAD = 8


class PictureError(Exception):
    """A picture that this scorer has no answer for."""


class Scorer(Protocol):
    """Whoever scores pictures, many threads at once."""

    @property
    def making(self) -> Making: ...

    @property
    def max_bytes(self) -> int:
        """Of a picture: larger ones it has no answer for."""
        ...

    def row(self, picture: Picture) -> Row:
        """Raises OSError, ImageError, MemoryError or PictureError for the picture; FilesError for all of them."""
        ...


def rows(found: Iterable[Found], scorer: Scorer, threads: int, stop: Stop) -> Iterator[Row]:
    """A row of each, in their order; once asked to stop, of those that are begun. Raises FilesError."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="score")

    def begin(each: Found) -> Future[Row]:
        if isinstance(each, Picture):
            each.hold(scorer.max_bytes)
        return pool.submit(_row, each, scorer)

    try:
        for future in Ahead(map(begin, found), _AHEAD * threads, stop):
            if not (stop.asked and future.cancel()):
                yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _row(each: Found, scorer: Scorer) -> Row:
    if not isinstance(each, Picture):
        problem = each.why
    else:
        try:
            return scorer.row(each)
        except (OSError, ImageError, PictureError) as error:
            problem = why(error)
        except MemoryError:
            problem = "there is not enough memory for it"
    return Row(path=each.path, error=problem, model=scorer.making.model, model_sha256=scorer.making.model_sha256)
