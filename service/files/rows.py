"""What is known of one picture: a row of every table that is written here, or read."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from service.files.names import as_path

Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1)]


class Row(BaseModel):
    """One picture's answer, or why it has none; the fields are the columns.

    Attributes:
        path: as `names.as_text` writes it; of a shard's member SHARD/NAME.
        score, percentile, entropy: as the service answers.
        width, height: in pixels, as the picture is meant to be seen.
        format: JPEG, PNG or WEBP.
        bytes: of the file.
        contrast: standard deviation of what the model sees, 1 for half black and half white; None where a service
            scored.
        sha256: of the file.
        model: NAME:VERSION; model_sha256: the first digits.
        error: why there is no score.
        heatmap: where it was put, if heatmaps were asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    path: Annotated[str, Field(min_length=1)]
    score: Share | None = None
    percentile: Percent | None = None
    entropy: Share | None = None
    width: Count | None = None
    height: Count | None = None
    format: str | None = None
    bytes: Count | None = None
    contrast: Share | None = None
    sha256: str | None = None
    model: str | None = None
    model_sha256: str | None = None
    error: str | None = None
    heatmap: str | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _nothing_is_none(cls, value: object) -> object:
        """A table of text has no other way to say it."""
        return None if value == "" else value

    @field_validator("path")
    @classmethod
    def _is_a_path(cls, path: str) -> str:
        as_path(path)
        return path

    @model_validator(mode="after")
    def _is_scored_or_not(self) -> Self:
        if (self.score is None) == (self.error is None):
            raise ValueError("either a score or an error")
        return self


Columns = tuple[str, ...]
HEATMAP = "heatmap"
COLUMNS: Columns = tuple(name for name in Row.model_fields if name != HEATMAP)


def columns(*, heatmaps: bool) -> Columns:
    return (*COLUMNS, HEATMAP) if heatmaps else COLUMNS
