"""Heads on the encoder's patch features; used in pretraining, the entropy head also at inference."""

from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Patch features -> the space in which patches are contrasted: [N, L, D] -> [N, L, out]."""

    def __init__(self, dim: int, hidden: int = 512, out: int = 128):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out))

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.layers(features)
        return projected


class EntropyHead(nn.Module):
    """Patch features -> the entropies of the patch in [0, 1]: [N, L, D] -> [N, L, targets]."""

    def __init__(self, dim: int, targets: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, targets), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        entropies: Tensor = self.layers(features)
        return entropies
