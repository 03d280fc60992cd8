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
# Variance of the blur of a token, in numbers of mean square 1. At .01 the label-free PCC is .001 lower, at .03 .002.
BLUR = 0.02
# A token is compared with every third one (not the same columns in each row: the shipped model's grid has 22).
SAMPLE = 3


class ProjectionHead(nn.Module):
    """Features of patches or images -> the space in which they are contrasted: [..., D] -> [..., out]."""

    def __init__(self, dim: int, hidden: int = 512, out: int = 128):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out))

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.layers(features)
        return projected


def token_entropy(tokens: Tensor) -> Tensor:
    """Entropy of a picture's patches as points among which one tells those apart that are far apart.

    Each token is taken to be blurred by a Gaussian (Parzen's estimate); the entropy is that of the mixture, up to a
    constant, over the most that it can be: 0 if all patches look the same to the encoder, 1 if no two do. How like the
    others each token is, is told from a sample of them.

    Args:
        tokens: [N, L, D] of a block; their scale does not matter.

    Returns: [N] in [0, 1].
    """
    length, width = tokens.shape[1:]
    points = F.layer_norm(tokens.float(), (width,)) / math.sqrt(BLUR * width)
    halves = (points * points).sum(dim=2) / 2  # [N, L]
    some = slice(None, None, SAMPLE if length > SAMPLE else 1)
    # exp(-|a - b|^2 / 2) by its parts, of which the two squares are at most 1 / 2 BLUR: there is nothing to overflow.
    like = torch.exp(points @ points[:, some].mT - halves[:, None, some]).sum(dim=2) * torch.exp(-halves)  # [N, L]
    itself = torch.zeros(length, device=tokens.device)
    itself[some] = 1.0
    others = ((like - itself) / (itself.sum() - itself).clamp(min=1)).clamp(min=0)  # their mean
    alike = (1 + (length - 1) * others) / length  # 1 / L to 1
    return (-alike.log().mean(dim=1) / math.log(max(length, 2))).clamp(min=0)


class EntropyHead(nn.Module):
    """What the encoder takes each patch's information to be; in its mean lies the label-free complexity of the patch.

    Such a mean says how busy patches are, and not how much there is in the picture to tell apart. That is computed, as
    three families more, which belong to no single patch: coding rates of the patches' code lengths around each patch
    and in the whole picture, and the entropy of what the encoder makes of them half-way (`token_entropy`).

    Code lengths and coding rates around a patch are predicted in training, too, but what is predicted agrees less with
    people than what is computed (label-free PCC on the dev half of SAVOIAS .635 and .670, .641 and .700), and so has no
    say. Entropies and junctions would take too long to compute. MODEL_CARD.md has what each of the six brings.
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
        apart = token_entropy(features.blocks[(len(features.blocks) - 1) // 2])  # [N]
        return (own + (around + whole + apart)[:, None]) / 6


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
