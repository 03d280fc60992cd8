"""Scores files by asking a service, through its client."""

from http import HTTPStatus
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

from service.files.errors import Missing, ServerFailed
from service.files.finding import Picture
from service.files.heatmaps import SIDE, Heatmaps
from service.files.names import as_text, one_line
from service.files.pipeline import PictureError
from service.files.rows import Row
from service.files.score_file import Making

if TYPE_CHECKING:
    from clicv2_client import Complexity

# To find out at the start whether anybody is there.
_LOOK_S = 10.0
# Pictures one after the other for which the server had no time or no valid answer: then it is not the pictures.
_HOPELESS = 20


class RemoteScorer:
    """See `service.files.pipeline.Scorer`. Close it, or use it as a context manager."""

    def __init__(
        self, url: str, timeout_s: float, model: str, max_bytes: int, heatmaps: Heatmaps | None = None
    ) -> None:
        """Ask which model answers. Raises Missing, ServerFailed, ValueError for a URL that is none.

        Args:
            timeout_s: of a picture, with all tries again; nobody sits in front of a single one, so it may be long.
            model: its name.
            max_bytes: of a file that is sent.
        """
        try:
            from clicv2_client import Clicv2Error, Client
        except ImportError:
            raise Missing("clicv2-client", "--server", "./client") from None
        self._client = Client(url, timeout_s=timeout_s)
        self.max_bytes = max_bytes
        self._heatmaps = heatmaps
        self._failures = _InARow()
        try:
            found = self._client.model(model, timeout_s=min(timeout_s, _LOOK_S))
        except Clicv2Error as error:
            self._client.close()
            raise ServerFailed(f"{url}: {one_line(error)}") from error
        folder = heatmaps.folder if heatmaps else None
        self.making = Making.by(one_line(found.name), found.version, found.sha256, folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def row(self, picture: Picture) -> Row:
        from clicv2_client import Rendering

        data = picture.source.read(self.max_bytes)
        answer = self._ask(data)
        model = f"{one_line(answer.model.name)}:{answer.model.version}"
        if model != self.making.model:
            raise ServerFailed(f"the server answers by {model} now, and no longer by {self.making.model}")
        place = None
        if self._heatmaps:
            if not isinstance(answer.heatmap, Rendering):
                raise ServerFailed("the server makes no overlays")
            place = self._heatmaps.save(picture.path, answer.heatmap.data)
        return Row(
            path=picture.path,
            score=answer.score,
            percentile=answer.percentile,
            entropy=answer.entropy,
            width=answer.image.width,
            height=answer.image.height,
            format=one_line(answer.image.format),
            bytes=len(data),
            sha256=one_line(answer.image.sha256),
            model=self.making.model,
            model_sha256=self.making.model_sha256,
            heatmap=as_text(str(place)) if place else None,
        )

    def _ask(self, data: bytes) -> "Complexity":
        from clicv2_client import Clicv2Error, errors

        try:
            if self._heatmaps:
                answer = self._client.score(data, heatmap="overlay", heatmap_size=SIDE)
            else:
                answer = self._client.score(data)
        except (errors.InferenceFailed, errors.DeadlineExceeded) as error:
            if self._failures.one_more() >= _HOPELESS:
                raise ServerFailed(
                    f"the server has no answers for {_HOPELESS} pictures, one after the other: {one_line(error)}"
                ) from error
            raise PictureError(str(error)) from error
        except Clicv2Error as error:
            if isinstance(error, errors.BadPicture) or _is_too_large(error):
                self._failures.over()
                raise PictureError(str(error)) from error
            # The next picture would fare no better.
            raise ServerFailed(f"the server has no answers: {one_line(error)}") from error
        self._failures.over()
        return answer


class _InARow:
    """Counts what happens again and again, for threads."""

    def __init__(self) -> None:
        self._number = 0
        self._lock = Lock()

    def one_more(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def over(self) -> None:
        with self._lock:
            self._number = 0


def _is_too_large(error: Exception) -> bool:
    """Also where a proxy says so, in words of its own."""
    from clicv2_client import errors

    return isinstance(error, errors.Problem) and error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
