"""CLICv2's step: the three parts, each with its switch."""

import dataclasses

import pytest
import torch

from training.methods.clicv2 import CLICv2, CLICv2Settings
from training.models.encoder import Encoder

SMALL = CLICv2Settings(view_size=32, shift_low=8, shift_high=12)


def step(settings: CLICv2Settings, seed: int = 0) -> tuple[CLICv2, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    method = CLICv2(Encoder(dim=16, depth=1, heads=1, stem=(4, 4, 8)), settings)
    canvas = torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return method, method.step(canvas, torch.Generator().manual_seed(seed))


def test_all_parts_join_in_the_loss() -> None:
    _, measures = step(SMALL)
    expected = measures["masked_entropy"] + SMALL.contrast_weight * measures["contrast"]
    assert measures["loss"].item() == pytest.approx(expected.item())
    assert set(measures) == {"loss", "masked_entropy", "entropy_r2", "contrast", "contrast_accuracy"}


@pytest.mark.parametrize(
    ("off", "absent", "untouched"),
    [("contrast", "contrast", "projection"), ("masked_entropy", "masked_entropy", "entropy_head")],
)
def test_a_part_that_is_off_is_neither_measured_nor_trained(off: str, absent: str, untouched: str) -> None:
    method, measures = step(dataclasses.replace(SMALL, **{off: False}))
    assert absent not in measures
    measures["loss"].backward()
    trained = {name.split(".")[0] for name, p in method.module.named_parameters() if p.grad is not None}
    assert untouched not in trained
    assert "encoder" in trained


def test_without_the_shift_both_views_show_the_same_and_the_contrast_is_easier() -> None:
    plain = {"masked_entropy": False, "jitter": 0.0, "grey_share": 0.0, "exclude_radius": 0}
    _, shifted = step(dataclasses.replace(SMALL, **plain))
    _, same = step(dataclasses.replace(SMALL, **plain, shifted_patchify=False))
    assert same["contrast_accuracy"] == 1.0
    assert same["contrast"] < shifted["contrast"]


def test_the_generator_determines_the_step() -> None:
    _, first = step(SMALL, seed=3)
    _, again = step(SMALL, seed=3)
    _, other = step(SMALL, seed=4)
    assert first["loss"] == again["loss"] != other["loss"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"contrast": False, "masked_entropy": False}, "nothing to learn"),
        ({"view_size": 100}, "multiple of the patch"),
        ({"shift_low": 7}, "under half a patch"),
    ],
)
def test_settings_that_cannot_teach_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(CLICv2Settings(), **settings)


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    method = CLICv2(Encoder(dim=32, depth=1, heads=2, stem=(8, 8, 16)), SMALL)
    rows = torch.arange(64).reshape(1, 64, 1, 1)
    busy = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    flat = (rows * torch.arange(4).reshape(4, 1, 1, 1)).expand(4, 64, 64, 3).to(torch.uint8)
    canvas = torch.cat([busy, flat])
    optimizer = torch.optim.AdamW(method.module.parameters(), lr=3e-3)
    losses = []
    for seed in range(40):
        loss = method.step(canvas, torch.Generator().manual_seed(seed))["masked_entropy"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
