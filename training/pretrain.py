"""Pretraining: recipe -> data -> method -> engine, with a metrics file, checkpoints, and resume."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from training.checkpoint import FILE, Checkpoint
from training.curves import METRICS, plot_curves
from training.data.images import ImageDataset, ResumableSampler, find_images
from training.engine import StepReport, train_one_epoch
from training.progress import CONSOLE
from training.recipe import OptimConfig, Recipe

# What the progress bar shows is averaged over about this many steps.
SMOOTHING_STEPS = 50


def pretrain(recipe: Recipe, out: Path, *, checkpoint_every: int = 200) -> Path:
    """Run a recipe in the folder `out`, or continue the run that is there; returns its checkpoint.

    Raises ValueError when `out` holds a run of another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    sources = find_images(recipe.images)
    dataset = ImageDataset(sources, recipe.canvas_spec)
    steps_per_epoch = len(sources) // recipe.optim.batch_size
    if steps_per_epoch == 0:
        raise ValueError(f"{len(sources)} images do not fill one batch of {recipe.optim.batch_size}")
    total = steps_per_epoch * recipe.optim.epochs

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)  # initial weights; every step's randomness has a generator of its own
    method = recipe.build_method()
    method.module.to(device)
    optimizer = torch.optim.AdamW(
        method.module.parameters(), lr=recipe.optim.lr, betas=(0.9, 0.95), weight_decay=recipe.optim.weight_decay
    )
    step = _resume(recipe, out / FILE, method.module, optimizer)
    _truncate_metrics(out / METRICS, step)

    def save(done: int) -> None:
        Checkpoint(recipe, done, method.module.state_dict(), optimizer.state_dict()).save(out / FILE)

    with _progress(total, step, recipe.optim.batch_size) as show, (out / METRICS).open("a", buffering=1) as metrics:

        def report(done: StepReport) -> None:
            line = {"step": done.step, "epoch": (done.step - 1) // steps_per_epoch, "lr": done.lr, **done.measures}
            metrics.write(json.dumps(line | {"step_s": done.step_s, "wait_s": done.wait_s}) + "\n")
            show(done)
            if done.step % checkpoint_every == 0:
                save(done.step)

        while step < total:
            epoch, into = divmod(step, steps_per_epoch)
            sampler = ResumableSampler(len(sources), seed=recipe.seed, epoch=epoch, skip=into * recipe.optim.batch_size)
            loader = DataLoader(
                dataset, recipe.optim.batch_size, sampler=sampler, num_workers=recipe.workers, drop_last=True
            )
            step = train_one_epoch(
                method,
                loader,
                optimizer,
                first_step=step,
                seed=recipe.seed,
                lr_at=lambda s: cosine_lr(s, total, recipe.optim),
                clip=recipe.optim.clip,
                bf16=recipe.optim.bf16,
                device=device,
                report=report,
            )
            save(step)
    plot_curves(out)
    return out / FILE


def cosine_lr(step: int, total: int, optim: OptimConfig) -> float:
    """Linear warm-up, then half a cosine to zero."""
    warmup = max(1, round(optim.warmup * total))
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    return optim.lr * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _resume(recipe: Recipe, file: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not file.exists():
        return 0
    checkpoint = Checkpoint.load(file)
    if checkpoint.recipe != recipe:
        raise ValueError(f"{file} belongs to another recipe ({checkpoint.recipe.name}): choose another folder")
    module.load_state_dict(checkpoint.weights)
    optimizer.load_state_dict(checkpoint.optimizer)
    return checkpoint.step


def _truncate_metrics(file: Path, step: int) -> None:
    """Forget what was measured after the checkpoint that the run continues from."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):  # the line that a kill cut short
            break
    file.write_text("".join(kept))


@contextmanager
def _progress(total: int, done: int, batch_size: int) -> Iterator[Callable[[StepReport], None]]:
    """A progress bar with time left, the smoothed loss, images/s and the share of time spent waiting for images."""
    columns = (
        TextColumn("pretrain"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    smoothed: dict[str, float] = {}
    with Progress(*columns, console=CONSOLE) as progress:
        task = progress.add_task("pretrain", total=total, completed=done, status="")

        def show(report: StepReport) -> None:
            now = {"loss": report.measures["loss"], "step_s": report.step_s, "wait_s": report.wait_s}
            for name, value in now.items():
                smoothed[name] = smoothed.get(name, value) + (value - smoothed.get(name, value)) / SMOOTHING_STEPS
            rate = batch_size / smoothed["step_s"]
            wait = smoothed["wait_s"] / smoothed["step_s"]
            status = f"loss {smoothed['loss']:.4f}, {rate:.0f} images/s, {wait:.0%} waiting"
            progress.update(task, completed=report.step, status=status)

        yield show
