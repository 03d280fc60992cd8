"""ResNet (arXiv 1512.03385) from `transformers`, random weights, brought to the grid of patches.

Batch normalisation becomes group normalisation (arXiv 1803.08494): a step must not depend on how its
batch is shared out over processes and parts, and the statistics of a batch would let the contrast
be solved without looking (MoCo shuffles batches against that, arXiv 1911.05722).
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from training.models.backbone import PADDING, Backbone, Features, grid_of, to_patches
from training.models.lateral import Lateral

# Groups of a normalisation, as in its paper; fewer where channels are, so that each has two or more.
GROUPS = 32


class ResNet(Backbone):
    """RGB in [0, 1] -> features of each patch of 16 x 16 pixels.

    A removed patch is hidden in the pixels alone. There is no learnt token for it: already the first
    convolution's 7 x 7 windows overlap, so that no cell of any grid belongs to one patch.

    Args:
        depths: residual layers in each of the four stages (strides 4, 8, 16, 32).
        widths: channels after each stage.
        stem: channels of the first convolution (stride 2).
        bottleneck: layers of 1 x 1, 3 x 3 and 1 x 1 convolutions; else of two 3 x 3.
    """

    def __init__(self, depths: Sequence[int], widths: Sequence[int], *, stem: int = 64, bottleneck: bool):
        super().__init__(widths[-1], len(depths))
        config = ResNetConfig(
            depths=list(depths),
            hidden_sizes=list(widths),
            embedding_size=stem,
            layer_type="bottleneck" if bottleneck else "basic",
        )
        model = ResNetModel(config)
        self.stem: nn.Module = model.embedder.embedder
        self.pool: nn.Module = model.embedder.pooler
        self.levels: nn.ModuleList = model.encoder.stages
        self.lateral = Lateral(widths[-2], widths[-1])
        _normalise_by_group(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
                module.padding_mode = PADDING

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """See `Backbone.forward`."""
        grid = grid_of(images)
        x = self.stem(self.normalise(images, mask))  # [N, C, H / 2, W / 2]
        stages = [to_patches(x, 2, grid)]
        x = self.pool(x)
        stride = 4
        for level in self.levels:
            x = level(x)  # [N, C, H / stride, W / stride]
            stages.append(to_patches(x, stride, grid))
            stride *= 2
        blocks = stages[1:]
        blocks[-1] = self.lateral(blocks[-2], blocks[-1])
        return Features(tuple(stages), tuple(blocks), grid)


def _normalise_by_group(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            channels = child.num_features
            module.set_submodule(name, nn.GroupNorm(math.gcd(GROUPS, channels // 2), channels))
        else:
            _normalise_by_group(child)
