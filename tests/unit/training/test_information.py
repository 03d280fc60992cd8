"""The target of masked entropy modelling: entropies and code lengths in one range."""

import torch

from training.transforms import code_length, entropy
from training.transforms.information import MOST_BITS, TARGETS, patch_information


def test_it_is_the_entropies_and_the_scaled_code_lengths_by_name() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    found = patch_information(images, 16)
    assert found.shape == (2, 16, len(TARGETS)) == (2, 16, 72)
    assert torch.equal(found[:, :, :36], entropy.patch_entropies(images, 16))
    bits = code_length.code_lengths(images, 16)
    for number, name in enumerate(code_length.FEATURES):
        band = next(i for i, (low, high) in enumerate(code_length.BANDS) if f"{low}-{high}/" in name)
        assert torch.allclose(found[:, :, 36 + number], bits[:, :, number] / MOST_BITS[band])
    assert len(set(TARGETS)) == 72


def test_it_stays_in_its_range_and_rises_with_what_there_is_to_see() -> None:
    flat, noise = torch.full((1, 3, 64, 64), 0.5), torch.rand(1, 3, 64, 64).round()
    assert patch_information(flat, 16).max() < 0.02
    busy = patch_information(noise, 16)
    assert 0.0 <= busy.min() <= busy.max() <= 1.0
    assert busy[:, :, 36:].mean() > 0.5
