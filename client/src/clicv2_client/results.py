"""What calls return. Frozen; members that a newer service has and this client does not know are left out."""

from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Base64Bytes, BaseModel, ConfigDict

from clicv2_client.errors import Problem, ProblemDocument, problem

HeatmapKind: TypeAlias = Literal["none", "grid", "png", "overlay"]
DifferenceKind: TypeAlias = Literal["none", "grid", "png"]
Colormap: TypeAlias = Literal["viridis", "magma", "inferno", "plasma", "cividis"]


class Result(BaseModel):
    """What all of them have in common."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelName(Result):
    """Which model answered."""

    name: str
    version: int


class ImageFacts(Result):
    """The picture as the service understood it.

    Attributes:
        width, height: in pixels, as the picture is meant to be seen (after EXIF orientation).
        format: of the file that was sent; PNG for an array or a PIL image.
        sha256: of the bytes that were sent.
        frames: in the file; the first is scored.
    """

    width: int
    height: int
    format: str
    sha256: str
    frames: int


class Grid(Result):
    """A heatmap as numbers.

    Attributes:
        values: [rows][columns] from the upper left; each the score of a picture that looked like this cell
            everywhere. In a comparison the second picture's minus the first's, -1 to 1.
    """

    kind: Literal["grid"]
    rows: int
    columns: int
    values: tuple[tuple[float, ...], ...]


class Rendering(Result):
    """A heatmap as a picture.

    Attributes:
        kind: "png" (the coloured map) or "overlay".
        data: the file. (In JSON it is base64.)
        scale: of a difference: the one that has the strongest colour.
    """

    kind: str
    media_type: str
    width: int
    height: int
    data: Base64Bytes
    scale: float | None = None


Heatmap: TypeAlias = Grid | Rendering


class Timings(Result):
    """Where the service's time went, in seconds."""

    upload_s: float
    decode_s: float
    queue_s: float
    inference_s: float
    render_s: float
    total_s: float


class Complexity(Result):
    """How visually complex a picture is, and where.

    Attributes:
        id: of this answer; unique.
        score: 0 (simple) to 1 (complex), calibrated to human ratings.
        percentile: share of the model's reference pictures that score lower, 0 to 100.
        entropy: the label-free measure, 0 to 1; no human taught it.
        heatmap: if asked for.
        embedding: if asked for.
        cache: "hit", "miss" or "shared"; None where the service keeps nothing.
    """

    id: str
    score: float
    percentile: float
    entropy: float
    model: ModelName
    image: ImageFacts
    heatmap: Heatmap | None = None
    embedding: tuple[float, ...] | None = None
    cache: str | None = None
    timings: Timings


class HeatmapPicture(Result):
    """A heatmap as a file of its own.

    Attributes:
        data: the file.
        media_type: "image/png" or "image/webp".
        score, percentile, entropy: as in `Complexity`.
    """

    data: bytes
    media_type: str
    score: float
    percentile: float
    entropy: float

    def save(self, path: str | Path) -> None:
        """Write the file."""
        Path(path).write_bytes(self.data)


class ComparedPicture(Result):
    """One of the pictures compared.

    Attributes:
        index: its place among those given.
        rank: 1 is the most complex; equal scores have equal ranks.
    """

    index: int
    name: str
    rank: int
    score: float
    percentile: float
    entropy: float
    image: ImageFacts


class Difference(Result):
    """The second picture minus the first: positive where the second is the more complex.

    Attributes:
        first, second: `index` of a picture.
    """

    first: int
    second: int
    score: float
    percentile: float
    entropy: float
    heatmap: Heatmap | None = None


class Comparison(Result):
    """Pictures side by side.

    Attributes:
        pictures: in the order in which they were given.
        differences: of every two pictures.
    """

    model: ModelName
    pictures: tuple[ComparedPicture, ...]
    differences: tuple[Difference, ...]


class Figure(Result):
    """A measured quality with its 95 % interval."""

    value: float
    low: float
    high: float


class Model(Result):
    """A model, by the manifest beside it.

    Attributes:
        method: how its features were pretrained.
        input: height, width, channels.
        grid: rows and columns of the heatmap.
        fingerprint: of the preprocessing that the model expects.
        reference: scores of the reference pictures at the percentiles 0, 1, ... 100.
        figures: quality on the evaluation sets.
        measured: what was measured at its export.
    """

    name: str
    version: int
    method: str
    input: tuple[int, int, int]
    grid: tuple[int, int]
    embedding_size: int
    fingerprint: str
    sha256: str
    preprocess: dict[str, object]
    recipe: dict[str, object]
    data: dict[str, object]
    calibration: dict[str, object]
    reference: tuple[float, ...]
    figures: dict[str, Figure]
    measured: dict[str, object]


class Models(Result):
    """The models that are served."""

    models: tuple[Model, ...]


class JobCounts(Result):
    """How the pictures of a job stand."""

    items: int
    scored: int
    failed: int
    left: int


class Webhook(Result):
    """How the webhook of a job stands.

    Attributes:
        state: "pending", "delivered" or "failed".
        attempts: deliveries that were tried.
        detail: what came of the last one.
    """

    state: str
    attempts: int
    detail: str | None = None


class Job(Result):
    """Many pictures that nobody waits for.

    Attributes:
        status: "waiting" (for its turn), "running", "done" (every picture has its result), or "expired" (it was not
            done in time, and some pictures have none).
        expires_at: when it is forgotten, with its results; of one that has not ended, when it expires.
        durable: whether it survives a restart of the service.
    """

    id: str
    status: str
    counts: JobCounts
    created_at: datetime
    ended_at: datetime | None = None
    expires_at: datetime
    durable: bool
    webhook: Webhook | None = None

    @property
    def ended(self) -> bool:
        return self.ended_at is not None


class JobItem(Result):
    """How one picture of a job or a batch ended: with a result or a problem, never both.

    Attributes:
        index: its place among those submitted, from 0.
        name: of its file.
    """

    index: int
    name: str
    result: Complexity | None = None
    problem: ProblemDocument | None = None

    @property
    def error(self) -> Problem | None:
        """The problem, as `Client.score` would raise it."""
        return None if self.problem is None else problem(self.problem)

    def unwrap(self) -> Complexity:
        """The result. Raises Problem if there is none."""
        if self.result is None:
            raise self.error or problem(ProblemDocument(detail="neither a result nor a problem"))
        return self.result


class BatchCounts(Result):
    """How many pictures of a batch were scored."""

    items: int
    scored: int
    failed: int


class Batch(Result):
    """Pictures that were sent, and answered, together.

    Attributes:
        items: in the order in which they were sent.
    """

    items: tuple[JobItem, ...]
    counts: BatchCounts


class PageFacts(Result):
    """Which of a job's results these are."""

    offset: int
    next: str | None = None


class JobPage(Job):
    """A job, and some of its results in the order in which they were done."""

    results: tuple[JobItem, ...]
    page: PageFacts


class JobEvent(Result):
    """Something that happened to a job.

    Attributes:
        kind: "job" (how it stands, at first), "item" (a picture is done), "end", or what a newer service tells.
        id: to go on after it, with `after`; None of "job".
        index, name, score: of "item"; the score of one that was scored.
        problem: the type of the problem of one that was not.
        status: of "job" and "end"; "deleted" if the job was.
    """

    kind: str
    id: int | None = None
    index: int | None = None
    name: str | None = None
    score: float | None = None
    problem: str | None = None
    status: str | None = None
    counts: JobCounts
