"""What is computed of pictures beside what is learned, each once: readout and label-free output ask for the same."""

from functools import cached_property

from torch import Tensor

from training.models.backbone import PATCH, grid_of
from training.transforms.code_length import code_lengths
from training.transforms.coding_rate import coding_rates


class Computed:
    """Classical measures of images [N, 3, H, W] in [0, 1].

    None is computed before it is asked for. (What is computed twice is in the exported graph once, but it takes the
    exporter twice as long to find that out.)
    """

    def __init__(self, images: Tensor):
        self.images = images

    @cached_property
    def code_lengths(self) -> Tensor:
        """Of each patch: [N, L, 36], see `training.transforms.code_length`."""
        return code_lengths(self.images, PATCH)

    @cached_property
    def coding_rates(self) -> Tensor:
        """Of each picture: [N, 14], see `training.transforms.coding_rate`."""
        return coding_rates(self.code_lengths, grid_of(self.images))
