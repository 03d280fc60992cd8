"""The heads that give a label-free score, against loops, and in an exported model."""

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from clicv2 import contract
from clicv2.spec import PreprocessSpec
from training.export import check_parity, export_onnx
from training.models.backbone import Features
from training.models.computed import Computed
from training.models.encoder import Encoder
from training.models.heads import (
    MOST_RATE,
    STAGE_CHANNELS,
    STAGE_DISTORTION,
    ActivationEnergy,
    EntropyHead,
    stage_rate,
)
from training.models.readout import Calibration, ComplexityModel, Readout
from training.transforms.coding_rate import local_and_whole, patch_rates
from training.transforms.information import MOST_RATES, share_of_most_bits

# What the energy of activations does not look at.
NOTHING = Computed(torch.zeros(0, 3, 32, 48))


def features(count: int, widths: tuple[int, ...]) -> Features:
    torch.manual_seed(count)
    stages = tuple(3 * torch.randn(count, 6, width) for width in widths)
    return Features(stages, (torch.zeros(count, 6, 2),), (2, 3))


@pytest.mark.parametrize(
    ("count", "widths", "unit", "clipped"),
    list(itertools.product((1, 3), ((4,), (2, 3, 5, 8)), (1.0, 5.0), (True, False))),
)
def test_against_the_slow_definition(count: int, widths: tuple[int, ...], unit: float, clipped: bool) -> None:
    seen = features(count, widths)
    found = ActivationEnergy(unit, clipped=clipped)(NOTHING, seen)
    assert found.shape == (count, 6)
    for image, patch in itertools.product(range(count), range(6)):
        energy = 0.0
        for stage in seen.stages:
            activations = stage[image, patch].tolist()
            energy += sum(max(0.0, a) for a in activations) / len(activations) / unit
        expected = min(1.0, energy) if clipped else energy / (1.0 + energy)
        assert found[image, patch].item() == pytest.approx(expected, abs=1e-5)


def test_an_image_has_the_mean_of_its_patches_energies() -> None:
    """So that the loss on the image and the heatmap of patches speak of the same."""
    seen = features(2, (4, 6))
    head = ActivationEnergy(1.0, clipped=True)
    whole = sum(stage.clamp(min=0).mean(dim=(1, 2)) for stage in seen.stages)
    assert torch.allclose(head.energy(seen).mean(dim=1), whole, atol=1e-6)


@pytest.mark.parametrize("clipped", [True, False])
def test_more_energy_is_never_less_complexity(clipped: bool) -> None:
    rising = torch.linspace(0, 40, 50).view(50, 1, 1)
    complexity = ActivationEnergy(5.0, clipped=clipped)(NOTHING, Features((rising,), (rising,), (1, 1))).flatten()
    assert (complexity.diff() >= 0).all()
    assert complexity.min() >= 0
    assert complexity.max() <= 1
    assert clipped or (complexity.diff() > 0).all()


@pytest.mark.parametrize("clipped", [True, False])
def test_it_is_exported_as_it_is(tmp_path: Path, clipped: bool) -> None:
    torch.manual_seed(0)
    encoder = Encoder(dim=16, depth=1, heads=1, stem=(4, 4, 8))
    readout = Readout((0,), torch.zeros(16), torch.ones(16), torch.zeros(16), 0.0, "linear")
    model = ComplexityModel(encoder, ActivationEnergy(20.0, clipped=clipped), readout, Calibration()).eval()
    file = tmp_path / "model.onnx"
    export_onnx(model, PreprocessSpec(height=32, width=32), file)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    pixels[:2] = [[[[30]]], [[[128]]]]
    assert check_parity(model, file, pixels) <= 1e-4
    (entropy,) = onnxruntime.InferenceSession(file).run([contract.ENTROPY], {contract.INPUT: pixels})
    assert len(set(entropy.round(3).tolist())) == 5  # not all at one end, where any two would be alike


