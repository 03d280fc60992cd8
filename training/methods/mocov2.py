"""MoCo v2 (arXiv 2003.04297), the baseline: whole images are contrasted, and complexity is not mentioned.

Two augmented crops of each image; the query's is to be told from the queue's by its key. The crops
are those of the paper but for sizes: area 0.2 to 1, colours, grey, blur, left-right mirror. The
label-free output is the activation energy, which nothing trains: like the unsupervised activation
energy of networks trained for other ends, it says what comes for free.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from training.draw import Draw
from training.losses.complexity_aware import LARGEST_ENTROPY
from training.methods.momentum import MomentumContrast, MomentumSettings
from training.models.backbone import Backbone
from training.models.heads import ActivationEnergy
from training.transforms.augment import colour_jitter, random_blur, random_grey, random_mirror, random_resized_crop


@dataclass(frozen=True, slots=True)
class MoCoV2Settings(MomentumSettings):
    """Settings of the method, beside those of `MomentumSettings`.

    Attributes:
        area_low, area_high: share of the picture's area in a crop.
        jitter, hue, jitter_share: see `augment.colour_jitter`.
        grey_share: share of the crops that lose their colours.
        blur_low, blur_high, blur_share: see `augment.random_blur`; in pixels of the view.
    """

    area_low: float = 0.2
    area_high: float = 1.0
    jitter: float = 0.4
    hue: float = 0.1
    jitter_share: float = 0.8
    grey_share: float = 0.2
    blur_low: float = 0.1
    blur_high: float = 2.0
    blur_share: float = 0.5


class MoCoV2:
    """The encoder and its key encoder with their queue, and the training step."""

    def __init__(self, encoder: Backbone, settings: MoCoV2Settings):
        self.encoder = encoder
        self.momentum = MomentumContrast(encoder, settings)
        # The unit of CLIC, so that both outputs read alike.
        self.label_free: nn.Module = ActivationEnergy(LARGEST_ENTROPY, clipped=False)
        self.module: nn.Module = self.momentum
        self.settings = settings

    def step(self, canvas: Tensor, draw: Draw) -> dict[str, Tensor]:
        images = canvas.permute(0, 3, 1, 2).float() / 255.0
        query, key = (self._view(images, draw) for _ in range(2))
        contrast = self.momentum.contrast(self.encoder(query), key)
        return {"loss": contrast.loss, "contrast_accuracy": contrast.accuracy}

    def _view(self, images: Tensor, draw: Draw) -> Tensor:
        """An augmented crop of each image: [N, 3, H, W] -> [N, 3, view_size, view_size]."""
        s = self.settings
        view = random_resized_crop(images, s.view_size, s.area_low, s.area_high, draw)
        view = colour_jitter(view, s.jitter, s.hue, s.jitter_share, draw)
        view = random_grey(view, s.grey_share, draw)
        view = random_blur(view, s.blur_low, s.blur_high, s.blur_share, draw)
        return random_mirror(view, draw)
