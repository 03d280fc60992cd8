"""One training of all weights on human ratings, stopped early; a kill changes nothing.

It starts from a readout that was fitted on the frozen features (linear probing, then fine-tuning:
arXiv 2202.10054; a readout of random weights would first tear the features apart), so that epoch 0
is the frozen model and the best epoch is never worse than that on the images held out for stopping.
Deeper blocks learn faster than the stem, and the readout faster than both. The pretraining task
goes on beside the ratings: it keeps a few hundred rated images from overwriting what thousands of
unrated ones taught, and its label-free output a meaning.

Images are flipped and no more: cropping and resizing would change what the rating is about.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from clicv2.spec import PreprocessSpec
from training.checkpoint import Checkpoint
from training.curves import METRICS
from training.data.images import ImageDataset, ImageSource, ResumableSampler
from training.data.ratings import Floats, Ratings, standardise_within
from training.draw import Draw
from training.fit import fit_readout
from training.journal import truncate_metrics
from training.losses.within_groups import residual_variance
from training.methods.protocol import Method
from training.metrics import Scale, pcc
from training.models.computed import Computed
from training.models.readout import Kind, Layers, Readout
from training.precision import mixed_precision
from training.pretrain import cosine_lr
from training.progress import CONSOLE
from training.recipe import OptimConfig
from training.ridge import stratified_folds
from training.transforms.augment import random_flips

STATE = "tuning.pt"
# One image in so many of each group is held out to tell when to stop.
HELD_OUT = 8
BATCH_SIZE = 32
# How the backbones name their blocks, from the bottom up, and what they have on top of them.
SECTION = re.compile(r"levels\.\d+\.blocks\.\d+|(?:levels|blocks)\.\d+")
ABOVE_ALL = ("norm.", "lateral.")


class TuningSettings(BaseModel):
    """Everything but the data that determines a fine-tuning.

    Attributes:
        optim: `lr` is the readout's.
        encoder_share: of that learning rate, for the last block and for the pretraining's heads.
        layer_decay: factor on it for each block below (arXiv 2106.08254), the stem below all.
        pretraining_weight: of the pretraining loss on the same images against that of the ratings. A contrast
            over many negatives is large by itself: where it is the whole loss, weigh it as CLICv2 does (.03).
        patience: epochs without a better loss on the held-out images, after which it stops.
        layers, kind, scale: see `training.fit.fit_run`.
        seed: of the split, the order and the flips.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    optim: OptimConfig
    encoder_share: float = Field(default=0.1, ge=0)
    layer_decay: float = Field(default=0.75, gt=0, le=1)
    pretraining_weight: float = Field(default=1.0, ge=0)
    patience: int = Field(default=4, gt=0)
    layers: Layers = ()
    kind: Kind = "variety"
    scale: Scale
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best epoch of a training.

    Attributes:
        method, readout: with their weights; the readout's mean over the images trained on is 0.
        epoch: which it was; 0 is the frozen model.
        held_out: bool [N], the images that chose it.
    """

    method: Method
    readout: Readout
    epoch: int
    held_out: npt.NDArray[np.bool_]


@dataclass(slots=True)
class _State:
    """Where a training stands: current weights, and the best so far.

    Attributes:
        loss, pcc: on the held-out images, after the last whole epoch.
    """

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]  # torch's own layout
    loss: float
    pcc: float
    best_epoch: int
    best_loss: float
    best_weights: dict[str, Tensor]


def tune(
    checkpoint: Checkpoint,
    ratings: Ratings,
    settings: TuningSettings,
    folder: Path,
    identity: Mapping[str, object],
    label: str,
    checkpoint_every: int,
) -> Tuned:
    """Train in `folder`, or continue the training that is there.

    Args:
        identity: of the data and what else makes this training this one.
        label: of the progress bar.

    Raises ValueError when another training is there, or when a group is too small to hold out two of its images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held_out = stratified_folds(ratings.groups, HELD_OUT, settings.seed) == 0
    for group in ratings.group_names:
        if (held_out & (ratings.groups == group)).sum() < 2:
            raise ValueError(f"group {group!r} needs at least {HELD_OUT + 1} images in each training")
    whole_identity = {"settings": settings.model_dump(mode="json"), "images": len(ratings), **identity}
    state = _load(folder / STATE, whole_identity)
    trainer = _Trainer(checkpoint, ratings, held_out, settings, state)

    def save(state: _State) -> None:
        partial = folder / f"{STATE}.partial"
        torch.save({"identity": whole_identity, **{name: getattr(state, name) for name in _State.__slots__}}, partial)
        partial.replace(folder / STATE)

    if state is None:
        loss, correlation = trainer.validate()
        weights = trainer.copy_weights()
        state = _State(0, weights, trainer.optimizer.state_dict(), loss, correlation, 0, loss, weights)
        save(state)
    if not trainer.finished(state):
        truncate_metrics(folder / METRICS, state.step)
        trainer.run(state, save, folder / METRICS, label, checkpoint_every)
        state.weights, state.optimizer = {}, {}  # nothing will continue from them
        save(state)
    trainer.model.load_state_dict(state.best_weights)
    trainer.centre()
    trainer.model.cpu().eval()
    return Tuned(trainer.method, trainer.readout, state.best_epoch, held_out)


