"""One epoch on one screen."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from training import distributed
from training.distributed import World
from training.draw import Draw
from training.methods.protocol import Method
from training.precision import mixed_precision
from training.recipe import OptimConfig


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step measured: losses and accuracies by name, seconds in all and spent waiting for images."""

    step: int
    lr: float
    measures: dict[str, float]
    step_s: float
    wait_s: float


def train_one_epoch(
    method: Method,
    batches: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    first_step: int,
    seed: int,
    lr_at: Callable[[int], float],
    optim: OptimConfig,
    world: World,
    report: Callable[[StepReport], None],
) -> int:
    """Train on `batches` (uint8 [N, H, W, 3], `optim.accumulate` of them a step) and return the number of steps done.

    All randomness of a step comes from (seed, step), so a run that was killed continues as if it
    had not been. Raises FloatingPointError when the loss is no longer finite.
    """
    step = first_step
    method.module.train()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    before = time.perf_counter()
    for parts in _groups(batches, optim.accumulate):
        arrived = time.perf_counter()
        lr = lr_at(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        measures: Counter[str] = Counter()
        for number, batch in enumerate(parts):
            draw = Draw((seed * 1_000_003 + step) * optim.accumulate + number, world.rank, world.size)
            with mixed_precision(world.device, bf16=optim.bf16):
                found = method.step(batch.to(world.device, non_blocking=True), draw)
            (found["loss"] / len(parts)).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            measures.update({name: value / len(parts) for name, value in distributed.average(found).items()})
        if not abs(measures["loss"]) < float("inf"):  # also when it is NaN
            raise FloatingPointError(f"the loss is {measures['loss']} at step {step}: lower the learning rate")
        distributed.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, optim.clip)
        optimizer.step()
        step += 1
        now = time.perf_counter()
        report(StepReport(step, lr, dict(measures), now - before, arrived - before))
        before = time.perf_counter()
    return step


def _groups(batches: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    stream = iter(batches)
    while group := list(islice(stream, size)):
        yield group
