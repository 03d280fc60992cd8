"""The target of masked entropy modelling: four families of measures in one range."""

import torch

from training.transforms import code_length, coding_rate, entropy
from training.transforms.information import FAMILIES, MOST_BITS, MOST_RATES, TARGETS, patch_information
from training.transforms.junctions import junction_density


def test_it_is_its_families_by_name() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    found = patch_information(images, 16)
    assert found.shape == (2, 16, len(TARGETS)) == (2, 16, 77)
    entropies, bits, junctions, rates = found.split(FAMILIES, dim=2)
    assert torch.equal(entropies, entropy.patch_entropies(images, 16))
    unscaled = code_length.code_lengths(images, 16)
    for number, name in enumerate(code_length.FEATURES):
        band = next(i for i, (low, high) in enumerate(code_length.BANDS) if f"{low}-{high}/" in name)
        assert torch.allclose(bits[:, :, number], unscaled[:, :, number] / MOST_BITS[band])
    density = junction_density(images, 16)
    assert torch.equal(junctions[:, :, 0], density)
    # The patch in the second row and column, with its eight neighbours; and the whole view.
    neighbours = density.view(2, 4, 4)[:, :3, :3].mean(dim=(1, 2))
    assert torch.allclose(junctions[:, 5, 1], neighbours)
    assert torch.allclose(junctions[:, :, 2], density.mean(dim=1, keepdim=True).expand(-1, 16))
    local, _ = coding_rate.local_and_whole(unscaled, (4, 4))
    for number, most in enumerate(MOST_RATES):
        windows = rates.view(2, 4, 4, 2)[:, ::2, ::2, number].flatten(1)  # of a picture, every second one is looked at
        assert torch.allclose(windows, local[:, :, number] / most, atol=1e-5)
    assert len(set(TARGETS)) == 77


def test_it_stays_in_its_range_and_rises_with_what_there_is_to_see() -> None:
    flat, noise = torch.full((1, 3, 64, 64), 0.5), torch.rand(1, 3, 64, 64).round()
    assert patch_information(flat, 16).max() < 0.02
    busy = patch_information(noise, 16)
    assert 0.0 <= busy.min() <= busy.max() <= 1.0
    assert busy.split(FAMILIES, dim=2)[1].mean() > 0.5
    clashing = clashing_patches()
    rates = coding_rate.patch_rates(code_length.code_lengths(clashing, 16), (4, 4)) / torch.tensor(MOST_RATES)
    assert rates.amax(dim=(0, 1)).min() > 1.0
    assert patch_information(clashing, 16).max() == 1.0


def clashing_patches() -> torch.Tensor:
    """[1, 3, 64, 64] of which each patch is noise of other grains in each channel, some of them black: more to tell
    apart than photographs have."""
    draw = torch.Generator().manual_seed(0)
    patches = torch.full((4, 4, 3, 16, 16), 0.5)
    for grain in (1, 2, 4, 8):
        noise = torch.rand(4, 4, 3, 16 // grain, 16 // grain, generator=draw) - 0.5
        chosen = torch.randint(0, 2, (4, 4, 3, 1, 1), generator=draw)
        patches += noise.repeat_interleave(grain, dim=3).repeat_interleave(grain, dim=4) * chosen
    patches *= torch.randint(0, 2, (4, 4, 3, 1, 1), generator=draw)
    return patches.permute(2, 0, 3, 1, 4).reshape(1, 3, 64, 64).clamp(0.0, 1.0)
