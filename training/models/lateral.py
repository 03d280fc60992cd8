"""The lateral connection of a feature pyramid network (arXiv 1612.03144), for backbones that end at a stride of 32.

There four patches share one cell; alone, it could not tell them apart, though each has entropies of
its own to be asked for and a cell of the heatmap to answer for.
"""

from torch import Tensor, nn


class Lateral(nn.Module):
    """The last stage's activations + a linear map of the last but one's, at the patch; normalised.

    Args:
        fine: channels at a stride of 16.
        coarse: channels D at a stride of 32.
    """

    def __init__(self, fine: int, coarse: int):
        super().__init__()
        self.project = nn.Linear(fine, coarse)
        self.norm = nn.LayerNorm(coarse)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """[N, L, F] and [N, L, D], both on the grid of patches -> [N, L, D]."""
        joined: Tensor = self.norm(coarse + self.project(fine))
        return joined
