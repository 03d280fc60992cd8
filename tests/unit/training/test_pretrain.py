"""A run: its metrics, its checkpoints, and that a kill changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from training import cli
from training.checkpoint import FILE, Checkpoint
from training.curves import CURVES, METRICS, plot_curves
from training.fit import REPORT
from training.pretrain import cosine_lr, pretrain
from training.recipe import EncoderConfig, OptimConfig, Recipe

# What is measured of the clock may differ between two runs of the same recipe.
TIMES = {"step_s", "wait_s"}


def metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def same_weights(a: Path, b: Path) -> bool:
    left, right = Checkpoint.load(a).weights, Checkpoint.load(b).weights
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_a_run_leaves_metrics_of_every_step_and_a_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint = pretrain(recipe, tmp_path)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert [line["epoch"] for line in lines] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {"loss", "masked_entropy", "contrast", "contrast_accuracy", "entropy_r2", "lr"} < lines[0].keys()
    loaded = Checkpoint.load(checkpoint)
    assert (loaded.step, loaded.recipe) == (9, recipe)
    assert not list(tmp_path.glob("*.partial"))


def test_the_seed_determines_the_run(recipe: Recipe, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pretrain(recipe.model_copy(update={"seed": seed}), tmp_path / name)
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


def test_a_run_may_begin_with_the_weights_of_another(recipe: Recipe, tmp_path: Path) -> None:
    """Only where it begins: from there it continues as any other."""
    pretrain(recipe, tmp_path / "first")
    still = recipe.optim.model_copy(update={"lr": 1e-12, "epochs": 1})
    second = recipe.model_copy(update={"start": tmp_path / "first", "optim": still, "seed": 1})
    begun = Checkpoint.load(pretrain(second, tmp_path / "second")).weights
    for name, weight in Checkpoint.load(tmp_path / "first").weights.items():
        assert torch.allclose(begun[name], weight, atol=1e-6), name
    shutil.rmtree(tmp_path / "first")
    pretrain(second, tmp_path / "second")  # is finished, and does not ask again


def test_the_command_begins_with_the_run_that_it_is_given(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    pretrain(recipe, tmp_path / "first")

    def ended(*, start: Path, out: Path) -> int:
        command = ["clicv2-train", "pretrain", tmp_path / "recipe.yaml", "--epochs", 1, "--out", out]
        monkeypatch.setattr("sys.argv", [*map(str, command), "--start-from", str(start)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    assert ended(start=tmp_path / "first", out=tmp_path / "second") == 0
    assert Checkpoint.load(tmp_path / "second").recipe.start == tmp_path / "first"
    capsys.readouterr()
    assert ended(start=tmp_path / "none", out=tmp_path / "third") == 2
    assert "no run to start from" in " ".join(capsys.readouterr().err.split())


def test_what_a_run_cannot_begin_with_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run to start from"):
        pretrain(recipe.model_copy(update={"start": tmp_path / "none"}), tmp_path / "out")
    pretrain(recipe, tmp_path / "first")
    start = {"start": tmp_path / "first"}
    assert isinstance(recipe.encoder, EncoderConfig)
    wider = recipe.encoder.model_copy(update={"stem": (4, 8, 8)})
    with pytest.raises(ValueError, match=r"(?s)another method or encoder: .*stages\.1\.weight"):
        pretrain(recipe.model_copy(update={"encoder": wider, **start}), tmp_path / "out")
    with pytest.raises(ValueError, match="another method"):
        pretrain(recipe.model_copy(update={"method": "mocov2", **start}), tmp_path / "out")
    (tmp_path / "first" / REPORT).write_text(json.dumps({"finetuned": [{"ratings": "r.csv"}]}))
    with pytest.raises(ValueError, match="fine-tuned on ratings"):
        pretrain(recipe.model_copy(update=start), tmp_path / "out")
    assert not (tmp_path / "out" / FILE).exists()


def test_the_curves_show_every_measure(recipe: Recipe, tmp_path: Path) -> None:
    pretrain(recipe, tmp_path)
    with Image.open(tmp_path / CURVES) as picture:
        height = picture.height
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    extended = [json.dumps(line | {f"extra{n}": n for n in range(3)}) for line in lines]
    (tmp_path / METRICS).write_text("\n".join(extended) + "\n")
    plot_curves(tmp_path)
    with Image.open(tmp_path / CURVES) as picture:
        assert picture.height > height  # one more row of panels


class Interrupted(Exception):
    """Stands in for a kill at a known step."""


@pytest.mark.parametrize(
    ("method", "killed_at"),
    [("clicv2", 1), ("clicv2", 4), ("clicv2", 6), ("clicv2", 8), ("clic", 3), ("clic", 6), ("mocov2", 3)],
)
def test_a_run_that_was_cut_short_continues_as_if_it_had_not_been(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, killed_at: int
) -> None:
    recipe = recipe.model_copy(update={"method": method})
    pretrain(recipe, tmp_path / "whole")
    build = Recipe.build_method

    def fragile(self: Recipe) -> object:
        built = build(self)
        step, done = built.step, [0]

        def counted(*args: object) -> object:
            done[0] += 1
            if done[0] > killed_at:
                raise Interrupted
            return step(*args)

        built.step = counted
        return built

    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "build_method", fragile)
        with pytest.raises(Interrupted):
            pretrain(recipe, tmp_path / "cut", checkpoint_every=2)
    pretrain(recipe, tmp_path / "cut", checkpoint_every=2)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_a_real_kill_is_survived(recipe: Recipe, tmp_path: Path) -> None:
    longer = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"epochs": 40})})
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(longer.model_dump(mode="json")))
    command = [sys.executable, "-m", "training.cli", "pretrain", str(file), "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        while not (tmp_path / "run" / FILE).exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    reached = Checkpoint.load(tmp_path / "run").step
    assert 0 < reached < 120
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, 121))


def test_another_recipe_does_not_continue_a_run(recipe: Recipe, tmp_path: Path) -> None:
    pretrain(recipe, tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        pretrain(recipe.model_copy(update={"seed": 5}), tmp_path)


def test_pretraining_does_not_continue_from_a_fine_tuned_model(recipe: Recipe, tmp_path: Path) -> None:
    loaded = Checkpoint.load(pretrain(recipe, tmp_path))
    Checkpoint(loaded.recipe, loaded.step, loaded.weights, {}).save(tmp_path / FILE)  # as `finetune` leaves it
    with pytest.raises(ValueError, match="was fine-tuned"):
        pretrain(recipe, tmp_path)


def test_too_few_images_for_a_batch_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    large = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"batch_size": 64})})
    with pytest.raises(ValueError, match="do not fill one batch"):
        pretrain(large, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Recipe.build_method

    def poisoned(self: Recipe) -> object:
        method = build(self)
        method.step = lambda *_: {"loss": torch.tensor(float("nan"), requires_grad=True)}
        return method

    monkeypatch.setattr(Recipe, "build_method", poisoned)
    with pytest.raises(FloatingPointError, match="step 0"):
        pretrain(recipe, tmp_path)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    optim = OptimConfig(epochs=1, lr=1.0, warmup=0.1)
    rates = [cosine_lr(step, 100, optim) for step in range(100)]
    assert rates[9] == rates[10] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] < 0.001


def test_every_shipped_recipe_is_valid() -> None:
    files = sorted(Path("training/configs").glob("*.yaml"))
    assert files
    for file in files:
        assert Recipe.load(file).name == file.stem
        with torch.device("meta"):  # shapes alone: the large backbones take seconds to fill
            Recipe.load(file).build_method()


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("name: x\noptim: {epochs: 1}\nclicv2: {temprature: 0.1}\n")
    with pytest.raises(ValueError, match="temprature"):
        Recipe.load(file)
