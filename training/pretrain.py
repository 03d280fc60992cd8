"""Pretraining: recipe -> data -> method -> engine, with a metrics file, checkpoints, and resume."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from training import distributed
from training.checkpoint import FILE, Checkpoint
from training.curves import METRICS, plot_curves
from training.data.images import ImageDataset, ResumableSampler, find_images
from training.distributed import World
from training.engine import StepReport, train_one_epoch
from training.fit import finetunings
from training.journal import truncate_metrics
from training.precision import computes_bf16
from training.progress import CONSOLE
from training.recipe import OptimConfig, Recipe

# What the progress bar shows is averaged over about this many steps.
SMOOTHING_STEPS = 50


def pretrain(recipe: Recipe, out: Path, *, checkpoint_every: int = 200) -> Path:
    """Run a recipe in the folder `out`, or continue the run that is there; returns its checkpoint.

    Under torchrun the processes share every batch. Raises ValueError when `out` holds a run of
    another recipe or one that was fine-tuned, when the batch cannot be shared out evenly, or when
    the recipe starts from a run that was fine-tuned or has other weights; FileNotFoundError when
    there is no such run.
    """
    with distributed.join() as world:
        return _pretrain(recipe, out, world, checkpoint_every)


def _pretrain(recipe: Recipe, out: Path, world: World, checkpoint_every: int) -> Path:
    optim = recipe.optim
    out.mkdir(parents=True, exist_ok=True)
    sources = find_images(recipe.images)
    steps_per_epoch = len(sources) // optim.batch_size
    if steps_per_epoch == 0:
        raise ValueError(f"{len(sources)} images do not fill one batch of {optim.batch_size}")
    if optim.batch_size % (world.size * optim.accumulate):
        raise ValueError(
            f"a batch of {optim.batch_size} cannot be shared by {world.size} processes in {optim.accumulate} parts"
        )
    total = steps_per_epoch * optim.epochs
    part = optim.batch_size // (world.size * optim.accumulate)

    if optim.bf16 and world.rank == 0 and not computes_bf16(world.device):
        CONSOLE.print("The recipe has bf16, which this device would only emulate: float32 instead.")

    torch.manual_seed(recipe.seed)  # initial weights, the same everywhere; every step's randomness is its own
    method = recipe.build_method()
    method.module.to(world.device)
    optimizer = torch.optim.AdamW(
        [p for p in method.module.parameters() if p.requires_grad],
        lr=optim.lr,
        betas=(0.9, 0.95),
        weight_decay=optim.weight_decay,
    )
    step = _resume(recipe, out / FILE, method.module, optimizer)
    if recipe.start and step == 0:
        _begin_with(recipe.start, method.module)
    sampler = ResumableSampler(
        len(sources),
        batch_size=optim.batch_size,
        epochs=optim.epochs,
        first_step=step,
        seed=recipe.seed,
        part=part,
        rank=world.rank,
        ranks=world.size,
    )
    # One loader for the whole run: a new one each epoch would let the device wait for its first batches.
    loader = DataLoader(
        ImageDataset(sources, recipe.canvas_spec),
        part,
        sampler=sampler,
        num_workers=recipe.workers,
        pin_memory=world.device.type == "cuda",
    )

    def save(done: int) -> None:
        if world.rank == 0:
            Checkpoint(recipe, done, method.module.state_dict(), optimizer.state_dict()).save(out / FILE)

    with _recorder(out, world, total, step, recipe) as record:

        def report(done: StepReport) -> None:
            record(done)
            if done.step % checkpoint_every == 0:
                save(done.step)

        batches = iter(loader)
        while step < total:
            left = steps_per_epoch - step % steps_per_epoch
            step = train_one_epoch(
                method,
                islice(batches, left * optim.accumulate),
                optimizer,
                first_step=step,
                seed=recipe.seed,
                lr_at=lambda s: cosine_lr(s, total, optim),
                optim=optim,
                world=world,
                report=report,
            )
            save(step)
    if world.rank == 0:
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
    if not checkpoint.optimizer:
        raise ValueError(f"{file} was fine-tuned, or restored: pretraining cannot continue from it")
    module.load_state_dict(checkpoint.weights)
    optimizer.load_state_dict(checkpoint.optimizer)
    return checkpoint.step


def _begin_with(run: Path, module: torch.nn.Module) -> None:
    """Give the module the weights of another run, whose recipe may differ in all but their shapes."""
    if not run.exists():
        raise FileNotFoundError(f"{run} is no run to start from: pretrain or restore it first, or name another")
    if finetunings(run):
        raise ValueError(f"{run} was fine-tuned on ratings: start from a run that was only pretrained")
    try:
        module.load_state_dict(Checkpoint.load(run).weights)
    except RuntimeError as error:  # torch's, with each weight that is missing, too much or of another shape
        raise ValueError(f"{run} has another method or encoder: {error}") from error


@contextmanager
def _recorder(out: Path, world: World, total: int, step: int, recipe: Recipe) -> Iterator[Callable[[StepReport], None]]:
    """Writes a line of metrics a step and shows the progress; the first of the processes alone does either."""
    if world.rank > 0:
        yield lambda _: None
        return
    truncate_metrics(out / METRICS, step)
    steps_per_epoch = total // recipe.optim.epochs
    with _progress(total, step, recipe.optim.batch_size) as show, (out / METRICS).open("a", buffering=1) as metrics:

        def record(done: StepReport) -> None:
            line = {"step": done.step, "epoch": (done.step - 1) // steps_per_epoch, "lr": done.lr, **done.measures}
            metrics.write(json.dumps(line | {"step_s": done.step_s, "wait_s": done.wait_s}) + "\n")
            show(done)

        yield record


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
