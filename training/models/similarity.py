"""What a readout adds for the pictures that a picture resembles.

A weighted sum of Gaussian similarities to the rated pictures, between what the patches' features average to. A sum
over patches treats every feature alike wherever the picture lies; this can say that many edges mean more in a scene
than in an advertisement, without being told which is which.
"""

import torch
from torch import Tensor, nn


class Similarity(nn.Module):
    """A picture's average features -> what is added to its score before calibration.

    Far from all landmarks it is 0: of what no rated picture resembles, the linear readout has the last word.

    Args:
        directions, offset: [F, P], [P] the place of a picture is its features @ directions - offset.
        landmarks: [M, P] places of rated pictures; two pictures at a distance d have a similarity of exp(-d * d).
        weight: [M].
    """

    directions: Tensor
    offset: Tensor
    landmarks: Tensor
    weight: Tensor

    def __init__(self, directions: Tensor, offset: Tensor, landmarks: Tensor, weight: Tensor):
        super().__init__()
        for name, value in (
            ("directions", directions),
            ("offset", offset),
            ("landmarks", landmarks),
            ("weight", weight),
        ):
            self.register_buffer(name, value.to(torch.float32))

    def forward(self, pooled: Tensor) -> Tensor:
        """[N, F] -> [N]."""
        place = pooled @ self.directions - self.offset  # [N, P]
        # |a - b|^2 by its parts: the differences themselves would be [N, M, P].
        apart = (
            place.square().sum(dim=1, keepdim=True) + self.landmarks.square().sum(dim=1) - 2 * place @ self.landmarks.mT
        )  # [N, M]
        return torch.exp(-apart.clamp(min=0)) @ self.weight
