"""fit -> evaluate -> export through the command line, and what the exported model promises."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from clicv2 import contract, triton
from clicv2.contract import Manifest
from training import cli
from training.checkpoint import Checkpoint
from training.export import TRITON_MODEL, check_kinship, check_parity
from training.fit import FILE as READOUT
from training.fit import load_readout
from training.models.readout import ComplexityModel
from training.pretrain import pretrain
from training.recipe import Recipe
from training.scorers import OnnxScorer, TorchScorer, open_scorer


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["clicv2-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert not exit_info.value.code, exit_info.value.code


@pytest.fixture(scope="module")
def run(images: Path, ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was pretrained, fitted and exported to its own model repository."""
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "images": [str(images)],
            "canvas": 64,
            "workers": 0,
            "input_size": 32,
            "encoder": {"dim": 16, "depth": 2, "heads": 2, "stem": [4, 4, 8]},
            "clicv2": {"view_size": 32, "shift_low": 8, "shift_high": 12},
            "optim": {"epochs": 2, "batch_size": 4, "bf16": False},
        }
    )
    pretrain(recipe, folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        rated = ("--images", images, "--ratings", ratings)
        run_cli(monkeypatch, "fit", folder, *rated)
        run_cli(monkeypatch, "export", folder, folder / "repository/tiny/1", "--reference", images, *rated)
    return folder


@pytest.fixture(scope="module")
def version(run: Path) -> contract.ModelVersion:
    return contract.open_version(run / "repository/tiny")


def test_the_manifest_tells_what_the_model_is(version: contract.ModelVersion, ratings: Path) -> None:
    manifest = version.manifest
    assert (manifest.name, manifest.version, manifest.method) == ("tiny", 1, "clicv2")
    assert manifest.preprocess.height == 32
    assert manifest.grid == (2, 2)
    assert manifest.embedding_size == 16
    assert manifest.data["ratings_images"] == 12
    assert len(manifest.reference) == 101
    assert manifest.measured["bytes"] == version.model_file.stat().st_size
    assert manifest.data["label_free"] is True
    assert (manifest.data["kind"], manifest.data["layers"]) == ("kernel", ["code_length", "coding_rate", "pyramid", 1])
    cross_validated = {f"score_{measure}_cross_validated" for measure in ("pcc", "srcc", "rmse")}
    assert {*cross_validated, "entropy_pcc", "entropy_srcc"} == set(manifest.figures)


def test_the_graph_carries_the_fingerprint_and_the_contracts_tensors(version: contract.ModelVersion) -> None:
    session = onnxruntime.InferenceSession(version.model_file)
    properties = session.get_modelmeta().custom_metadata_map
    assert properties[contract.FINGERPRINT_KEY] == version.manifest.fingerprint
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[1:]) == (contract.INPUT, "tensor(uint8)", [32, 32, 3])
    assert isinstance(image.shape[0], str)  # a free batch size
    assert tuple(output.name for output in session.get_outputs()) == contract.OUTPUTS


def test_triton_finds_its_files(version: contract.ModelVersion) -> None:
    model = version.folder.parent
    for path, text in triton.configs(version.manifest).items():
        assert (model / path).read_text() == text
    assert (version.folder / triton.PYTHON_MODEL).read_bytes() == TRITON_MODEL.read_bytes()
    assert not list(model.rglob("*.partial"))


def test_versions_of_a_model_take_and_give_the_same(version: contract.ModelVersion) -> None:
    spec, size = version.manifest.preprocess, version.manifest.embedding_size
    following = version.folder.parent / "2"
    check_kinship(following, spec, size)
    for other in (replace(spec, width=48), replace(spec, background=(0, 0, 0))):
        with pytest.raises(ValueError, match="another model"):
            check_kinship(following, other, size)
    with pytest.raises(ValueError, match="another model"):
        check_kinship(following, spec, size + 1)
    check_kinship(version.folder.parent.parent / "other/1", spec, size + 1)


def test_outputs_keep_the_contract_at_any_batch_size(version: contract.ModelVersion) -> None:
    session = onnxruntime.InferenceSession(version.model_file)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    score, entropy, heatmap, embedding = session.run(list(contract.OUTPUTS), {contract.INPUT: pixels})
    assert (score.shape, entropy.shape, heatmap.shape, embedding.shape) == ((7,), (7,), (7, 2, 2), (7, 16))
    assert {a.dtype for a in (score, entropy, heatmap, embedding)} == {np.dtype(np.float32)}
    assert ((score >= 0) & (score <= 1) & (entropy >= 0) & (entropy <= 1)).all()
    # the heatmap explains the score
    assert np.allclose(score, contract.local_score(heatmap.mean(axis=(1, 2))), atol=1e-6)
    alone = [session.run(None, {contract.INPUT: pixels[i : i + 1]}) for i in range(7)]
    for together, single in zip((score, entropy, heatmap, embedding), zip(*alone, strict=True), strict=True):
        assert np.abs(together - np.concatenate(single)).max() <= 1e-4


