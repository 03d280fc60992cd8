"""A training recipe: one YAML file that, with its seed, determines a run."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from clicv2.spec import PreprocessSpec
from training.methods.clic import CLIC, CLICSettings
from training.methods.clicv2 import CLICv2, CLICv2Settings
from training.methods.mocov2 import MoCoV2, MoCoV2Settings
from training.methods.protocol import Method
from training.models.backbone import Backbone
from training.models.backbones import BackboneName, build_backbone, check_name
from training.models.encoder import Encoder


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(_Strict):
    """See `training.models.encoder.Encoder`."""

    dim: int = 192
    depth: int = 6
    heads: int = 3
    stem: tuple[int, int, int] = (32, 64, 128)
    expansion: int = 4
    reduction: int = 1

    def build(self) -> Encoder:
        return Encoder(self.dim, self.depth, self.heads, self.stem, self.expansion, self.reduction)


class OptimConfig(_Strict):
    """AdamW under a cosine schedule.

    Attributes:
        epochs: passes over the images.
        batch_size: images a step, over all processes.
        accumulate: parts in which each process works through its share of a batch, for less memory; the
            contrast then has only the negatives of one part.
        lr: peak learning rate, reached after `warmup` (share of all steps), then falling to zero.
        clip: largest norm of the gradient.
        bf16: autocast, where the device computes in it (GPUs, CPUs with avx512_bf16): twice as fast or more.
    """

    epochs: int = Field(gt=0)
    batch_size: int = Field(64, gt=0)
    accumulate: int = Field(1, gt=0)
    lr: float = Field(1e-3, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(1.0, gt=0)
    bf16: bool = True


class Recipe(_Strict):
    """Everything that determines a pretraining run.

    Attributes:
        name: of the recipe; the run's folder is named after it.
        method: what is trained, with the settings in the section of the same name.
        canvas: side in pixels to which images are squashed before views are cut from them.
        workers: processes that decode images.
        input_size: side of the model's input when it is evaluated, exported and served.
        encoder: a backbone's name, see `training.models.backbones`; or the numbers of our own one.
        start: a run with whose weights this one begins, instead of random ones.
    """

    name: str
    method: Literal["clicv2", "clic", "mocov2"] = "clicv2"
    seed: int = 0
    images: tuple[Path, ...] = ()
    canvas: int = 192
    workers: int = Field(1, ge=0)
    input_size: int = 192
    encoder: BackboneName | EncoderConfig = EncoderConfig()
    start: Path | None = None
    clicv2: CLICv2Settings = CLICv2Settings()
    clic: CLICSettings = CLICSettings()
    mocov2: MoCoV2Settings = MoCoV2Settings()
    optim: OptimConfig

    @field_validator("encoder", mode="before")
    @classmethod
    def _name_or_numbers(cls, value: object) -> object:
        """Told apart here: of a mistake in the one, pydantic would also say that it is not the other."""
        if isinstance(value, str):
            check_name(value)
            return value
        return EncoderConfig.model_validate(value)

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a recipe. Raises pydantic.ValidationError (a ValueError) with the field that is wrong."""
        return cls.model_validate(yaml.safe_load(path.read_text()))

    def build_method(self) -> Method:
        encoder = self.build_encoder()
        match self.method:
            case "clicv2":
                return CLICv2(encoder, self.clicv2)
            case "clic":
                return CLIC(encoder, self.clic)
            case "mocov2":
                return MoCoV2(encoder, self.mocov2)

    def build_encoder(self) -> Backbone:
        return self.encoder.build() if isinstance(self.encoder, EncoderConfig) else build_backbone(self.encoder)

    @property
    def canvas_spec(self) -> PreprocessSpec:
        return PreprocessSpec(height=self.canvas, width=self.canvas)

    @property
    def input_spec(self) -> PreprocessSpec:
        return PreprocessSpec(height=self.input_size, width=self.input_size)
