"""CLICv2's step: the three parts, each with its switch."""

import dataclasses
import math

import pytest
import torch

from training.draw import Draw
from training.methods.clicv2 import CLICv2, CLICv2Settings
from training.models.encoder import Encoder

SMALL = CLICv2Settings(view_size=32, shift_low=8, shift_high=12)


def step(settings: CLICv2Settings, seed: int = 0) -> tuple[CLICv2, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    method = CLICv2(Encoder(dim=16, depth=1, heads=1, stem=(4, 4, 8)), settings)
    canvas = torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return method, method.step(canvas, Draw(seed))


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


@pytest.mark.parametrize("shift_by", ["image", "patch"])
@pytest.mark.parametrize("contrast_by", ["image", "patch"])
def test_every_kind_of_shift_and_contrast_teaches_the_encoder(shift_by: str, contrast_by: str) -> None:
    only = {"masked_entropy": False, "shift_by": shift_by, "contrast_by": contrast_by}
    method, measures = step(dataclasses.replace(SMALL, **only))
    queries = 6 * 4 if contrast_by == "patch" else 6  # of 6 images; as many keys, so guessing costs log(keys)
    assert 0.3 * math.log(queries) < measures["contrast"].item() < 3.0 * math.log(queries)
    measures["loss"].backward()
    assert all(p.grad is not None for p in method.projection.parameters())
    assert any(p.grad.abs().sum() > 0 for p in method.encoder.parameters() if p.grad is not None)


def test_the_draw_determines_the_step() -> None:
    _, first = step(SMALL, seed=3)
    _, again = step(SMALL, seed=3)
    _, other = step(SMALL, seed=4)
    assert first["loss"] == again["loss"] != other["loss"]


def test_the_target_is_measured_in_full_precision_whatever_the_model_computes_in() -> None:
    only = dataclasses.replace(SMALL, contrast=False, jitter=0.0, grey_share=0.0)
    method = CLICv2(Encoder(dim=16, depth=1, heads=1, stem=(4, 4, 8)), only)
    with torch.no_grad():  # a head that says 0: the loss is the mean square of the target
        for weight in method.entropy_head.parameters():
            weight.zero_()
        method.entropy_head.layers[-2].bias.fill_(-50.0)
    calm = torch.randint(120, 140, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    losses = []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses.append(method.step(calm, Draw(0))["masked_entropy"].item())
    assert losses[0] == losses[1]


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
        loss = method.step(canvas, Draw(seed))["masked_entropy"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
