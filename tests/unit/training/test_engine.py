"""The step of the engine: parts of a batch add up, and everything is reported."""

import pytest
import torch
from torch import Tensor, nn

from training.distributed import World
from training.draw import Draw
from training.engine import StepReport, train_one_epoch
from training.recipe import OptimConfig


class Line:
    """Fits y = w x to y = 3 x, where x is an image's mean: a gradient that one can write down."""

    def __init__(self) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.drawn: list[float] = []
        self.autocast: set[bool] = set()

    def step(self, canvas: Tensor, draw: Draw) -> dict[str, Tensor]:
        self.drawn.append(draw.shared())
        self.autocast.add(torch.is_autocast_enabled("cpu"))
        x = canvas.float().mean(dim=(1, 2, 3)).unsqueeze(1)
        return {"loss": (self.module(x) - 3.0 * x).square().mean(), "mean": x.mean()}


def run(accumulate: int, *, bf16: bool = False) -> tuple[Line, list[StepReport], list[Tensor]]:
    method = Line()
    images = torch.arange(1, 25, dtype=torch.uint8).reshape(3, 8, 1, 1, 1).expand(3, 8, 2, 2, 3)  # 3 steps of 8
    batches = [part for batch in images for part in batch.split(8 // accumulate)]
    reports: list[StepReport] = []
    optimizer = torch.optim.SGD(method.module.parameters(), lr=0.0)
    done = train_one_epoch(
        method,
        batches,
        optimizer,
        first_step=5,
        seed=1,
        lr_at=lambda step: 1e-4 * step,
        optim=OptimConfig(epochs=1, batch_size=8, accumulate=accumulate, bf16=bf16, clip=1e9),
        world=World(0, 1, torch.device("cpu")),
        report=reports.append,
    )
    assert done == 8
    return method, reports, list(images)


def test_steps_follow_the_gradient_of_the_whole_batch() -> None:
    method, reports, images = run(accumulate=1)
    weight = 0.0
    for step, batch in enumerate(images, start=5):
        x = batch.float().mean(dim=(1, 2, 3))
        assert reports[step - 5].measures["loss"] == pytest.approx(((weight - 3) ** 2 * x.square().mean()).item(), 1e-4)
        weight -= 1e-4 * step * (2 * (weight - 3) * x.square().mean()).item()
    assert method.module.weight.item() == pytest.approx(weight, rel=1e-4)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_batch_in_parts_takes_the_same_steps(accumulate: int) -> None:
    whole, expected, _ = run(accumulate=1)
    parts, found, _ = run(accumulate)
    assert parts.module.weight.item() == pytest.approx(whole.module.weight.item(), rel=1e-5)
    assert [r.step for r in found] == [r.step for r in expected] == [6, 7, 8]
    for one, other in zip(found, expected, strict=True):
        assert one.measures == pytest.approx(other.measures, rel=1e-5)
    assert len(set(parts.drawn)) == 3 * accumulate  # every part has numbers of its own


@pytest.mark.parametrize("wished", [True, False])
@pytest.mark.parametrize("computed", [True, False])
def test_bf16_where_it_is_wished_for_and_computed(
    wished: bool, computed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": computed})
    method, _, _ = run(accumulate=1, bf16=wished)
    assert method.autocast == {wished and computed}
