"""What each method asks of the service, and how its answer is read (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypedDict, Unpack
from urllib.parse import quote

from pydantic_core import to_json

from clicv2_client.answers import read, read_heatmap
from clicv2_client.bodies import Archive, Body, Bytes, Form
from clicv2_client.errors import UnknownJob, UnreadablePicture
from clicv2_client.exchange import KEY, Call
from clicv2_client.pictures import Picture, is_url, part_of
from clicv2_client.results import (
    Batch,
    Colormap,
    Comparison,
    Complexity,
    DifferenceKind,
    HeatmapKind,
    HeatmapPicture,
    Job,
    JobPage,
    Model,
    Models,
)

COMPLEXITY = "/v1/complexity"
# For a look at a job, which the service has ready.
LOOK_S = 10.0
JSON = "application/json"


class ScoreOptions(TypedDict, total=False):
    """What is wanted of a picture beside its scores. What is left out is as the service has it.

    Attributes:
        heatmap: "grid": numbers; "png": a coloured map; "overlay": the map over the grey picture.
        colormap, opacity, heatmap_size: how the map looks; the longest side is in pixels.
        embedding: also the model's features of the picture.
        model: "clicv2", or "clicv2:1" for no other version.
    """

    heatmap: HeatmapKind
    colormap: Colormap
    opacity: float
    heatmap_size: int
    embedding: bool
    model: str


class JobOptions(ScoreOptions, total=False):
    """`ScoreOptions` of each picture of a job, and how to hear of its end.

    Attributes:
        webhook: URL of a public host that gets a small signed POST when the job has ended.
    """

    webhook: str


class HeatmapOptions(TypedDict, total=False):
    """How the picture of a heatmap is wanted. What is left out is as the service has it.

    Attributes:
        kind: "overlay" (over the grey picture) unless it is to be "png" (the coloured map alone).
        size: longest side, in pixels.
        file: of which format it is to be; "png" unless it is to be "webp".
    """

    kind: Literal["png", "overlay"]
    colormap: Colormap
    opacity: float
    size: int
    model: str
    file: Literal["png", "webp"]


class CompareOptions(TypedDict, total=False):
    """What is wanted beside the differences of the scores. What is left out is as the service has it.

    Attributes:
        difference: of the heatmaps: "grid": numbers; "png": a picture of it.
        scale: the difference that has the strongest colour.
        heatmap_size: longest side, in pixels.
    """

    difference: DifferenceKind
    scale: float
    heatmap_size: int
    model: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What every call is told of how to be made.

    Attributes:
        timeout_s: until its result.
        key: its Idempotency-Key; None: one of our own making.
    """

    timeout_s: float
    key: str | None = None

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0, not {self.timeout_s}")


def score(picture: Picture, terms: Terms, **options: Unpack[ScoreOptions]) -> Call[Complexity]:
    _check("score", options, ScoreOptions)
    return Call(
        "POST",
        COMPLEXITY,
        partial(read, Complexity),
        terms.timeout_s,
        params=_written(options),
        headers=_headers(JSON, terms),
        body=_picture(picture),
        keyed=True,
        timed=True,
    )


def heatmap(picture: Picture, terms: Terms, **options: Unpack[HeatmapOptions]) -> Call[HeatmapPicture]:
    _check("heatmap", options, HeatmapOptions)
    names = {"kind": "heatmap", "size": "heatmap_size"}
    params = {names.get(name, name): value for name, value in options.items() if name != "file"}
    return Call(
        "POST",
        COMPLEXITY,
        read_heatmap,
        terms.timeout_s,
        params=_written({"heatmap": "overlay", **params}),
        headers=_headers(f"image/{options.get('file', 'png')}", terms),
        body=_picture(picture),
        keyed=True,
        timed=True,
    )


def compare(pictures: Sequence[Picture], terms: Terms, **options: Unpack[CompareOptions]) -> Call[Comparison]:
    _check("compare", options, CompareOptions)
    return Call(
        "POST",
        "/v1/compare",
        partial(read, Comparison),
        terms.timeout_s,
        params=_written(options),
        headers=_headers(JSON, terms),
        body=Form([part_of(picture) for picture in pictures]),
        keyed=True,
        timed=True,
    )


