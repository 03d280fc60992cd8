"""MoCo v2's step."""

from dataclasses import replace

import pytest
import torch

from training.draw import Draw
from training.methods.mocov2 import MoCoV2, MoCoV2Settings
from training.models.computed import Computed
from training.models.encoder import Encoder

SMALL = MoCoV2Settings(view_size=32, queue=16, momentum=0.9, hidden=32, dim=16)


def method(settings: MoCoV2Settings = SMALL) -> MoCoV2:
    torch.manual_seed(0)
    return MoCoV2(Encoder(dim=16, depth=1, heads=1, stem=(4, 4, 8)), settings)


def canvas(count: int = 6, seed: int = 1) -> torch.Tensor:
    """Pictures of their own colours and textures."""
    generator = torch.Generator().manual_seed(seed)
    tint = torch.randint(0, 200, (count, 1, 1, 3), generator=generator)
    noise = torch.randint(0, 56, (count, 8, 8, 3), generator=generator)
    return (tint + noise).repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)


def test_the_measures_and_what_is_trained() -> None:
    moco = method()
    measures = moco.step(canvas(), Draw(0))
    assert set(measures) == {"loss", "contrast_accuracy"}
    measures["loss"].backward()
    trained = {name.split(".")[0] for name, p in moco.module.named_parameters() if p.grad is not None}
    assert trained == {"encoder", "projection"}


def test_the_views_differ_between_images_and_from_each_other() -> None:
    moco = method()
    images = canvas(1).permute(0, 3, 1, 2).float().div(255).repeat(5, 1, 1, 1)
    draw = Draw(0)
    views = torch.cat([moco._view(images, draw) for _ in range(2)])
    assert views.shape == (10, 3, 32, 32)
    assert views.min() >= 0
    assert views.max() <= 1
    assert len(views.flatten(1).unique(dim=0)) == 10


def test_the_draw_determines_the_step() -> None:
    first, again, other = (method().step(canvas(), Draw(seed))["loss"] for seed in (3, 3, 4))
    assert first == again != other


def test_the_label_free_output_is_in_range_and_rises_with_the_activation() -> None:
    moco = method()
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        complexity = moco.label_free(Computed(images), moco.encoder(images))
        assert complexity.shape == (3, 4)
        assert ((complexity > 0) & (complexity < 1)).all()
        for stage in moco.encoder.stages:
            stage.weight *= 1.2
            stage.bias *= 1.2
        assert (moco.label_free(Computed(images), moco.encoder(images)) > complexity).all()


def test_training_lowers_the_loss() -> None:
    """Of views that are easy to tell, and by far: with others, weights of some seeds have learned nothing by then."""
    moco = method(replace(SMALL, area_low=0.6, jitter_share=0.0, grey_share=0.0, blur_share=0.0))
    batches = canvas(24).split(8)  # three: the queue holds the keys of the two before, and so of other pictures
    optimizer = torch.optim.AdamW([p for p in moco.module.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for seed in range(60):
        loss = moco.step(batches[seed % len(batches)], Draw(seed))["loss"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # the first two steps still fill the queue
    assert sum(losses[-10:]) < 0.9 * sum(losses[2:12])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_changes_a_view_is_the_whole_picture(share: float) -> None:
    """Full area but for the aspect ratio: every colour of the view is one of the picture's."""
    plain = MoCoV2Settings(
        view_size=32, area_low=1.0, jitter=0.0, hue=0.0, jitter_share=share, grey_share=0.0, blur_share=0.0
    )
    flat = torch.rand(4, 3, 1, 1).expand(4, 3, 64, 64)
    view = method(plain)._view(flat, Draw(0))
    assert torch.allclose(view, flat[:, :, :32, :32], atol=1e-5)
