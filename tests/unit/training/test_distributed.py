"""Two real processes over gloo take the steps that one process takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from training.checkpoint import FILE, Checkpoint
from training.curves import METRICS
from training.pretrain import pretrain
from training.recipe import Recipe


def train(recipe: Recipe, out: Path, processes: int) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Run the command; one of the processes says where the checkpoint is."""
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    module = ["training.cli", "pretrain", str(file), "--out", str(out)]
    command = [sys.executable, "-m", *(launcher if processes > 1 else []), *module]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("checkpoint:") == 1
    return Checkpoint.load(out / FILE), [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


@pytest.mark.parametrize("contrast_by", ["patch", "image"])
def test_two_processes_give_the_losses_and_weights_of_one(recipe: Recipe, tmp_path: Path, contrast_by: str) -> None:
    """The contrast's negatives are gathered, the uneven numbers of masked patches and queries weigh as in one batch."""
    settings = {**recipe.model_dump(mode="json")["clicv2"], "contrast_by": contrast_by, "contrast_weight": 1.0}
    recipe = Recipe.model_validate({**recipe.model_dump(mode="json"), "clicv2": settings})
    one, alone = train(recipe, tmp_path / "one", 1)
    two, together = train(recipe, tmp_path / "two", 2)
    assert [line["step"] for line in together] == [line["step"] for line in alone] == list(range(1, 10))
    for a, b in zip(alone, together, strict=True):
        for measure in ("loss", "masked_entropy", "contrast", "contrast_accuracy"):
            assert a[measure] == pytest.approx(b[measure], rel=1e-4, abs=1e-6), (a["step"], measure)
    for name, weight in one.weights.items():
        assert torch.allclose(weight, two.weights[name], atol=2e-4), name


def test_a_run_of_one_process_is_continued_by_two(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of processes may change between a kill and the next start."""
    whole, expected = train(recipe, tmp_path / "whole", 1)
    build = Recipe.build_method

    def fragile(self: Recipe) -> object:
        method = build(self)
        step, done = method.step, iter(range(5))
        method.step = lambda *arguments: (next(done), step(*arguments))[1]
        return method

    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "build_method", fragile)
        with pytest.raises(StopIteration):
            pretrain(recipe, tmp_path / "cut", checkpoint_every=2)
    assert Checkpoint.load(tmp_path / "cut").step == 4
    continued, lines = train(recipe, tmp_path / "cut", 2)
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=1e-4)
    assert all(torch.allclose(w, continued.weights[name], atol=2e-4) for name, w in whole.weights.items())


def test_a_batch_that_cannot_be_shared_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="cannot be shared by 3 processes"):
        train(recipe, tmp_path / "run", 3)
