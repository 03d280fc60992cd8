"""What goes in and comes out over HTTP, as OpenAPI shows it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from clicv2.heatmap import DEFAULT_MAX_SIDE, DEFAULT_OPACITY

HeatmapKind = Literal["none", "grid", "png", "overlay"]
Colormap = Literal["viridis", "magma", "inferno", "plasma", "cividis"]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]

# At 1024 an overlay costs 75 ms of CPU; a larger one would show no more, for the cells are few.
MAX_HEATMAP_SIDE = 1024


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComplexityQuery(_Schema):
    """How the heatmap is wanted."""

    heatmap: HeatmapKind = Field(
        "none",
        description="`grid`: numbers; `png`: a coloured map; `overlay`: the map over the grey picture. "
        "With `Accept: image/png` the picture itself is the answer: the overlay if asked for, else the map.",
    )
    colormap: Colormap = Field("viridis", description="Perceptually uniform colour map of the pictures.")
    opacity: Share = Field(DEFAULT_OPACITY, description="Of the map in an overlay: 0 shows the grey picture.")
    heatmap_size: int = Field(
        DEFAULT_MAX_SIDE, ge=16, le=MAX_HEATMAP_SIDE, description="Longest side of the pictures, in pixels."
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
    entropy: Share = Field(description="The label-free measure: mean entropy of the patches; no human taught it.")
    model: ModelName
    image: ImageFacts
    heatmap: Annotated[Grid | Rendering, Field(discriminator="kind")] | None = None
    timings: Timings


class FigureFacts(_Schema):
    """A measured quality with its 95 % interval."""

    value: float
    low: float
    high: float


class ModelFacts(_Schema):
    """A model, by the manifest beside it."""

    name: str
    version: int
    method: str
    input: tuple[int, int, int] = Field(description="Height, width, channels.")
    grid: tuple[int, int] = Field(description="Rows and columns of the heatmap.")
    embedding_size: int
    fingerprint: str = Field(description="Of the preprocessing that the model expects.")
    sha256: str
    data: dict[str, object] = Field(description="What it was trained, calibrated and referenced on.")
    figures: dict[str, FigureFacts] = Field(description="Quality on the evaluation sets.")


class ModelList(_Schema):
    """The models that are served."""

    models: list[ModelFacts]


class Health(_Schema):
    """A probe's good answer."""

    status: Literal["ok"] = "ok"


class ProblemDocument(BaseModel):
    """RFC 9457; further members state the facts, e.g. `limit`, `actual`, `maximum`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable; what a program should look at.", examples=["urn:clicv2:problem:overloaded"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="This occurrence: `urn:clicv2:request:` and the X-Request-ID.")
