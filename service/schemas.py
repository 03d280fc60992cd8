"""What goes in and comes out over HTTP, as OpenAPI shows it."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from clicv2.heatmap import DEFAULT_MAX_SIDE, DEFAULT_OPACITY

HeatmapKind = Literal["none", "grid", "png", "overlay"]
DifferenceKind = Literal["none", "grid", "png"]
Colormap = Literal["viridis", "magma", "inferno", "plasma", "cividis"]
CacheState = Literal["hit", "miss", "shared"]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]

# At 1024 an overlay costs 75 ms of CPU; a larger one would show no more, for the cells are few.
MAX_HEATMAP_SIDE = 1024
# Of pictures of which an answer may hold hundreds: each is at most 0.26 MB in base64, whatever it shows.
MAX_SMALL_SIDE = 256
ModelSelector = Annotated[str, Field(pattern=r"^[\w.-]+(:[1-9]\d{0,8})?$", max_length=100)]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProblemDocument(BaseModel):
    """RFC 9457; further members state the facts, e.g. `limit`, `actual`, `maximum`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable; what a program should look at.", examples=["urn:clicv2:problem:overloaded"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="This occurrence: `urn:clicv2:request:` and the X-Request-ID.")


class ModelChoice(_Schema):
    """Which model is to answer."""

    model: ModelSelector | None = Field(
        None,
        description="`NAME` or `NAME:VERSION`. One version answers at a time; if it is not the one asked for, "
        "the answer is `unknown-model` and not another version's.",
        examples=["clicv2", "clicv2:1"],
    )

    @property
    def model_name(self) -> str | None:
        return self.model.partition(":")[0] if self.model else None

    @property
    def model_version(self) -> int | None:
        version = self.model.partition(":")[2] if self.model else ""
        return int(version) if version else None


class Options(ModelChoice):
    """What is wanted of each picture, beside its scores."""

    heatmap: HeatmapKind = Field(
        "none",
        description="`grid`: numbers; `png`: a coloured map; `overlay`: the map over the grey picture.",
    )
    colormap: Colormap = Field("viridis", description="Perceptually uniform colour map of the pictures.")
    opacity: Share = Field(DEFAULT_OPACITY, description="Of the map in an overlay: 0 shows the grey picture.")
    heatmap_size: int = Field(
        DEFAULT_MAX_SIDE, ge=16, le=MAX_HEATMAP_SIDE, description="Longest side of the pictures, in pixels."
    )
    embedding: bool = Field(False, description="Also the model's embedding, `embedding_size` numbers.")


class ComplexityQuery(Options):
    """What is wanted of a picture. With `Accept: image/png` or `image/webp` the map itself is the answer:
    the overlay if asked for, else the coloured map."""


class BatchQuery(Options):
    """What is wanted of each of many pictures."""

    heatmap_size: int = Field(
        MAX_SMALL_SIDE,
        ge=16,
        le=MAX_SMALL_SIDE,
        description="Longest side of the heatmaps' pictures, in pixels. Ask for one picture to get a larger one.",
    )


class CompareQuery(ModelChoice):
    """How the difference of the heatmaps is wanted."""

    difference: DifferenceKind = Field(
        "none",
        description="`grid`: numbers; `png`: in blue where the second picture is simpler, in red where it is more "
        "complex. With `Accept: image/png` or `image/webp`, and two pictures, that picture itself is the answer.",
    )
    scale: float = Field(
        0.5,
        ge=0.01,
        le=1,
        allow_inf_nan=False,
        description="The difference that has the strongest colour. The same in every answer, so that two compare.",
    )
    heatmap_size: int = Field(MAX_SMALL_SIDE, ge=16, le=MAX_SMALL_SIDE, description="Longest side, in pixels.")


class JsonPicture(_Schema):
    """A picture within JSON: either member."""

    image: str | None = Field(None, description="The file in base64, or a `data:` URL.")
    url: str | None = Field(
        None, max_length=2048, description="Where the picture is; refused unless the server allows it."
    )


class ModelName(_Schema):
    """Which model answered."""

    name: str
    version: int


