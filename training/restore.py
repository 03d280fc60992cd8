"""A published version of a model -> a run with the weights that its graph holds.

A run's checkpoint stays where it was trained. With this, whoever has only the model repository can have the encoder
agree with people of their own, without the hours of a pretraining.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from clicv2 import contract
from clicv2.contract import ModelVersion
from training.checkpoint import FILE, Checkpoint
from training.export import PARITY, TURNED
from training.recipe import Recipe
from training.scorers import OnnxScorer, Scorer, TorchScorer


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

    steps = manifest.data.get("steps")
    checkpoint = Checkpoint(recipe, steps if isinstance(steps, int) else 0, method.module.state_dict(), {})
    _compare(checkpoint, version)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.save(out / FILE)
    return out / FILE


def _compare(checkpoint: Checkpoint, version: ModelVersion) -> None:
    """Raises ValueError unless both give the same outputs, but for those of a readout."""
    spec = version.manifest.preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (2, spec.height, spec.width, 3), dtype=np.uint8)
    with TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / FILE)
        scorers: tuple[Scorer, Scorer] = (TorchScorer(Path(folder)), OnnxScorer(version))
        ours, theirs = (scorer.score(pixels, embedding=True) for scorer in scorers)
    for output in (contract.ENTROPY, contract.EMBEDDING):
        difference = float(np.abs(getattr(ours, output) - getattr(theirs, output)).max())
        if not difference <= PARITY:  # also when it is NaN
            raise ValueError(f"with this code the weights of {version.folder} give another {output}, by {difference}")


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
