"""CLIC's step: the contrast with the mosaic, and energy against entropy."""

import dataclasses

import pytest
import torch

from training.draw import Draw
from training.losses.complexity_aware import global_entropy
from training.methods.clic import CLIC, CLICSettings
from training.models.computed import Computed
from training.models.encoder import Encoder

SMALL = CLICSettings(view_size=32, queue=16, momentum=0.9, hidden=32, dim=16)


def method(settings: CLICSettings = SMALL) -> CLIC:
    torch.manual_seed(0)
    return CLIC(Encoder(dim=16, depth=1, heads=1, stem=(4, 4, 8)), settings)


def canvas(count: int = 6) -> torch.Tensor:
    """Stronger and stronger noise: entropy rises with the number."""
    noise = torch.rand(count, 64, 64, 1, generator=torch.Generator().manual_seed(1)) - 0.5
    strength = torch.linspace(0, 1, count).view(-1, 1, 1, 1)
    return (128 + 250 * strength * noise).expand(-1, -1, -1, 3).to(torch.uint8)


@pytest.mark.parametrize(("weight", "mix"), [(0.25, True), (0.0, True), (2.0, False)])
def test_both_parts_join_in_the_loss(weight: float, mix: bool) -> None:
    clic = method(dataclasses.replace(SMALL, complexity_weight=weight, mix=mix))
    measures = clic.step(canvas(), Draw(0))
    assert set(measures) == {"loss", "contrast", "contrast_accuracy", "complexity_aware", "energy_correlation"}
    assert measures["loss"].item() == pytest.approx(
        measures["contrast"].item() + weight * measures["complexity_aware"].item()
    )


def test_energy_is_compared_with_the_entropy_of_the_whole_picture() -> None:
    clic = method()
    query = torch.nn.functional.interpolate(
        canvas().permute(0, 3, 1, 2).float() / 255, (32, 32), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        stages = clic.encoder(query).stages
        energy = sum(stage.mean(dim=(1, 2)) for stage in stages) / torch.tensor(256.0).log()
    expected = (energy - global_entropy(query)).square().mean()
    assert clic.step(canvas(), Draw(0))["complexity_aware"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_complexity_aware_loss_trains_the_stages_alone() -> None:
    clic = method()
    clic.step(canvas(), Draw(0))["complexity_aware"].backward()
    trained = {name for name, p in clic.module.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained
    assert all(name.startswith("encoder.stages.") for name in trained)


def test_the_key_is_a_mosaic_unless_that_is_off() -> None:
    """In a mosaic of a ramp brightness falls at the seams; a copy alone is one ramp."""
    ramp = (torch.arange(64.0) / 63).view(1, 1, 1, -1).expand(20, 3, 64, 64)
    plain = dataclasses.replace(SMALL, jitter=0.0, hue=0.0)

    def falls(key: torch.Tensor) -> int:
        steps = key[:, 0].diff(dim=2).sign()  # [N, H, W - 1]
        return int((steps.amax(dim=2) != steps.amin(dim=2)).sum())

    assert falls(method(plain)._key(ramp, Draw(0))) > 0
    assert falls(method(dataclasses.replace(plain, mix=False))._key(ramp, Draw(0))) == 0


def test_the_draw_determines_the_step() -> None:
    first, again, other = (method().step(canvas(), Draw(seed))["loss"] for seed in (3, 3, 4))
    assert first == again != other


def test_training_makes_energy_follow_entropy() -> None:
    clic = method(dataclasses.replace(SMALL, complexity_weight=10.0))
    optimizer = torch.optim.AdamW([p for p in clic.module.parameters() if p.requires_grad], lr=3e-3)
    measures = []
    for seed in range(80):
        found = clic.step(canvas(8), Draw(seed))
        measures.append({name: value.item() for name, value in found.items()})
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
    assert measures[-1]["complexity_aware"] < 0.3 * measures[0]["complexity_aware"]
    assert measures[-1]["energy_correlation"] > 0.8 > measures[0]["energy_correlation"]
    with torch.no_grad():
        images = canvas(8).permute(0, 3, 1, 2).float() / 255
        complexity = clic.label_free(Computed(images), clic.encoder(images)).mean(dim=1)
    assert ((complexity >= 0) & (complexity <= 1)).all()
    assert torch.corrcoef(torch.stack([complexity, global_entropy(images)]))[0, 1] > 0.8


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"view_size": 48}, "seams"),
        ({"momentum": 1.0}, "never move"),
        ({"crop_divisor": 0}, "parts of the picture"),
        ({"complexity_weight": -1.0}, "at least 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(SMALL, **settings)
