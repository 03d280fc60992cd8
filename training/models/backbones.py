"""Backbones by name, all with random weights; `transformers` is imported only when one of its own is built.

| name          | parameters | width of the last block | blocks |
|---------------|------------|-------------------------|--------|
| pyramid_tiny  |    550,944 |                      96 |      4 |
| pyramid_small |  3,076,800 |                     192 |      6 |
| pyramid_base  | 22,918,272 |                     384 |     12 |
| vit_tiny      |  5,509,632 |                     192 |     12 |
| vit_small     | 21,636,096 |                     384 |     12 |
| vit_base      | 85,739,520 |                     768 |     12 |
| swin_tiny     | 27,822,858 |                     768 |     12 |
| swin_small    | 49,148,826 |                     768 |     24 |
| swin_base     | 87,289,720 |                    1024 |     24 |
| resnet18      | 11,309,120 |                     512 |      4 |
| resnet50      | 25,611,328 |                    2048 |      4 |
| resnet101     | 44,603,456 |                    2048 |      4 |

The pyramid is `training.models.encoder.Encoder`, small with its defaults. The others have the
published sizes without their classifiers, but for what their modules say: ViT knows positions
another way, Swin has larger windows, Swin and ResNet have a lateral connection more. A ResNet's
blocks are its four stages.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, get_args

from training.models.backbone import Backbone
from training.models.encoder import Encoder

BackboneName = Literal[
    "pyramid_tiny",
    "pyramid_small",
    "pyramid_base",
    "vit_tiny",
    "vit_small",
    "vit_base",
    "swin_tiny",
    "swin_small",
    "swin_base",
    "resnet18",
    "resnet50",
    "resnet101",
]
NAMES: tuple[str, ...] = get_args(BackboneName)


def build_backbone(name: BackboneName) -> Backbone:
    """Raises ValueError, which lists the names, when there is none of that name."""
    check_name(name)
    return BUILDERS[name]()


def check_name(name: str) -> None:
    """Raises ValueError, which lists the names, when there is no backbone of that name."""
    if name not in NAMES:
        raise ValueError(f"no backbone {name!r}: there are {', '.join(NAMES)}")


def _vit(dim: int, heads: int) -> Backbone:
    from training.models.vit import ViT  # seconds of imports that our own backbone does without

    return ViT(dim, 12, heads)


def _swin(dim: int, third: int, heads: int) -> Backbone:
    from training.models.swin import Swin  # see _vit

    return Swin(dim, (2, 2, third, 2), (heads, 2 * heads, 4 * heads, 8 * heads))


def _resnet(depths: tuple[int, int, int, int], *, bottleneck: bool) -> Backbone:
    from training.models.resnet import ResNet  # see _vit

    widths = (256, 512, 1024, 2048) if bottleneck else (64, 128, 256, 512)
    return ResNet(depths, widths, bottleneck=bottleneck)


BUILDERS: Mapping[BackboneName, Callable[[], Backbone]] = {
    "pyramid_tiny": partial(Encoder, dim=96, depth=4, heads=3, stem=(16, 32, 64)),
    "pyramid_small": Encoder,
    "pyramid_base": partial(Encoder, dim=384, depth=12, heads=6, stem=(64, 128, 256)),
    "vit_tiny": partial(_vit, 192, 3),
    "vit_small": partial(_vit, 384, 6),
    "vit_base": partial(_vit, 768, 12),
    "swin_tiny": partial(_swin, 96, 6, 3),
    "swin_small": partial(_swin, 96, 18, 3),
    "swin_base": partial(_swin, 128, 18, 4),
    "resnet18": partial(_resnet, (2, 2, 2, 2), bottleneck=False),
    "resnet50": partial(_resnet, (3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(_resnet, (3, 4, 23, 3), bottleneck=True),
}