def score_batch(pictures: Sequence[Picture], terms: Terms, **options: Unpack[ScoreOptions]) -> Call[Batch]:
    _check("score_batch", options, ScoreOptions)
    return _batch(Form([part_of(picture) for picture in pictures]), terms, options)


def score_archive(archive: Picture, terms: Terms, **options: Unpack[ScoreOptions]) -> Call[Batch]:
    _check("score_archive", options, ScoreOptions)
    return _batch(Archive(part_of(archive)), terms, options)


def models(terms: Terms) -> Call[tuple[Model, ...]]:
    parse = partial(read, Models)
    return Call("GET", "/v1/models", lambda reply: parse(reply).models, terms.timeout_s, headers=_headers(JSON, terms))


def model(name: str, terms: Terms) -> Call[Model]:
    path = f"/v1/models/{quote(name, safe=':')}"
    return Call("GET", path, partial(read, Model), terms.timeout_s, headers=_headers(JSON, terms))


def submit(pictures: Sequence[Picture], terms: Terms, **options: Unpack[JobOptions]) -> Call[Job]:
    """Raises UnreadablePicture for URLs and pictures mixed, which one request cannot hold."""
    _check("submit", options, JobOptions)
    urls = [picture for picture in pictures if is_url(picture)]
    if urls and len(urls) < len(pictures):
        raise UnreadablePicture("a job's pictures are all URLs, or all are here: make two jobs")
    body: Body = Bytes(to_json({"urls": urls}), JSON) if urls else Form([part_of(picture) for picture in pictures])
    return _submit(body, terms, options)


def submit_archive(archive: Picture, terms: Terms, **options: Unpack[JobOptions]) -> Call[Job]:
    _check("submit_archive", options, JobOptions)
    return _submit(Archive(part_of(archive)), terms, options)


def job(job_id: str, terms: Terms) -> Call[Job]:
    return Call(
        "GET",
        _job(job_id),
        partial(read, Job),
        terms.timeout_s,
        {"limit": "0"},
        headers=_headers(JSON, terms),
        attempt_s=LOOK_S,
    )


def results(job_id: str, offset: int, terms: Terms) -> Call[JobPage]:
    return Call(
        "GET", _job(job_id), partial(read, JobPage), terms.timeout_s, {"offset": str(offset)}, _headers(JSON, terms)
    )


def delete(job_id: str, terms: Terms) -> Call[None]:
    return Call("DELETE", _job(job_id), lambda _: None, terms.timeout_s, done_by=UnknownJob)


def events(job_id: str, terms: Terms) -> Call[None]:
    headers = _headers("text/event-stream", terms)
    return Call("GET", f"{_job(job_id)}/events", lambda _: None, terms.timeout_s, headers=headers)


def _batch(body: Body, terms: Terms, options: Mapping[str, object]) -> Call[Batch]:
    return Call(
        "POST",
        "/v1/complexity/batch",
        partial(read, Batch),
        terms.timeout_s,
        params=_written(options),
        headers=_headers(JSON, terms),
        body=body,
        keyed=True,
        timed=True,
    )


def _submit(body: Body, terms: Terms, options: Mapping[str, object]) -> Call[Job]:
    return Call(
        "POST",
        "/v1/jobs",
        partial(read, Job),
        terms.timeout_s,
        params=_written(options),
        headers=_headers(JSON, terms),
        body=body,
        keyed=True,
        timed=True,
    )


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _picture(picture: Picture) -> Body:
    return Bytes(to_json({"url": picture}), JSON) if is_url(picture) else part_of(picture)


def _headers(accept: str, terms: Terms) -> dict[str, str]:
    return {"Accept": accept} if terms.key is None else {"Accept": accept, KEY: terms.key}


def _check(method: str, given: Mapping[str, object], known: type) -> None:
    """As Python does it for arguments that are written out."""
    for name in given.keys() - known.__annotations__.keys():
        raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")


def _written(options: Mapping[str, object]) -> dict[str, str]:
    """As query parameters; None is not sent."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in options.items()
        if value is not None
    }
