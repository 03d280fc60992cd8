"""Fine-tuning: what it changes, what it records, that a kill changes nothing, and that no figure is flattered."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clicv2 import contract
from training import cli
from training.checkpoint import FILE, Checkpoint
from training.curves import CURVES, METRICS
from training.data.images import ImageDataset
from training.data.ratings import load_ratings
from training.finetune import finetune
from training.fit import FILE as READOUT
from training.fit import REPORT, fit_readout, fit_run, load_readout
from training.models.backbones import build_backbone
from training.models.readout import TERMS, ComplexityModel, Readout
from training.pretrain import pretrain
from training.recipe import OptimConfig, Recipe
from training.tuning import STATE, TuningSettings, _Trainer, learning_rate_shares

TIMES = {"step_s", "wait_s"}
COUNT = 40


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coarser and finer noise; the number in the name rises with the complexity."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        noise = rng.integers(0, 256, (2 + number, 2 + number, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((48, 40), Image.Resampling.NEAREST).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def table(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings that rise with the number, in two groups with scales of their own."""
    rows = [f"{n:02}.png,{(60 + n) if n % 2 else 0.5 * n},{'odd' if n % 2 else 'even'}" for n in range(COUNT)]
    path = tmp_path_factory.mktemp("table") / "ratings.csv"
    path.write_text("path,score,group\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def pretrained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("pretrained")
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "images": [str(pictures)],
            "canvas": 48,
            "workers": 0,
            "input_size": 32,
            "encoder": {"dim": 16, "depth": 2, "heads": 1, "stem": [4, 4, 8]},
            "clicv2": {"view_size": 32, "shift_low": 8, "shift_high": 12},
            "optim": {"epochs": 1, "batch_size": 8, "bf16": False},
        }
    )
    pretrain(recipe, run)
    return run


def settings(**changes: object) -> TuningSettings:
    optim = OptimConfig(epochs=4, batch_size=8, lr=5e-3, warmup=0.1, bf16=False)
    return TuningSettings.model_validate({"optim": optim, "scale": (0.0, 100.0), **changes})


def metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def report(run: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((run / REPORT).read_text())
    return content


def same_model(a: Path, b: Path) -> bool:
    left, right = ({**Checkpoint.load(run).weights, **load_readout(run / READOUT)[0].state_dict()} for run in (a, b))
    return all(torch.equal(left[k], right[k]) for k in left | right)


@pytest.fixture(scope="module")
def tuned(pretrained: Path, pictures: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned")
    finetune(pretrained, [pictures], table, out, settings(), folds=2)
    return out


def test_it_leaves_a_run_like_any_other(tuned: Path, pretrained: Path, pictures: Path, table: Path) -> None:
    checkpoint = Checkpoint.load(tuned)
    assert checkpoint.recipe == Checkpoint.load(pretrained).recipe
    readout, calibration = load_readout(tuned / READOUT)
    method = checkpoint.method()
    model = ComplexityModel(method.encoder, method.label_free, readout, calibration).eval()
    ratings = load_ratings(table, [pictures])
    pixels = torch.stack(list(ImageDataset(ratings.sources, checkpoint.recipe.input_spec)))
    with torch.inference_mode():
        score, entropy, heatmap, _ = model(pixels)
    assert torch.allclose(score, torch.sigmoid(heatmap.mean(dim=(1, 2))), atol=1e-6)
    for group in ("odd", "even"):
        chosen = torch.from_numpy(ratings.groups == group)
        ranks = score[chosen].argsort().argsort()
        assert np.corrcoef(ranks, range(len(ranks)))[0, 1] > 0.8
    assert entropy.min() >= 0
    assert entropy.max() <= 1
    lines = metrics(tuned)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert {"loss", "ratings", "pretraining", "held_out", "held_out_pcc", "lr"} < lines[0].keys()
    assert (tuned / CURVES).exists()
    assert not list(tuned.rglob("*.partial"))


def test_ratings_touch_every_weight_and_the_report_says_so(tuned: Path, pretrained: Path, table: Path) -> None:
    before, after = Checkpoint.load(pretrained).weights, Checkpoint.load(tuned).weights
    done = report(tuned)["finetuned"]
    assert isinstance(done, list)
    assert done[0]["best_epoch"] > 0
    assert all(not torch.equal(before[name], after[name]) for name in before if "encoder" in name)
    assert report(tuned)["label_free"] is False
    assert (done[0]["ratings"], done[0]["from"]) == (table.name, pretrained.name)


def test_a_figure_is_claimed_only_from_folds(
    tuned: Path, pretrained: Path, pictures: Path, table: Path, tmp_path: Path
) -> None:
    figures = report(tuned)["cross_validated"]
    assert isinstance(figures, dict)
    assert {"pcc", "srcc", "rmse"} == set(figures)
    without = finetune(pretrained, [pictures], table, tmp_path, settings())
    assert without.quality is None
    assert report(tmp_path)["cross_validated"] == {}


def test_noise_is_not_mistaken_for_a_signal(pretrained: Path, pictures: Path, tmp_path: Path) -> None:
    """The folds owe ratings at random a correlation of about zero, however well the weights learn them by heart."""
    found = []
    for seed in range(3):
        scores = np.random.default_rng(seed).uniform(0, 100, COUNT)
        path = tmp_path / f"{seed}.csv"
        path.write_text("path,score\n" + "\n".join(f"{n:02}.png,{score}" for n, score in enumerate(scores)) + "\n")
        finetuned = finetune(pretrained, [pictures], path, tmp_path / str(seed), settings(seed=seed), folds=3)
        assert finetuned.quality is not None
        found.append(finetuned.quality.mean["pcc"].value)
    assert np.mean(found) < 0.25  # folds of few images tend below zero: what one lacks, the others have more of


def test_the_scale_of_a_group_changes_nothing(pretrained: Path, pictures: Path, table: Path, tmp_path: Path) -> None:
    """Squeeze and shift the ratings of one group: the weights come out the same."""
    rows = [line.split(",") for line in table.read_text().split()[1:]]
    squeezed = tmp_path / "squeezed.csv"
    moved = [f"{p},{(0.25 * float(s) + 3) if g == 'odd' else s},{g}" for p, s, g in rows]
    squeezed.write_text("path,score,group\n" + "\n".join(moved) + "\n")
    finetune(pretrained, [pictures], table, tmp_path / "a", settings())
    finetune(pretrained, [pictures], squeezed, tmp_path / "b", settings())
    a, b = (Checkpoint.load(tmp_path / name).weights for name in "ab")
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-4
    assert any(not torch.equal(a[name], value) for name, value in Checkpoint.load(pretrained).weights.items())


def test_deeper_blocks_learn_faster_than_the_stem(pretrained: Path, pictures: Path, table: Path) -> None:
    checkpoint = Checkpoint.load(pretrained)
    method, ratings = checkpoint.method(), load_ratings(table, [pictures])
    readout = fit_readout(method, ratings, checkpoint.recipe.input_spec, (1,), (0.0, 100.0)).readout
    shares = learning_rate_shares(method, readout, settings(encoder_share=0.1, layer_decay=0.5))
    named = {**dict(method.module.named_parameters()), **dict(readout.named_parameters())}
    by_name = {name: shares[parameter] for name, parameter in named.items()}
    assert by_name["weight"] == by_name["bias"] == 1.0
    assert by_name["encoder.norm.weight"] == by_name["encoder.blocks.1.query.weight"] == 0.1
    assert by_name["encoder.blocks.0.query.weight"] == 0.05
    assert by_name["encoder.stages.0.weight"] == by_name["encoder.mask_token"] == 0.025
    assert len(shares) == len(named)


def test_every_backbone_has_its_order() -> None:
    """A ResNet's blocks are its levels, and it has a lateral connection on top."""
    encoder = build_backbone("resnet18")
    method = SimpleNamespace(encoder=encoder, module=encoder)
    readout = Readout((3,), torch.zeros(1), torch.ones(1), torch.zeros(2), 0.0, "quadratic")
    shares = learning_rate_shares(method, readout, settings(encoder_share=1.0, layer_decay=0.5))
    found = {name.split(".layer")[0]: shares[parameter] for name, parameter in encoder.named_parameters()}
    assert [found[f"levels.{level}"] for level in range(4)] == [0.125, 0.25, 0.5, 1.0]
    assert {found[name] for name in found if name.startswith("stem")} == {0.0625}
    assert {found[name] for name in found if name.startswith("lateral")} == {1.0}


@pytest.mark.parametrize("kind", TERMS)
def test_where_nothing_gets_better_the_frozen_model_stays(
    pretrained: Path, pictures: Path, table: Path, tmp_path: Path, kind: str
) -> None:
    """A learning rate that ruins everything: epoch 0 is the best, and its weights come back."""
    ruinous = settings(optim=OptimConfig(epochs=9, batch_size=8, lr=3.0, bf16=False), patience=2, kind=kind)
    finetuned = finetune(pretrained, [pictures], table, tmp_path, ruinous)
    assert finetuned.epoch == 0
    before, after = Checkpoint.load(pretrained).weights, Checkpoint.load(tmp_path).weights
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {line["epoch"] for line in metrics(tmp_path)} == {0, 1}
    assert load_readout(tmp_path / READOUT)[0].kind == kind


class Interrupted(Exception):
    """Stands in for a kill at a known step."""


@pytest.mark.parametrize("killed_at", [0, 5, 10, 20])
def test_a_tuning_that_was_cut_short_continues_as_if_it_had_not_been(
    pretrained: Path,
    tuned: Path,
    pictures: Path,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
) -> None:
    """In the first fold before any step, in the middle of an epoch, in the second fold, and in the last training."""
    step, done = _Trainer.step, [0]

    def fragile(*arguments: object) -> dict[str, float]:
        done[0] += 1
        if done[0] > killed_at:
            raise Interrupted
        return step(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(_Trainer, "step", fragile)
        with pytest.raises(Interrupted):
            finetune(pretrained, [pictures], table, tmp_path, settings(), folds=2, checkpoint_every=3)
    finetune(pretrained, [pictures], table, tmp_path, settings(), folds=2, checkpoint_every=3)
    assert same_model(tuned, tmp_path)
    for folder in ("", "folds/0", "folds/1"):
        assert metrics(tuned / folder) == metrics(tmp_path / folder)
    assert report(tuned) == report(tmp_path)


def test_a_real_kill_is_survived(pretrained: Path, pictures: Path, table: Path, tmp_path: Path) -> None:
    rated = ["--images", str(pictures), "--ratings", str(table)]
    command = [sys.executable, "-m", "training.cli", "finetune", str(pretrained), *rated, "--epochs", "40"]
    command += ["--batch-size", "8", "--lr", "0.0001", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        while not (tmp_path / STATE).exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / FILE).exists()
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    said = " ".join(found.stderr.split())
    assert "no longer label-free" in said
    assert "no figure is claimed" in said
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))


def test_ratings_that_the_features_have_seen_are_refused(
    tuned: Path, pictures: Path, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"was fine-tuned on .* already"):
        fit_run(tuned, [pictures], table, (), (0.0, 100.0))
    with pytest.raises(ValueError, match=r"was fine-tuned on .* already"):
        finetune(tuned, [pictures], table, tmp_path, settings())


def test_a_readout_for_other_ratings_remembers_the_fine_tuning(
    tuned: Path, pictures: Path, table: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("\n".join(table.read_text().split("\n")[:-2]) + "\n")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (FILE, REPORT):
        (copy / name).write_bytes((tuned / name).read_bytes())
    fit_run(copy, [pictures], other, (), (0.0, 100.0))
    assert report(copy)["label_free"] is False
    assert report(copy)["finetuned"] == report(tuned)["finetuned"]


def test_what_cannot_be_done_is_said(pretrained: Path, pictures: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fine-tuned here"):
        finetune(pretrained, [pictures], table, pretrained, settings())
    with pytest.raises(ValueError, match="2 folds or more"):
        finetune(pretrained, [pictures], table, tmp_path, settings(), folds=1)
    few = tmp_path / "few.csv"
    few.write_text("\n".join(table.read_text().split("\n")[:17]) + "\n")
    with pytest.raises(ValueError, match="at least 9 images"):
        finetune(pretrained, [pictures], few, tmp_path, settings())
    with pytest.raises(ValueError, match="outside the scale"):
        finetune(pretrained, [pictures], table, tmp_path, settings(scale=(0.0, 1.0)))
    finetune(pretrained, [pictures], table, tmp_path, settings(patience=1))
    with pytest.raises(ValueError, match="other settings or data"):
        finetune(pretrained, [pictures], table, tmp_path, settings(patience=2))


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["clicv2-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert not exit_info.value.code, exit_info.value.code


@pytest.mark.parametrize("command", ["fit", "finetune"])
def test_ic9600s_lists_go_all_the_way(
    pretrained: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    """One group, scores from 0 to 1, through fit or finetune, evaluate and export, without a word about the scale."""
    lists = {}
    for part, name in enumerate(("train", "test")):
        lists[name] = tmp_path / f"{name}.txt"
        numbers = range(part, COUNT, 2)
        lists[name].write_text("".join(f"{n:02}.png  {0.1 + 0.8 * n / COUNT:.4f}\n" for n in numbers))
    run = tmp_path / "run"
    given = ("--images", pictures, "--ratings", lists["train"], "--kind", "linear")
    if command == "fit":
        run.mkdir()
        (run / FILE).write_bytes((pretrained / FILE).read_bytes())
        run_cli(monkeypatch, "fit", run, *given)
    else:
        run_cli(monkeypatch, "finetune", pretrained, *given, "--out", run, "--epochs", 3, "--batch-size", 8)
    assert (report(run)["kind"], report(run)["scale"]) == ("linear", [0.0, 1.0])
    capsys.readouterr()
    run_cli(monkeypatch, "evaluate", "--model", run, "--images", pictures, "--ratings", lists["test"], "--json")
    found = json.loads(capsys.readouterr().out)
    assert list(found["outputs"]["score"]["groups"]["pcc"]) == ["all"]
    assert found["outputs"]["score"]["mean"]["pcc"]["value"] > 0.6
    assert found["outputs"]["score"]["mean"]["rmse"]["value"] < 0.3  # of 100 for 1, it would be .55
    rated = ("--images", pictures, "--ratings", lists["test"])
    run_cli(monkeypatch, "export", run, tmp_path / "tiny/1", "--reference", pictures, *rated)
    manifest = contract.open_version(tmp_path / "tiny").manifest
    assert ("score_pcc_cross_validated" in manifest.figures) == (command == "fit")
