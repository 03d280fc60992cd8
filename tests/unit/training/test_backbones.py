"""Backbones by name: what each promises of its features, and that each trains, fits and exports."""

import importlib.util
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import torch

from training.checkpoint import Checkpoint
from training.data.ratings import load_ratings
from training.draw import Draw
from training.export import check_parity, export_onnx
from training.fit import fit_readout
from training.methods.clicv2 import CLICv2, CLICv2Settings
from training.models import backbones
from training.models.backbone import PATCH, Backbone, to_patches
from training.models.backbones import BUILDERS, BackboneName, build_backbone
from training.models.readout import PYRAMID, ComplexityModel
from training.models.resnet import ResNet
from training.models.swin import Swin
from training.models.vit import ViT
from training.pretrain import pretrain
from training.recipe import EncoderConfig, Recipe

# One tiny model of each kind, by a published name of that kind; Swin's windows do not divide its maps.
TINY: dict[BackboneName, Callable[[], Backbone]] = {
    "vit_tiny": lambda: ViT(32, 2, 2),
    "swin_tiny": lambda: Swin(16, (1, 1, 2, 1), (1, 2, 2, 4), window=3),
    "resnet18": lambda: ResNet((1, 1, 1, 1), (64, 64, 64, 64), bottleneck=False),
    "resnet50": lambda: ResNet((1, 1, 1, 1), (64, 64, 64, 64), stem=32, bottleneck=True),
}
# Of all their stages.
PYRAMID_WIDTHS = {"vit_tiny": 32, "swin_tiny": 256, "resnet18": 320, "resnet50": 288}


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return TINY[request.param]().eval()


def one_patch(grid: tuple[int, int], row: int, column: int) -> torch.Tensor:
    mask = torch.zeros(1, *grid, dtype=torch.bool)
    mask[0, row, column] = True
    return mask.flatten(1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 96), (48, 80), (64, 64)])
