"""A published version of a model -> a run with the weights that its graph holds.

A run's checkpoint stays where it was trained. With this, whoever has only the model repository can have the encoder
agree with people of their own, without the hours of a pretraining.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from clicv2 import contract
from clicv2.contract import ModelVersion
from training.checkpoint import FILE, Checkpoint
from training.export import PARITY, TURNED
from training.models.computed import Computed
from training.recipe import Recipe
from training.scorers import OnnxScorer


def restore(version: ModelVersion, out: Path) -> Path:
    """Write the run into the folder `out` and return its checkpoint. It has no readout, and what only pretraining needs
    is as before the first step.

    Raises FileExistsError when there is a run already, ValueError when the graph does not hold what its recipe says, or
    when ratings have touched the weights: which ones they were, the run could not say.
    """
    if (out / FILE).exists():
        raise FileExistsError(f"{out} holds a run already: choose another folder")
    manifest = version.manifest
    if not manifest.data.get("label_free", True):
        raise ValueError(f"{version.folder} was fine-tuned on ratings: restore a version that was only pretrained")
    recipe = Recipe.model_validate(manifest.recipe)
    method = recipe.build_method()
    graph = onnx.load(version.model_file).graph
    held = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    for name, module in (("encoder", method.encoder), ("label_free", method.label_free)):
        _load(module, name, held)

    method.module.eval()
    spec = manifest.preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (2, spec.height, spec.width, 3), dtype=np.uint8)
    theirs = OnnxScorer(version).score(pixels, embedding=True)
    with torch.inference_mode():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0
        features = method.encoder(images)
        entropy, embedding = method.label_free(Computed(images), features).mean(dim=1), features.last.mean(dim=1)
    for output, ours, published in (
        (contract.ENTROPY, entropy, theirs.entropy),
        (contract.EMBEDDING, embedding, theirs.embedding),
    ):
        difference = float(np.abs(ours.numpy() - published).max())
        if not difference <= PARITY:  # also when it is NaN
            raise ValueError(f"with this code the weights of {version.folder} give another {output}, by {difference}")

    out.mkdir(parents=True, exist_ok=True)
    steps = manifest.data.get("steps")
    Checkpoint(recipe, steps if isinstance(steps, int) else 0, method.module.state_dict(), {}).save(out / FILE)
    return out / FILE


def _load(module: nn.Module, name: str, held: dict[str, Tensor]) -> None:
    """Give the module what the graph holds of it: no weights on which no output depends, such as the mask token's."""
    for key, weight in module.state_dict().items():
        full = f"{name}.{key}"
        found = held[full + TURNED].T if full + TURNED in held else held.get(full)
        if found is None:
            continue
        if found.shape != weight.shape:
            raise ValueError(f"{full} has the shape {tuple(found.shape)}, of the recipe comes {tuple(weight.shape)}")
        weight.copy_(found)  # what a state holds is the module's own memory