def test_parity_with_torch_is_checked_and_a_difference_is_an_error(run: Path, version: contract.ModelVersion) -> None:
    method = Checkpoint.load(run).method()
    model = ComplexityModel(method.encoder, method.label_free, *load_readout(run / READOUT)).eval()
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    assert check_parity(model, version.model_file, pixels) <= 1e-4
    with torch.no_grad():
        model.readout.bias += 0.01
    with pytest.raises(ValueError, match="differs"):
        check_parity(model, version.model_file, pixels)


def test_checkpoint_and_repository_score_alike(run: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    torch_scorer, onnx_scorer = open_scorer(run), open_scorer(run / "repository/tiny/1")
    assert isinstance(torch_scorer, TorchScorer)
    assert isinstance(onnx_scorer, OnnxScorer)
    a, b = torch_scorer.score(pixels), onnx_scorer.score(pixels)
    assert a.score is not None
    assert b.score is not None
    assert np.abs(a.score - b.score).max() <= 1e-4
    assert np.abs(a.entropy - b.entropy).max() <= 1e-4


@pytest.mark.parametrize("model", ["", "checkpoint.pt", "repository/tiny", "repository/tiny/1"])
def test_evaluate_prints_json(
    run: Path,
    images: Path,
    ratings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: str,
) -> None:
    run_cli(monkeypatch, "evaluate", "--model", run / model, "--images", images, "--ratings", ratings, "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 12
    assert set(result["outputs"]) == {"score", "entropy"}
    for output in result["outputs"].values():
        assert set(output["groups"]["pcc"]) == {"odd", "even"}
        figure = output["mean"]["srcc"]
        assert -1 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert result["in_sample"]


def test_evaluate_prints_a_table(
    run: Path, images: Path, ratings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli(monkeypatch, "evaluate", "--model", run, "--images", images, "--ratings", ratings)
    printed = capsys.readouterr().out
    for word in ("calibrated score", "label-free entropy", "mean over groups", "PCC", "SRCC", "odd", "even"):
        assert word in printed


def test_a_published_version_is_never_overwritten(
    run: Path, images: Path, ratings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = run / "repository/tiny/1"
    before = (target / contract.MANIFEST_FILE).read_bytes()
    rated = ["--images", str(images), "--ratings", str(ratings)]
    arguments = ["clicv2-train", "export", str(run), str(target), "--reference", str(images), *rated]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 2
    assert "published already" in capsys.readouterr().err
    assert (target / contract.MANIFEST_FILE).read_bytes() == before
    assert {p.name for p in target.parent.iterdir()} == {"1", "config.pbtxt", "configs"}


def test_a_model_that_was_altered_is_refused(version: contract.ModelVersion, tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "1"
    folder.mkdir(parents=True)
    proto = onnx.load(version.model_file)
    proto.producer_name = "someone else"
    onnx.save(proto, folder / contract.MODEL_FILE)
    version.manifest.save(folder / contract.MANIFEST_FILE)
    with pytest.raises(contract.ContractError, match="not the file"):
        contract.open_version(tmp_path / "tiny")


def test_the_manifest_survives_its_file(version: contract.ModelVersion, tmp_path: Path) -> None:
    version.manifest.save(tmp_path / "again.json")
    assert asdict(Manifest.load(tmp_path / "again.json")) == asdict(version.manifest)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["evaluate", "--model", "nowhere", "--images", "{images}", "--ratings", "{ratings}"], "no model version"),
        (["evaluate", "--model", "nowhere", "--images", "missing", "--ratings", "{ratings}"], "no such images"),
        (["pretrain", "missing.yaml", "--out", "{out}"], "No such file"),
        (["fit", "{out}", "--images", "{images}", "--ratings", "{ratings}"], "No such file"),
    ],
)
def test_what_the_user_can_mend_is_a_message(
    arguments: list[str],
    complaint: str,
    images: Path,
    ratings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"images": images, "ratings": ratings, "out": tmp_path}
    monkeypatch.setattr("sys.argv", ["clicv2-train", *(a.format(**places) for a in arguments)])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