def test_shapes_at_any_size(tiny: Backbone, height: int, width: int) -> None:
    features = tiny(torch.rand(2, 3, height, width))
    length = (height // PATCH) * (width // PATCH)
    assert features.grid == (height // PATCH, width // PATCH)
    assert features.last.shape == (2, length, tiny.dim)
    assert len(features.blocks) == tiny.depth
    assert {layer.shape[:2] for layer in (*features.stages, *features.blocks)} == {(2, length)}
    assert features.last.mean(dim=2).abs().max() < 1e-5  # normalised
    assert torch.allclose(features.last.var(dim=2, correction=0), torch.ones(2, length), atol=0.01)


def test_what_a_masked_patch_shows_changes_nothing(tiny: Backbone) -> None:
    images = torch.rand(1, 3, 80, 96)
    mask = one_patch((5, 6), 2, 3)
    changed = images.clone()
    changed[..., 32:48, 48:64] = torch.rand(1, 3, 16, 16)
    seen, hidden = (tiny(x) for x in (images, changed)), [tiny(x, mask) for x in (images, changed)]
    assert not torch.equal(*(f.last for f in seen))
    for layer in ("stages", "blocks"):
        for a, b in zip(*(getattr(f, layer) for f in hidden), strict=True):
            assert torch.equal(a, b)


def test_an_empty_mask_is_no_mask(tiny: Backbone) -> None:
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(tiny(images, torch.zeros(2, 4, dtype=torch.bool)).last, tiny(images).last)


def test_masked_patches_of_different_pictures_differ(tiny: Backbone) -> None:
    """They hear from the visible patches around them."""
    last = tiny(torch.rand(2, 3, 64, 64), one_patch((4, 4), 1, 1).expand(2, -1)).last
    assert (last[0, 5] - last[1, 5]).abs().max() > 1e-3


def test_every_patch_has_something_of_its_own_to_say(tiny: Backbone) -> None:
    """What is interpolated between the four cells of 32 pixels alone would be of rank four."""
    torch.manual_seed(1)
    last = tiny(torch.rand(1, 3, 64, 64)).last[0]  # [16, D]
    assert torch.linalg.matrix_rank(last, rtol=1e-4) > 12


@pytest.mark.parametrize("side", [80, 128])
def test_the_border_of_the_image_leaves_no_trace(tiny: Backbone, side: int) -> None:
    """A flat picture looks the same to every patch: nothing tells how far away the border is."""
    features = tiny(torch.full((1, 3, side, side), 0.3))
    for layer in (*features.stages, *features.blocks):
        assert (layer - layer[:, :1]).abs().max() < 1e-4


@pytest.mark.parametrize("training", [False, True])
def test_batches_do_not_mix(tiny: Backbone, training: bool) -> None:
    """Not in training either: a step must not depend on how its batch is shared out."""
    images = torch.rand(3, 3, 64, 80)
    tiny.train(training)
    together = tiny(images).last
    alone = torch.cat([tiny(image[None]).last for image in images])
    tiny.eval()
    assert torch.allclose(together, alone, atol=1e-4)


def test_small_images_leave_the_backbone_as_it_was(tiny: Backbone) -> None:
    images = torch.rand(1, 3, 128, 128)
    before = tiny(images).last
    tiny(images[..., :16, :16])
    assert torch.equal(tiny(images).last, before)


def test_a_step_reaches_every_weight_and_draws_nothing_of_its_own(tiny: Backbone) -> None:
    method = CLICv2(tiny, CLICv2Settings(view_size=64, shift_low=8, shift_high=12))
    method.module.train()
    canvas = torch.randint(0, 256, (4, 96, 96, 3), dtype=torch.uint8)
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        losses.append(method.step(canvas, Draw(0))["loss"])
    losses[0].backward()
    tiny.eval()
    assert torch.equal(*losses)
    for name, parameter in method.module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    method.module.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", ["vit_tiny", "swin_tiny", "resnet18"])
def test_each_kind_trains_fits_and_exports(
    name: BackboneName, images: Path, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "BUILDERS", {**BUILDERS, name: TINY[name]})
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "images": [str(images)],
            "canvas": 96,
            "workers": 0,
            "input_size": 96,
            "encoder": name,
            "clicv2": {"view_size": 64, "shift_low": 8, "shift_high": 12},
            "optim": {"epochs": 1, "batch_size": 4},
        }
    )
    checkpoint = Checkpoint.load(pretrain(recipe, tmp_path))
    assert (checkpoint.step, checkpoint.recipe) == (3, recipe)
    method = checkpoint.method()
    rated = load_ratings(ratings, [images])
    layers = (PYRAMID, method.encoder.depth - 1)
    fitted = fit_readout(method, rated, recipe.input_spec, layers, (0.0, 100.0))
    assert len(fitted.readout.mean) == PYRAMID_WIDTHS[name] + method.encoder.dim
    model = ComplexityModel(method.encoder, method.label_free, fitted.readout, fitted.calibration)
    export_onnx(model, recipe.input_spec, tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8)
    assert check_parity(model, tmp_path / "model.onnx", pixels) <= 1e-4  # at batch sizes 1, 3 and 5


# Weights of the published models with their classifiers of 1000 classes, as torchvision and timm give them.
PUBLISHED = {
    "vit_tiny": 5_717_416,
    "vit_small": 22_050_664,
    "vit_base": 86_567_656,
    "swin_tiny": 28_288_354,
    "swin_small": 49_606_258,
    "swin_base": 87_768_224,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
}


def documented() -> dict[str, tuple[int, int, int]]:
    """Parameters, width and blocks of each backbone, as the table in the docstring has them."""
    rows = [line.strip("| ").split("|") for line in (backbones.__doc__ or "").splitlines() if line.startswith("|")]
    return {name.strip(): (int(count.replace(",", "")), int(dim), int(depth)) for name, count, dim, depth in rows[2:]}


def test_every_backbone_is_documented() -> None:
    assert list(documented()) == list(BUILDERS) == list(get_args(BackboneName))


