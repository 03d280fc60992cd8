"""The encoder: features at any size, and nothing leaks out of masked patches."""

import itertools

import pytest
import torch
from torch import nn

from training.models.backbone import PATCH
from training.models.encoder import Encoder, pooled
from training.recipe import EncoderConfig


@pytest.fixture(scope="module", params=[1, 2, 3])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(dim=32, depth=2, heads=2, stem=(4, 8, 8), reduction=request.param).eval()
    torch.nn.init.normal_(encoder.mask_token)
    return encoder


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 80), (64, 64)])
def test_shapes_at_any_size(encoder: Encoder, height: int, width: int) -> None:
    features = encoder(torch.rand(2, 3, height, width))
    length = (height // PATCH) * (width // PATCH)
    assert features.grid == (height // PATCH, width // PATCH)
    assert features.pyramid.shape == (2, length, 4 + 8 + 8 + 32)
    assert [block.shape for block in features.blocks] == [(2, length, 32)] * 2
    assert features.last is features.blocks[-1]


def test_a_recipe_says_how_wide_its_blocks_are_inside() -> None:
    built = EncoderConfig(dim=32, depth=2, heads=2, stem=(4, 8, 8), expansion=3).build()
    hidden = [[part.out_features for part in block.mlp if isinstance(part, nn.Linear)] for block in built.blocks]
    assert hidden == [[96, 32]] * 2


def test_what_a_masked_patch_shows_changes_nothing(encoder: Encoder) -> None:
    images = torch.rand(1, 3, 64, 64)
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 5] = True
    changed = images.clone()
    changed[..., 16:32, 16:32] = torch.rand(1, 3, 16, 16)
    assert torch.equal(encoder(images, mask).last, encoder(changed, mask).last)
    assert not torch.equal(encoder(images).last, encoder(changed).last)


def test_the_border_of_the_image_leaves_no_trace(encoder: Encoder) -> None:
    """A flat picture looks the same to every patch: nothing tells how far away the border is."""
    features = encoder(torch.full((1, 3, 80, 80), 0.3))
    for layer in (features.pyramid, *features.blocks):
        assert (layer - layer[:, :1]).abs().max() < 1e-5


def test_the_stages_are_convolutions_of_the_picture_as_it_goes_on(encoder: Encoder) -> None:
    """Against a picture that does go on: what lies above and to the left of it is as its border."""
    image = torch.rand(1, 3, 48, 64)
    larger = nn.functional.pad(image, (32, 0, 32, 0), mode="replicate")
    inner = encoder(larger).pyramid.view(1, 5, 6, -1)[:, 2:, 2:].flatten(1, 2)
    assert torch.allclose(encoder(image).pyramid, inner, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("grid", [(1, 1), (2, 4), (3, 5), (7, 6)])
def test_what_is_attended_to_are_means_of_patches(grid: tuple[int, int], side: int) -> None:
    rows, columns = grid
    tokens = torch.randn(2, rows * columns, 3, generator=torch.Generator().manual_seed(0))
    found = pooled(tokens, grid, side).view(2, -(-rows // side), -(-columns // side), 3)
    plane = tokens.view(2, rows, columns, 3)
    for row, column in itertools.product(range(found.shape[1]), range(found.shape[2])):
        inside = [
            plane[:, min(side * row + i, rows - 1), min(side * column + j, columns - 1)]
            for i, j in itertools.product(range(side), repeat=2)
        ]
        assert torch.allclose(found[:, row, column], torch.stack(inside).mean(dim=0), atol=1e-6)


def test_a_block_attends_to_means() -> None:
    """Of patches that are alike, the means are the patches: only where they differ does it see another picture."""
    torch.manual_seed(0)
    config = EncoderConfig(dim=32, depth=1, heads=2, stem=(4, 8, 8))
    reduced, whole = (config.model_copy(update={"reduction": side}).build().blocks[0] for side in (2, 1))
    nn.init.zeros_(reduced.position.weight)  # it would tell patches apart
    for each in (reduced.query, reduced.key_value):
        nn.init.normal_(each.weight)  # so that attention is to some more than to others
    whole.load_state_dict(reduced.state_dict())
    alike = torch.randn(2, 3, 1, 2, 1, 32).expand(2, 3, 2, 2, 2, 32).reshape(2, 24, 32)  # 2 x 2 patches each
    different = torch.randn(2, 24, 32)
    assert torch.allclose(reduced(alike, (6, 4)), whole(alike, (6, 4)), atol=1e-5)
    assert not torch.allclose(reduced(different, (6, 4)), whole(different, (6, 4)), atol=1e-2)


def test_an_empty_mask_is_no_mask(encoder: Encoder) -> None:
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(encoder(images, torch.zeros(2, 4, dtype=torch.bool)).last, encoder(images).last)


def test_a_masked_token_hears_from_the_visible_ones(encoder: Encoder) -> None:
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 0] = True
    last = encoder(torch.rand(2, 3, 64, 64), mask).last
    assert not torch.allclose(last[0, 0], last[1, 0], atol=1e-4)


def test_patches_keep_their_places(encoder: Encoder) -> None:
    """The pyramid of a patch is about its own pixels: changing others far away leaves it."""
    images = torch.rand(1, 3, 64, 64)
    changed = images.clone()
    changed[..., 48:, 48:] = 0.0
    same = (encoder(images).pyramid == encoder(changed).pyramid).all(dim=2)[0].reshape(4, 4)
    assert same[0].all()
    assert same[:, 0].all()
    assert not same[3, 3]


def test_batches_do_not_mix(encoder: Encoder) -> None:
    images = torch.rand(3, 3, 32, 48)
    together = encoder(images).last
    alone = torch.cat([encoder(image[None]).last for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        Encoder(dim=32, heads=3)
