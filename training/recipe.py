"""A training recipe: one YAML file that, with its seed, determines a run."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from clicv2.spec import PreprocessSpec
from training.methods.clicv2 import CLICv2, CLICv2Settings
from training.methods.protocol import Method
from training.models.encoder import Encoder


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(_Strict):
    """See `training.models.encoder.Encoder`."""

    dim: int = 192
    depth: int = 6
    heads: int = 3
    stem: tuple[int, int, int] = (32, 64, 128)

    def build(self) -> Encoder:
        return Encoder(self.dim, self.depth, self.heads, self.stem)


class OptimConfig(_Strict):
    """AdamW under a cosine schedule.

    Attributes:
        epochs: passes over the images.
        batch_size: images a step.
        lr: peak learning rate, reached after `warmup` (share of all steps), then falling to zero.
        clip: largest norm of the gradient.
        bf16: autocast; on CPUs with avx512_bf16 and on GPUs about twice as fast or more.
    """

    epochs: int = Field(gt=0)
    batch_size: int = Field(64, gt=0)
    lr: float = Field(1e-3, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(1.0, gt=0)
    bf16: bool = True


class Recipe(_Strict):
    """Everything that determines a pretraining run.

    Attributes:
        name: of the recipe; the run's folder is named after it.
        canvas: side in pixels to which images are squashed before views are cut from them.
        workers: processes that decode images.
        input_size: side of the model's input when it is evaluated, exported and served.
    """

    name: str
    method: Literal["clicv2"] = "clicv2"
    seed: int = 0
    images: tuple[Path, ...] = ()
    canvas: int = 192
    workers: int = Field(1, ge=0)
    input_size: int = 192
    encoder: EncoderConfig = EncoderConfig()
    clicv2: CLICv2Settings = CLICv2Settings()
    optim: OptimConfig

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a recipe. Raises pydantic.ValidationError (a ValueError) with the field that is wrong."""
        return cls.model_validate(yaml.safe_load(path.read_text()))

    def build_method(self) -> Method:
        return CLICv2(self.encoder.build(), self.clicv2)

    @property
    def canvas_spec(self) -> PreprocessSpec:
        return PreprocessSpec(height=self.canvas, width=self.canvas)

    @property
    def input_spec(self) -> PreprocessSpec:
        return PreprocessSpec(height=self.input_size, width=self.input_size)