class ImageFacts(_Schema):
    """The picture as it was understood."""

    width: int = Field(description="In pixels, as the picture is meant to be seen (after EXIF orientation).")
    height: int
    format: str = Field(description="JPEG, PNG or WEBP, by its bytes.")
    sha256: str = Field(description="Of the uploaded bytes.")
    frames: int = Field(description="Frames in the file; the first is scored.")


class Grid(_Schema):
    """The heatmap as numbers."""

    kind: Literal["grid"] = "grid"
    rows: int
    columns: int
    values: list[list[float]] = Field(
        description="`values[row][column]`, from the upper left; each is the score of a picture that looked like "
        "this cell everywhere, so 0 is simple and 1 complex in every picture alike."
    )


class Rendering(_Schema):
    """The heatmap as a picture."""

    kind: Literal["png", "overlay"]
    media_type: Literal["image/png"] = "image/png"
    width: int
    height: int
    data: str = Field(description="The file, in base64.")


Heatmap = Annotated[Grid | Rendering, Field(discriminator="kind")]


class Timings(_Schema):
    """Where the time went, in seconds."""

    upload_s: Seconds
    decode_s: Seconds
    queue_s: Seconds
    inference_s: Seconds
    render_s: Seconds
    total_s: Seconds


class Complexity(_Schema):
    """How visually complex a picture is, and where."""

    id: str = Field(description="Of this answer; unique.")
    score: Share = Field(description="0 (simple) to 1 (complex), calibrated to human ratings.")
    percentile: float = Field(ge=0, le=100, description="Share of the model's reference pictures that score lower.")
    entropy: Share = Field(
        description="The label-free measure: how much information the patches hold, and how much they differ; no human "
        "taught it."
    )
    model: ModelName
    image: ImageFacts
    heatmap: Heatmap | None = None
    embedding: list[float] | None = Field(None, description="If asked for; as exact as the model's float32.")
    cache: CacheState | None = Field(
        None,
        description="`hit`: the result was kept; `miss`: a job of its own; `shared`: the job of a request for the same "
        "picture at the same time. Missing where nothing is kept.",
    )
    timings: Timings


class Counts(_Schema):
    """How the items of a batch ended."""

    items: int
    scored: int
    failed: int


class BatchItem(_Schema):
    """One picture of a batch: either its result or its problem."""

    index: int = Field(ge=0, description="Its place in the upload, from 0.")
    name: str = Field(description="The file's name in the form or the archive; need not be unique.")
    result: Complexity | None = None
    problem: ProblemDocument | None = None


class Batch(_Schema):
    """Every picture of a batch, in the order of the upload."""

    items: list[BatchItem]
    counts: Counts


class ComparedPicture(_Schema):
    """One of the pictures compared."""

    index: int = Field(ge=0)
    name: str
    rank: int = Field(ge=1, description="1: the most complex. Equal scores have equal ranks.")
    score: Share
    percentile: float = Field(ge=0, le=100)
    entropy: Share
    image: ImageFacts


class DifferenceGrid(_Schema):
    """The second picture's heatmap minus the first's, as numbers."""

    kind: Literal["grid"] = "grid"
    rows: int
    columns: int
    values: list[list[float]] = Field(description="`values[row][column]`, each of -1 to 1.")


class DifferenceRendering(_Schema):
    """The second picture's heatmap minus the first's, as a picture of the first one's shape."""

    kind: Literal["png"] = "png"
    media_type: Literal["image/png"] = "image/png"
    width: int
    height: int
    scale: float = Field(description="The difference that has the strongest colour.")
    data: str = Field(description="The file, in base64.")


class Difference(_Schema):
    """The second picture minus the first: positive where the second is the more complex."""

    first: int = Field(description="`index` of a picture.")
    second: int
    score: float
    percentile: float
    entropy: float
    heatmap: Annotated[DifferenceGrid | DifferenceRendering, Field(discriminator="kind")] | None = None


class Comparison(_Schema):
    """Pictures side by side."""

    model: ModelName
    pictures: list[ComparedPicture] = Field(description="In the order of the upload.")
    differences: list[Difference] = Field(description="Of every two pictures.")


