"""One epoch on one screen."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.methods.protocol import Method


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
    clip: float,
    bf16: bool,
    device: torch.device,
    report: Callable[[StepReport], None],
) -> int:
    """Train on `batches` (uint8 [N, H, W, 3]) and return the number of steps done by then.

    All randomness of a step comes from (seed, step), so a run that was killed continues as if it
    had not been. Raises FloatingPointError when the loss is no longer finite.
    """
    step = first_step
    method.module.train()
    before = time.perf_counter()
    for batch in batches:
        arrived = time.perf_counter()
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        lr = lr_at(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            measures = method.step(batch.to(device, non_blocking=True), generator)
        loss = measures["loss"]
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}: lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(method.module.parameters(), clip)
        optimizer.step()
        step += 1
        now = time.perf_counter()
        report(
            StepReport(step, lr, {k: float(v.detach()) for k, v in measures.items()}, now - before, arrived - before)
        )
        before = time.perf_counter()
    return step