def raw_scores(method: Method, readout: Readout, sources: tuple[ImageSource, ...], spec: PreprocessSpec) -> Floats:
    """Scores before calibration: [N]."""
    device = readout.weight.device
    scores = []
    with torch.inference_mode():
        for batch in DataLoader(ImageDataset(sources, spec), BATCH_SIZE):
            images = batch.to(device).permute(0, 3, 1, 2).float() / 255.0
            scores.append(readout(Computed(images), method.encoder(images)).mean(dim=1).double().cpu())
    return torch.cat(scores).numpy()


def learning_rate_shares(method: Method, readout: Readout, settings: TuningSettings) -> dict[nn.Parameter, float]:
    """Of the peak learning rate, for every weight that is trained."""
    shares = {p: settings.encoder_share for p in method.module.parameters() if p.requires_grad}
    named = dict(method.encoder.named_parameters())
    sections = list(dict.fromkeys(found[0] for name in named if (found := SECTION.match(name))))
    for name, parameter in named.items():
        if found := SECTION.match(name):
            below = len(sections) - 1 - sections.index(found[0])
        else:
            below = 0 if name.startswith(ABOVE_ALL) else len(sections)
        shares[parameter] = settings.encoder_share * settings.layer_decay**below
    return shares | dict.fromkeys(readout.parameters(), 1.0)


class _Images(Dataset[tuple[Tensor, Tensor, int]]):
    """Each image at the model's size and at the pretraining's, uint8 [H, W, 3], and its number."""

    def __init__(self, sources: Sequence[ImageSource], spec: PreprocessSpec, canvas: PreprocessSpec):
        self._images = ImageDataset(sources, spec)
        self._canvases = ImageDataset(sources, canvas)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        return self._images[index], self._canvases[index], index