class FigureFacts(_Schema):
    """A measured quality with its 95 % interval."""

    value: float
    low: float
    high: float


class ModelFacts(_Schema):
    """A model, by the manifest beside it."""

    name: str
    version: int
    method: str = Field(description="How its features were pretrained.")
    input: tuple[int, int, int] = Field(description="Height, width, channels.")
    grid: tuple[int, int] = Field(description="Rows and columns of the heatmap.")
    embedding_size: int
    fingerprint: str = Field(description="Of the preprocessing that the model expects.")
    sha256: str
    preprocess: dict[str, object] = Field(description="How a picture becomes its input.")
    recipe: dict[str, object] = Field(description="How it was trained.")
    data: dict[str, object] = Field(description="What it was trained, calibrated and referenced on.")
    calibration: dict[str, object] = Field(description="How the mean of the heatmap becomes the score.")
    reference: list[float] = Field(description="Scores of the reference pictures at the percentiles 0, 1, ... 100.")
    figures: dict[str, FigureFacts] = Field(description="Quality on the evaluation sets.")
    measured: dict[str, object] = Field(description="What was measured at its export.")


class ModelList(_Schema):
    """The models that are served."""

    models: list[ModelFacts]


class Health(_Schema):
    """A probe's good answer."""

    status: Literal["ok"] = "ok"


JobStatus = Literal["waiting", "running", "done", "expired"]
WebhookState = Literal["pending", "delivered", "failed"]


class JobQuery(BatchQuery):
    """What is wanted of each picture of a job, and where to tell that it has ended."""

    webhook: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="URL that gets a small signed POST (Standard Webhooks) when the job has ended: of a public host; "
        "refused unless the server has a secret to sign with.",
        examples=["https://example.com/hooks/complexity"],
    )


class UrlList(_Schema):
    """Pictures by their URLs, where the server allows it."""

    urls: list[Annotated[str, Field(min_length=1, max_length=2048)]] = Field(min_length=1)


class JobCounts(Counts):
    """How the items of a job stand."""

    left: int = Field(description="Without a result yet; of an expired job for ever.")


class WebhookFacts(_Schema):
    """How the webhook of a job stands."""

    state: WebhookState
    attempts: int = Field(description="Deliveries that were tried.")
    detail: str | None = Field(None, description="What came of the last one.")


class JobFacts(_Schema):
    """How a job stands."""

    id: str
    status: JobStatus = Field(
        description="`waiting`: for a turn; `running`; `done`: every picture has a result; `expired`: it was not done "
        "in time, and some have none. A job that was deleted is `unknown-job`."
    )
    counts: JobCounts
    created_at: datetime
    ended_at: datetime | None = None
    expires_at: datetime = Field(
        description="When the job is forgotten, with its results; of one that has not ended, when it expires."
    )
    durable: bool = Field(description="Whether it survives this server's restart: that takes Redis.")
    webhook: WebhookFacts | None = None


class PageFacts(_Schema):
    """Which results these are."""

    offset: int
    next: str | None = Field(None, description="Path of the page after this one, if there are more results by now.")


class JobPage(JobFacts):
    """How a job stands, and some of its results."""

    results: list[BatchItem] = Field(
        description="In the order in which they were done, so that what is at an offset never changes and whoever "
        "goes on at the last offset misses nothing; `index` is the place in the upload."
    )
    page: PageFacts


class JobPageQuery(_Schema):
    """Which results are wanted."""

    offset: int = Field(0, ge=0, le=1_000_000_000, description="How many results to skip.")
    limit: int = Field(100, ge=0, description="How many at most; 0 for the counts alone.")


class JobEvent(_Schema):
    """The data of an event: of `item` with `index`, `name` and either `score` or `problem`."""

    index: int | None = None
    name: str | None = None
    score: Share | None = None
    problem: str | None = Field(None, description="The type of its problem.")
    status: JobStatus | Literal["deleted"] | None = Field(None, description="Of `job` and `end`.")
    counts: JobCounts
