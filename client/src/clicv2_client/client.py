"""Ask a service, and wait for its answers in the calling thread."""

from collections.abc import Generator, Iterable, Sequence
from threading import Event
from types import TracebackType
from typing import Self, Unpack

import httpx

from clicv2_client import calls
from clicv2_client.asking import Asking
from clicv2_client.calls import CompareOptions, HeatmapOptions, ScoreOptions, Terms
from clicv2_client.errors import Clicv2Error
from clicv2_client.jobs import Jobs
from clicv2_client.many import Scored, in_order
from clicv2_client.options import DEFAULT_MANY_TIMEOUT_S, DEFAULT_TIMEOUT_S, Options
from clicv2_client.pictures import Picture
from clicv2_client.results import Batch, Comparison, Complexity, HeatmapPicture, Model
from clicv2_client.retry import PATIENT, Retry


class Client:
    """A complexity service. Threads may share a client; close it, or use it as a context manager.

    >>> from clicv2_client import Client
    >>> with Client() as client:
    ...     0 <= client.score("photo.png").score <= 1
    True

    A call has `timeout_s` for all of its attempts and pauses. A service that is overloaded, restarts or is out of
    reach is asked again meanwhile; a repeated POST carries the first one's Idempotency-Key, so it is no second job. A
    stream that can be read but once, as a pipe, is sent once. Whatever a call raises is a `Clicv2Error`.

    Args:
        base_url: of the service; it may have a path. None: CLICV2_URL, else http://127.0.0.1:8000.
        api_key: None: CLICV2_API_KEY, else none.
        timeout_s: of calls that have none of their own.
        retry: how patiently calls are repeated.
        transport: how the service is reached: `httpx.HTTPTransport(verify=..., proxy=...)`, or
            `clicv2_client.testing.FakeService()`, which needs no server.

    Raises ValueError for a URL that is none.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry = PATIENT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        options = Options.of(base_url, api_key)
        self._url = options.base_url
        self._timeout_s = timeout_s
        self._asking = Asking(options, retry, transport)
        self.jobs = Jobs(self._asking, timeout_s)

    def __repr__(self) -> str:
        return f"Client({str(self._url)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._asking.close()

    def score(
        self,
        picture: Picture,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Complexity:
        """How visually complex a picture is, from 0 to 1.

        >>> client.score("photo.png").score > client.score("sky.png").score
        True
        >>> client.score("photo.png", heatmap="grid").heatmap.rows
        8
        >>> client.score("notes.txt")
        Traceback (most recent call last):
        clicv2_client.errors.UnsupportedImage: not a JPEG, PNG or WebP picture

        Args:
            picture: a path, the bytes of a file, a binary file object, a PIL image, a numpy array (uint8, [H, W], RGB
                or RGBA), or a URL as "https://...", which the service fetches if its operator allows that.
            idempotency_key: makes one score of several calls for the same picture, yours included; a call has one of
                its own.
            options: see `ScoreOptions`.
        """
        return self._asking.ask(calls.score(picture, self._terms(timeout_s, idempotency_key), **options))

    def score_many(
        self,
        pictures: Iterable[Picture],
        *,
        concurrency: int = 8,
        timeout_s: float = DEFAULT_MANY_TIMEOUT_S,
        **options: Unpack[ScoreOptions],
    ) -> Generator[Scored, None, None]:
        """Score pictures, in their order; what is wrong with one is that one's error.

        >>> for each in client.score_many(["photo.png", "notes.txt", "missing.png"]):
        ...     print(each.index, type(each.error).__name__)
        0 NoneType
        1 UnsupportedImage
        2 UnreadablePicture
        >>> scores = [each.unwrap().score for each in client.score_many(["photo.png", "sky.png"])]

        The pictures may have no end: they are taken one by one, in the thread that asks for results, and at most
        2 * concurrency of them are held. Stop taking results and nothing more is sent.

        Args:
            concurrency: pictures on their way at once.
            timeout_s: of each picture, from the moment that it is its turn. A service that has too much to do is
                waited for.
            options: see `ScoreOptions`.
        """
        terms = self._terms(timeout_s, None)
        over = Event()

        def one(index: int, picture: Picture) -> Scored:
            try:
                return Scored(index, picture, result=self._asking.ask(calls.score(picture, terms, **options), over))
            except Clicv2Error as error:
                return Scored(index, picture, error=error)

        return in_order(pictures, one, concurrency, over.set)

    def score_batch(
        self,
        pictures: Sequence[Picture],
        *,
        timeout_s: float = DEFAULT_MANY_TIMEOUT_S,
        idempotency_key: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Batch:
        """Score pictures in one request. `score_many` is for more of them than a request may hold, and for URLs.

        >>> batch = client.score_batch(["photo.png", "notes.txt"])
        >>> batch.counts.scored, type(batch.items[1].error).__name__
        (1, 'UnsupportedImage')

        Args:
            timeout_s: of all of them together.
            options: see `ScoreOptions`.
        """
        return self._asking.ask(calls.score_batch(pictures, self._terms(timeout_s, idempotency_key), **options))

    def score_archive(
        self,
        archive: Picture,
        *,
        timeout_s: float = DEFAULT_MANY_TIMEOUT_S,
        idempotency_key: str | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Batch:
        """Score the pictures in a zip, a tar or a tar.gz.

        Args:
            archive: a path, bytes, or a binary file object.
            timeout_s: of all of them together.
            options: see `ScoreOptions`.
        """
        return self._asking.ask(calls.score_archive(archive, self._terms(timeout_s, idempotency_key), **options))

    def heatmap(
        self,
        picture: Picture,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[HeatmapOptions],
    ) -> HeatmapPicture:
        """Where a picture is complex, as a picture, with its scores.

        >>> where = client.heatmap("photo.png", colormap="magma", size=256)
        >>> where.media_type, 0 <= where.score <= 1
        ('image/png', True)
        >>> where.save("where.png")

        Args:
            options: see `HeatmapOptions`.
        """
        return self._asking.ask(calls.heatmap(picture, self._terms(timeout_s, idempotency_key), **options))

    def compare(
        self,
        pictures: Sequence[Picture],
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[CompareOptions],
    ) -> Comparison:
        """Two or more pictures side by side: scores, ranks, and every two's difference.

        >>> compared = client.compare(["photo.png", "sky.png"])
        >>> [(each.name, each.rank) for each in compared.pictures]
        [('photo.png', 1), ('sky.png', 2)]
        >>> compared.differences[0].score < 0
        True

        Args:
            options: see `CompareOptions`.
        """
        return self._asking.ask(calls.compare(pictures, self._terms(timeout_s, idempotency_key), **options))

    def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """The models that are served.

        >>> [model.name for model in client.models()]
        ['clicv2']
        """
        return self._asking.ask(calls.models(self._terms(timeout_s, None)))

    def model(self, name: str = "clicv2", *, timeout_s: float | None = None) -> Model:
        """A model: how it was made, and how good it is.

        >>> client.model("clicv2").grid
        (8, 8)
        """
        return self._asking.ask(calls.model(name, self._terms(timeout_s, None)))

    def _terms(self, timeout_s: float | None, key: str | None) -> Terms:
        return Terms(self._timeout_s if timeout_s is None else timeout_s, key)