class _Trainer:
    """The models, the data and the optimiser of one training."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        ratings: Ratings,
        held_out: npt.NDArray[np.bool_],
        settings: TuningSettings,
        state: _State | None,
    ):
        self.settings = settings
        self.spec = checkpoint.recipe.input_spec
        self.method = checkpoint.method()
        self.trained_on, self.validated_on = ratings.only(~held_out), ratings.only(held_out)
        if state is None:
            self.readout = fit_readout(
                self.method,
                self.trained_on,
                self.spec,
                settings.layers,
                settings.scale,
                settings.seed,
                settings.kind,
            ).readout
        else:
            # Of their sizes only: a readout that shared its memory with the best weights would train them along.
            mean, scale, weight = (
                torch.zeros_like(state.best_weights[f"readout.{name}"]) for name in ("mean", "scale", "weight")
            )
            self.readout = Readout(settings.layers, mean, scale, weight, 0.0, settings.kind)
        self.readout.requires_grad_(True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = nn.ModuleDict({"method": self.method.module, "readout": self.readout}).to(self.device)

        by_share = defaultdict(list)
        for parameter, share in learning_rate_shares(self.method, self.readout, settings).items():
            by_share[share].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters, "share": share} for share, parameters in by_share.items()],
            lr=settings.optim.lr,
            weight_decay=settings.optim.weight_decay,
        )
        if state is not None and state.optimizer:  # otherwise it is finished, and its best weights are all it has
            self.model.load_state_dict(state.weights)
            self.optimizer.load_state_dict(state.optimizer)

        target = standardise_within(ratings.scores, ratings.groups)
        number = np.searchsorted(ratings.group_names, ratings.groups)
        self.target, self.group, self.held_target, self.held_group = (
            torch.from_numpy(values[chosen]).to(self.device)
            for chosen in (~held_out, held_out)
            for values in (target.astype(np.float32), number)
        )
        count = len(self.trained_on)
        self.batch_size = min(settings.optim.batch_size, count)
        self.steps_per_epoch = count // self.batch_size
        self.total = self.steps_per_epoch * settings.optim.epochs
        self.dataset = _Images(self.trained_on.sources, self.spec, checkpoint.recipe.canvas_spec)
        self.workers = checkpoint.recipe.workers

    def finished(self, state: _State) -> bool:
        epoch, into = divmod(state.step, self.steps_per_epoch)
        return into == 0 and (state.step == self.total or epoch - state.best_epoch >= self.settings.patience)

    def run(
        self, state: _State, save: Callable[[_State], None], metrics: Path, label: str, checkpoint_every: int
    ) -> None:
        """Train from `state` on, updating it, until it is finished."""
        sampler = ResumableSampler(
            len(self.trained_on),
            batch_size=self.batch_size,
            epochs=self.settings.optim.epochs,
            first_step=state.step,
            seed=self.settings.seed,
        )
        batches = iter(DataLoader(self.dataset, self.batch_size, sampler=sampler, num_workers=self.workers))
        with metrics.open("a", buffering=1) as stream, _progress(self.total, state.step, label) as show:
            while not self.finished(state):
                started = time.perf_counter()
                pixels, canvas, index = next(batches)
                arrived = time.perf_counter()
                measures = self.step(pixels, canvas, index, state.step)
                step_s = time.perf_counter() - started
                line = {"step": state.step + 1, "epoch": state.step // self.steps_per_epoch, **measures}
                line |= {"held_out": state.loss, "held_out_pcc": state.pcc}
                stream.write(json.dumps(line | {"step_s": step_s, "wait_s": arrived - started}) + "\n")
                state.step += 1
                show(state, measures)
                epoch, into = divmod(state.step, self.steps_per_epoch)
                if into == 0:
                    state.loss, state.pcc = self.validate()
                    if state.loss < state.best_loss:
                        state.best_epoch, state.best_loss, state.best_weights = epoch, state.loss, self.copy_weights()
                if into == 0 or state.step % checkpoint_every == 0:
                    state.weights, state.optimizer = self.model.state_dict(), self.optimizer.state_dict()
                    save(state)

    def step(self, pixels: Tensor, canvas: Tensor, index: Tensor, step: int) -> dict[str, float]:
        """One step on uint8 [N, H, W, 3], at the model's size and at the pretraining's; its measures.

        All randomness comes from (seed, step). Raises FloatingPointError when the loss is no longer finite.
        """
        optim = self.settings.optim
        draw = Draw(self.settings.seed * 1_000_003 + step)
        self.model.train()
        lr = cosine_lr(step, self.total, optim)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        images = random_flips(pixels.to(self.device).permute(0, 3, 1, 2).float() / 255.0, draw)
        with mixed_precision(self.device, bf16=optim.bf16):
            features = self.method.encoder(images)
        predicted = self.readout(Computed(images), features).mean(dim=1)  # [N], in float32 as in serving
        ratings = residual_variance(predicted, self.target[index], self.group[index])
        measures = {"ratings": ratings}
        loss = ratings
        if self.settings.pretraining_weight > 0:
            with mixed_precision(self.device, bf16=optim.bf16):
                measures["pretraining"] = self.method.step(canvas.to(self.device), draw)["loss"]
            loss = loss + self.settings.pretraining_weight * measures["pretraining"]
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}: lower the learning rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], optim.clip)
        self.optimizer.step()
        return {"lr": lr, "loss": float(loss.detach()), **{k: float(v.detach()) for k, v in measures.items()}}

    def validate(self) -> tuple[float, float]:
        """The loss on the held-out images, and their PCC within groups, averaged over the groups."""
        self.model.eval()
        raw = raw_scores(self.method, self.readout, self.validated_on.sources, self.spec)
        predicted = torch.from_numpy(raw.astype(np.float32)).to(self.device)
        loss = residual_variance(predicted, self.held_target, self.held_group)
        held = self.validated_on
        each = [pcc(raw[held.groups == g], held.scores[held.groups == g]) for g in held.group_names]
        return float(loss), float(np.mean(each))

    def centre(self) -> None:
        """Give the readout the bias that makes its mean over the images trained on 0, which no loss asks for.

        So models of different folds predict on one scale.
        """
        self.model.eval()
        raw = raw_scores(self.method, self.readout, self.trained_on.sources, self.spec)
        with torch.no_grad():
            self.readout.bias.sub_(float(raw.mean()))
        self.readout.requires_grad_(False)

    def copy_weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


def _load(file: Path, identity: Mapping[str, object]) -> _State | None:
    if not file.exists():
        return None
    content = torch.load(file, map_location="cpu", weights_only=True)
    if content.pop("identity") != identity:
        raise ValueError(f"{file} belongs to a fine-tuning with other settings or data: choose another folder")
    return _State(**content)


@contextmanager
def _progress(total: int, done: int, label: str) -> Iterator[Callable[[_State, Mapping[str, float]], None]]:
    """A progress bar with time left, the loss, and how the held-out images do now and did at best."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=CONSOLE) as progress:
        task = progress.add_task(label, total=total, completed=done, status="")

        def show(state: _State, measures: Mapping[str, float]) -> None:
            held_out = f"held out {state.loss:.3f} (best {state.best_loss:.3f} after epoch {state.best_epoch})"
            progress.update(task, completed=state.step, status=f"loss {measures['loss']:.3f}, {held_out}")

        yield show
