"""Swin's windows against the library's own layout where that works, and against a slow oracle where it does not."""

import itertools

import pytest
import torch
from transformers import SwinConfig, SwinModel
from transformers.models.swin.modeling_swin import SwinAttention

from training.models.backbone import to_patches
from training.models.swin import Swin, _attend, _merge


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 192)])
def test_windows_that_divide_the_maps_are_laid_out_as_the_library_does(height: int, width: int) -> None:
    torch.manual_seed(0)
    ours = Swin(8, (2, 2, 2, 2), (1, 1, 2, 2), window=2).eval()
    for parameter in ours.parameters():  # the tables of relative positions begin as zeros, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    config = SwinConfig(embed_dim=8, depths=[2, 2, 2, 2], num_heads=[1, 1, 2, 2], window_size=2, drop_path_rate=0.0)
    library = SwinModel(config, add_pooling_layer=False).eval()
    library.embeddings.patch_embeddings.projection = ours.embed
    library.embeddings.norm = ours.embed_norm
    library.encoder.layers = ours.levels
    images = torch.rand(2, 3, height, width)
    stages = ours(images).stages
    expected = library(ours.normalise(images, None), output_hidden_states=True).reshaped_hidden_states
    # The library's maps of the stages between are those after merging.
    grid = (height // 16, width // 16)
    assert torch.allclose(stages[0], to_patches(expected[0], 4, grid), atol=1e-5)
    assert torch.allclose(stages[4], to_patches(expected[4], 32, grid), atol=1e-4)


@pytest.mark.parametrize(("side", "shift"), [(3, 0), (3, 1), (4, 2)])
@pytest.mark.parametrize(("h", "w"), [(1, 1), (2, 7), (4, 8), (6, 6), (7, 5)])
def test_a_cell_attends_to_its_window_and_to_nothing_else(h: int, w: int, side: int, shift: int) -> None:
    torch.manual_seed(0)
    config = SwinConfig(window_size=side)
    config._attn_implementation = "eager"
    attention = SwinAttention(config, 4, 2, side).eval()
    x = torch.randn(1, h, w, 4)
    cells = list(itertools.product(range(h), range(w)))
    changed = x.repeat(len(cells), 1, 1, 1)  # in each copy, another cell
    for copy, (row, column) in enumerate(cells):
        changed[copy, row, column] += 1.0
    with torch.no_grad():
        moved = (_attend(attention, changed, side, shift) - _attend(attention, x, side, shift)).abs().amax(3) > 1e-6

    def window(*cell: int) -> list[int]:
        return [(place - (shift if length > side else 0)) // side for place, length in zip(cell, (h, w), strict=True)]

    for copy, cell in enumerate(cells):
        assert {c for c in cells if moved[copy][c]} == {c for c in cells if window(*c) == window(*cell)}


def test_an_odd_map_merges_its_last_row_with_itself() -> None:
    merging = Swin(8, (1, 1), (1, 1)).levels[0].downsample
    x = torch.rand(2, 3, 5, 8)
    even = torch.cat([x, x[:, -1:]], dim=1)
    even = torch.cat([even, even[:, :, -1:]], dim=2)
    merged = _merge(merging, x)
    assert merged.shape == (2, 2, 3, 16)
    for row, column in itertools.product(range(2), range(3)):
        block = even[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        joined = torch.cat([block[:, 0, 0], block[:, 1, 0], block[:, 0, 1], block[:, 1, 1]], dim=1)
        expected = merging.reduction(merging.norm(joined))
        assert torch.allclose(merged[:, row, column], expected, atol=1e-6)
