"""Heads on the encoder's patch features; used in pretraining, those that give a label-free score also at inference."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.backbone import Features
from training.models.computed import Computed
from training.transforms.code_length import SHRINKS
from training.transforms.information import FAMILIES, MOST_RATES, share_of_most_bits

# Nats a vector and dimension that count as 1. Half of the dev half's pictures have more than 1.35, the most have 1.8;
# were 2 to count as 1, the label-free PCC would be .001 lower.
MOST_RATE = 1.6
# Distortion of `stage_rate`, in numbers of mean square 1.
STAGE_DISTORTION = 0.1
# Of a stage with more channels the first ones are taken: of so many the determinant is a float32, whatever they hold.
STAGE_CHANNELS = 64


class ProjectionHead(nn.Module):
    """Features of patches or images -> the space in which they are contrasted: [..., D] -> [..., out]."""

    def __init__(self, dim: int, hidden: int = 512, out: int = 128):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out))

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.layers(features)
        return projected


def stage_rate(stage: Tensor) -> Tensor:
    """Coding rate of what a stage sees in a picture's patches, over the most that it can be.

    See `training.transforms.coding_rate`, which is about what is computed of patches. This is about what was learned
    to tell them apart: 0 if all patches excite the stage alike, nearly 1 if all its channels go their own way.

    Args:
        stage: [N, L, C] activations averaged over each patch; how strong they are in all does not matter.

    Returns: [N] in [0, 1].
    """
    some = stage[:, :, :STAGE_CHANNELS].float()
    length, width = some.shape[1:]
    vectors = F.layer_norm(some, (width,))
    apart = vectors - vectors.mean(dim=1, keepdim=True)
    covariance = apart.mT @ apart / length  # [N, C, C], of a trace of at most C
    most = 1 + 1 / STAGE_DISTORTION
    # Between 1 and most^C: in its middle it is a float32 at either end. (The elimination of `coding_rate` needs no such
    # bound, but is written out row by row, and here are 64 of them.)
    matrix = (torch.eye(width, device=stage.device) + covariance / STAGE_DISTORTION) / math.sqrt(most)
    nats: Tensor = torch.linalg.det(matrix).clamp(min=torch.finfo(torch.float32).tiny).log()  # [N]
    return (nats / (width * math.log(most)) + 0.5).clamp(min=0, max=1)


class EntropyHead(nn.Module):
    """What the encoder takes each patch's information to be; in its mean lies the label-free complexity of the patch.

    Such a mean says how busy patches are, and not how much there is in the picture to tell apart. That is computed, as
    families more, which belong to no single patch: coding rates of the patches' code lengths around each patch and in
    the whole picture, and of what the encoder's stages between the first and the last see in them (`stage_rate`).

    Code lengths and coding rates around a patch are predicted in training, too, but what is predicted agrees less with
    people than what is computed (label-free PCC on the dev half of SAVOIAS .647 and .670, .669 and .700), and so has no
    say. Entropies and junctions would take too long to compute. MODEL_CARD.md has what each family brings.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, sum(FAMILIES)), nn.Sigmoid())

    def predict(self, features: Tensor) -> Tensor:
        """The measures in [0, 1]: [N, L, D] -> [N, L, targets]."""
        entropies: Tensor = self.layers(features)
        return entropies

    def forward(self, computed: Computed, features: Features) -> Tensor:
        """Label-free local complexity in [0, 1], [N, L]."""
        entropies, _, junctions, _ = torch.split(self.predict(features.last), list(FAMILIES), dim=2)
        bits = share_of_most_bits(computed.code_lengths)
        own = entropies.mean(dim=2) + bits.mean(dim=2) + junctions.mean(dim=2)  # [N, L]
        rates = computed.coding_rates
        most = torch.tensor(MOST_RATES, device=rates.device)
        around = (rates[:, : len(MOST_RATES)] / most).clamp(max=1.0).mean(dim=1)  # [N]
        whole = (rates[:, -len(SHRINKS) :].mean(dim=1) / MOST_RATE).clamp(max=1.0)  # [N]
        seen = [stage_rate(stage) for stage in features.stages[1:-1] or features.stages]  # [N] each
        return (own + (around + whole + sum(seen))[:, None]) / (5 + len(seen))


class ActivationEnergy(nn.Module):
    """How strongly each patch excites the encoder: label-free complexity with nothing to train.

    The energy of a patch is the mean of its activations over channels and positions, summed over the
    stages, as in CLIC (arXiv 2411.12792); an image's energy is the mean over its patches. Signed
    stages are cut at zero, so that the energy never is negative.

    Args:
        unit: the energy that counts as 1.
        clipped: whether the complexity is the energy up to 1, which is what CLIC's loss trains it to
            be. Where nothing bounds the energy, as in MoCo v2, everything might end at 1; it is then
            energy / (1 + energy), which keeps the order of the patches.
    """

    def __init__(self, unit: float, *, clipped: bool):
        super().__init__()
        self.unit = unit
        self.clipped = clipped

    def energy(self, features: Features) -> Tensor:
        """Energy of each patch, in units: float32 [N, L], at least 0."""
        stages = [F.relu(stage.float()).mean(dim=2) for stage in features.stages]
        return torch.stack(stages).sum(dim=0) / self.unit

    def forward(self, computed: Computed, features: Features) -> Tensor:  # noqa: ARG002  # as every label-free output
        """Label-free local complexity in [0, 1], [N, L]."""
        energy = self.energy(features)
        return energy.clamp(max=1.0) if self.clipped else energy / (1.0 + energy)
