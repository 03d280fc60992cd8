"""Checkpoints: written whole or not at all, and enough to continue a run exactly."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.methods.protocol import Method
from training.recipe import Recipe

FILE = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A point of a run.

    Attributes:
        recipe: of the run.
        step: optimiser steps done.
        weights: state of the method's module.
        optimizer: state of the optimiser.
    """

    recipe: Recipe
    step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]  # torch's own layout

    def save(self, path: Path) -> None:
        """Write beside and rename, so that a kill leaves the old file or the new one."""
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "recipe": self.recipe.model_dump(mode="json"),
                "step": self.step,
                "weights": self.weights,
                "optimizer": self.optimizer,
            },
            partial,
        )
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint file, or the one in a run's folder. Raises FileNotFoundError."""
        file = path / FILE if path.is_dir() else path
        content = torch.load(file, map_location="cpu", weights_only=True)
        return cls(Recipe.model_validate(content["recipe"]), content["step"], content["weights"], content["optimizer"])

    def method(self) -> Method:
        """The method with its weights, ready to evaluate."""
        method = self.recipe.build_method()
        method.module.load_state_dict(self.weights)
        method.module.eval()
        return method