def test_the_entropy_head_gives_each_family_the_same_say() -> None:
    torch.manual_seed(0)
    head = EntropyHead(8)
    images = torch.rand(2, 3, 32, 48) * torch.tensor([1.0, 0.2]).view(2, 1, 1, 1)
    blocks = tuple(torch.randn(2, 6, 8) * torch.tensor([1.0, 1e-4]).view(2, 1, 1) + 1.0 for _ in range(3))
    stages = tuple(torch.randn(2, 6, 4) for _ in range(4))
    seen = Features(stages, blocks, (2, 3))
    computed = Computed(images)
    found, predicted = head(computed, seen), head.predict(seen.last)
    whole = (local_and_whole(computed.code_lengths, (2, 3))[1].mean(dim=1) / MOST_RATE).tolist()
    assert 0.05 < whole[1] < whole[0] < 1.0
    rates = patch_rates(computed.code_lengths, (2, 3))[:, [0, 2]].mean(dim=1)  # [2, 2], of windows around those
    around = (rates / torch.tensor(MOST_RATES)).clamp(max=1.0).mean(dim=1).tolist()
    assert 0.05 < around[1] < around[0] < 1.0
    seen_apart = (stage_rate(stages[1]) + stage_rate(stages[2])).tolist()
    bits = share_of_most_bits(computed.code_lengths).mean(dim=2).tolist()
    for image, patch in itertools.product(range(2), range(6)):
        p = predicted[image, patch].tolist()
        learned = sum(p[:36]) / 36 + sum(p[72:75]) / 3
        expected = (learned + bits[image][patch] + around[image] + whole[image] + seen_apart[image]) / 7
        assert found[image, patch].item() == pytest.approx(expected, abs=1e-6)
    clashing = Computed(images)
    clashing.coding_rates = torch.full((2, 14), 9.0)  # more than there is in any photograph
    most = found - (torch.tensor(around) + torch.tensor(whole))[:, None] / 7 + 2 / 7
    assert torch.allclose(head(clashing, seen), most, atol=1e-6)


def test_a_backbone_with_one_stage_has_its_rate_and_not_none() -> None:
    torch.manual_seed(0)
    head, computed = EntropyHead(8), Computed(torch.rand(2, 3, 32, 48))
    blocks = (torch.randn(2, 6, 8),)
    busy, flat = torch.randn(2, 6, 4), torch.zeros(2, 6, 4)
    found, least = (head(computed, Features((stage,), blocks, (2, 3))) for stage in (busy, flat))
    assert torch.allclose(found - least, stage_rate(busy)[:, None] / 6, atol=1e-6)
    assert stage_rate(busy).min() > 0.1


@pytest.mark.parametrize(("length", "width"), [(1, 4), (2, 8), (484, 48), (40, 3), (600, STAGE_CHANNELS + 9)])
def test_the_coding_rate_of_a_stage_against_numpy(length: int, width: int) -> None:
    stage = torch.randn(3, length, width, generator=torch.Generator().manual_seed(length)).relu()
    stage[1] = stage[1, 0] + 0.1 * stage[1]  # much alike
    for activations, found in zip(stage.double().numpy(), stage_rate(stage).tolist(), strict=True):
        some = activations[:, :STAGE_CHANNELS]
        vectors = (some - some.mean(axis=1, keepdims=True)) / np.sqrt(some.var(axis=1, keepdims=True) + 1e-5)
        covariance = np.atleast_2d(np.cov(vectors, rowvar=False, bias=True))
        _, nats = np.linalg.slogdet(np.eye(covariance.shape[0]) + covariance / STAGE_DISTORTION)
        assert found == pytest.approx(nats / covariance.shape[0] / np.log(1 + 1 / STAGE_DISTORTION), abs=1e-4)


def test_the_coding_rate_of_a_stage_is_0_where_patches_are_alike_and_1_where_channels_are_free_however_many() -> None:
    for width in (16, STAGE_CHANNELS, 3 * STAGE_CHANNELS):
        alike = torch.randn(2, 1, width).expand(2, 484, width)
        assert stage_rate(alike).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
        free = torch.randn(2, 20_000, width)
        # But for one of them: of numbers whose mean is 0 the others say what it is.
        assert all(1 - 1.2 / min(width, STAGE_CHANNELS) < rate <= 1.0 for rate in stage_rate(free).tolist())
        assert stage_rate(1000.0 * free).tolist() == pytest.approx(stage_rate(free).tolist(), abs=1e-4)
    few = torch.randn(2, 484, 4) @ torch.randn(4, 64)  # all channels follow four
    assert all(rate < 0.3 for rate in stage_rate(few).tolist())
