"""A published model becomes a run again, whose encoder can be fitted to other ratings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from clicv2 import contract
from clicv2.contract import ModelVersion
from clicv2.errors import ContractError
from training import cli
from training.checkpoint import FILE, Checkpoint
from training.export import export_run
from training.fit import fit_run
from training.pretrain import pretrain
from training.recipe import Recipe
from training.restore import restore
from training.scorers import open_scorer, published_version

SCALE = (0.0, 100.0)


@pytest.fixture(scope="module", params=["clicv2", "clic"])
def run(
    request: pytest.FixtureRequest,
    recipe: Recipe,
    images: Path,
    ratings: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run, published as version 1 of a model: its label-free output has weights, or has none."""
    folder = tmp_path_factory.mktemp(request.param)
    pretrain(recipe.model_copy(update={"method": request.param}), folder / "run")
    fit_run(folder / "run", [images], ratings, (), SCALE)
    export_run(folder / "run", folder / "tiny/1", [images], [images], ratings, 12)
    return folder / "run"


@pytest.fixture
def version(run: Path) -> ModelVersion:
    return contract.open_version(run.parent / "tiny")


def test_a_restored_run_is_fitted_as_the_one_that_was_published(
    run: Path, version: ModelVersion, images: Path, ratings: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    restore(version, again)
    before, after = Checkpoint.load(run), Checkpoint.load(again)
    assert (after.recipe, after.step) == (before.recipe, before.step)
    encoders = (before.method().encoder.state_dict(), after.method().encoder.state_dict())
    for name, weight in encoders[0].items():
        assert name == "mask_token" or torch.equal(weight, encoders[1][name]), name
    quality = fit_run(again, [images], ratings, (), SCALE).quality
    reported = json.loads((run / "fit.json").read_text())["cross_validated"]["pcc"]["value"]
    assert quality.mean["pcc"].value == pytest.approx(reported, abs=1e-6)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    ours, theirs = open_scorer(again).score(pixels), open_scorer(version.folder).score(pixels)
    assert ours.score == pytest.approx(theirs.score, abs=1e-4)
    assert ours.entropy == pytest.approx(theirs.entropy, abs=1e-4)


@pytest.mark.parametrize("run", ["clicv2"], indirect=True)
def test_what_cannot_be_restored_is_refused(run: Path, version: ModelVersion, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="holds a run already"):
        restore(version, run)
    tuned = replace(version, manifest=replace(version.manifest, data={**version.manifest.data, "label_free": False}))
    with pytest.raises(ValueError, match="fine-tuned"):
        restore(tuned, tmp_path / "out")

    wider = recipe.model_copy(update={"encoder": recipe.encoder.model_copy(update={"stem": (4, 8, 8)})})
    other = replace(version, manifest=replace(version.manifest, recipe=wider.model_dump(mode="json")))
    with pytest.raises(ValueError, match="shape"):
        restore(other, tmp_path / "out")


@pytest.mark.parametrize("run", ["clicv2"], indirect=True)
@pytest.mark.parametrize(
    ("weight", "complaint"),
    [
        ("encoder.blocks.0.key_value.weight.T", "another (entropy|embedding)"),
        ("label_free.layers.0.weight.T", "another entropy"),
    ],
)
def test_a_graph_from_before_weights_had_names_is_refused(
    weight: str, complaint: str, version: ModelVersion, tmp_path: Path
) -> None:
    proto = onnx.load(version.model_file)
    (turned,) = (each for each in proto.graph.initializer if each.name == weight)
    for node in proto.graph.node:
        node.input[:] = ["x" if name == weight else name for name in node.input]
    turned.name = "x"
    (tmp_path / "old/1").mkdir(parents=True)
    onnx.save(proto, tmp_path / "old/1" / contract.MODEL_FILE)
    with pytest.raises(ValueError, match=complaint):
        restore(replace(version, folder=tmp_path / "old/1"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("run", ["clicv2"], indirect=True)
def test_the_command_takes_a_model_or_a_version_and_says_what_is_wrong(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["clicv2-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), " ".join(capsys.readouterr().err.split())

    assert said("restore", run.parent / "tiny", "--out", tmp_path / "a") == (0, f"checkpoint: {tmp_path / 'a' / FILE}")
    assert said("restore", run.parent / "tiny/1", "--out", tmp_path / "b")[0] == 0
    assert said("restore", run.parent / "tiny", "--out", tmp_path / "a")[0] == 2
    assert said("restore", run.parent / "none", "--out", tmp_path / "c")[0] == 2
    recipe = Checkpoint.load(tmp_path / "a").recipe
    with pytest.raises(ValueError, match="restored"):
        pretrain(recipe, tmp_path / "a")
    with pytest.raises(ContractError):
        published_version(run.parent / "tiny/2")