@pytest.mark.parametrize("name", BUILDERS)
def test_sizes_are_those_of_the_table(name: BackboneName) -> None:
    with torch.device("meta"):  # shapes without numbers
        backbone = build_backbone(name)
    count = sum(p.numel() for p in backbone.parameters())
    assert (count, backbone.dim, backbone.depth) == documented()[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones_but_for_what_we_changed(name: str) -> None:
    count, dim, depth = documented()[name]
    classifier = 1000 * (dim + 1)
    if name.startswith("vit"):
        positions = dim * 197  # 14 x 14 and the class token's
        ours = 10 * dim * depth + dim  # the convolutions, the mask token
        changed = ours - positions - dim  # the class token itself
    else:
        lateral = (dim // 2 + 1) * dim + 2 * dim
        changed = lateral
        if name.startswith("swin"):  # its last norm is the lateral connection's; larger windows; the mask token
            first, heads = dim // 8, dim // 256
            blocks = (2, 2, depth - 6, 2)
            tables = sum(n * heads * 2**stage for stage, n in enumerate(blocks)) * (15**2 - 13**2)
            changed += tables + first - 2 * dim
    assert count == PUBLISHED[name] - classifier + changed


@pytest.mark.parametrize("name", ["pyramid_tiny", "vit_tiny", "swin_tiny", "resnet18"])
def test_a_forward_of_the_smallest_of_each_kind(name: BackboneName, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    backbone = build_backbone(name).eval()
    with torch.inference_mode():
        last = backbone(torch.rand(1, 3, 128, 128)).last
    assert last.shape == (1, 64, backbone.dim)
    assert last.isfinite().all()


def recipe_with(**encoder: object) -> Recipe:
    return Recipe.model_validate({"name": "x", "optim": {"epochs": 1}, **encoder})


def test_a_recipe_names_its_backbone_or_gives_the_numbers_of_ours() -> None:
    named = recipe_with(encoder="pyramid_small")
    assert named.encoder == "pyramid_small"
    numbers = recipe_with(encoder={"dim": 192, "depth": 6, "heads": 3, "stem": [32, 64, 128]})
    assert numbers.encoder == recipe_with().encoder == EncoderConfig()
    for recipe in (named, numbers):
        assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe  # as a checkpoint keeps it
    shapes = [{k: v.shape for k, v in recipe.build_encoder().state_dict().items()} for recipe in (named, numbers)]
    assert shapes[0] == shapes[1]


def test_a_wrong_backbone_is_told_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"1 validation error(.|\n)*no backbone 'vit_huge': there are pyramid_tiny,"):
        recipe_with(encoder="vit_huge")
    with pytest.raises(ValueError, match=r"no backbone 'vit': .*resnet101"):
        build_backbone("vit")
    with pytest.raises(ValueError, match=r"1 validation error(.|\n)*encoder.dimm"):
        recipe_with(encoder={"dimm": 3})


def test_heads_must_divide_the_widths() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        ViT(32, 1, 3)
    with pytest.raises(ValueError, match="do not divide"):
        Swin(8, (1, 1), (1, 3))


def test_our_own_backbone_does_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes seconds, which scoring with our own model must not cost."""
    monkeypatch.setitem(sys.modules, "transformers", None)  # to import it is an error now
    for kind in ("vit", "swin", "resnet"):
        monkeypatch.delitem(sys.modules, f"training.models.{kind}", raising=False)
    fresh = imported_again("training.models.backbones")
    imported_again("training.recipe")
    assert fresh.build_backbone("pyramid_tiny").dim == 96
    for name in ("vit_tiny", "swin_tiny", "resnet18"):
        with pytest.raises(ModuleNotFoundError, match="transformers"):
            fresh.build_backbone(name)


def imported_again(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_activations_come_to_the_grid_from_any_stride() -> None:
    grid = (2, 3)
    patches = torch.rand(1, 4, *grid)
    flat = patches.flatten(2).transpose(1, 2)
    assert torch.equal(to_patches(patches, 16, grid), flat)
    finer = patches.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    assert torch.allclose(to_patches(finer, 4, grid), flat)
    coarser = torch.tensor([[[[0.0, 4.0]]]])  # over columns 0 and 1, 2 and 3, of which the last was added
    assert to_patches(coarser, 32, grid)[0, :, 0].tolist() == [0.0, 1.0, 3.0] * 2
