"""How densely regions of colour meet in each patch: a label-free measure of how many things there are.

The picture is shrunk, smoothed by a median and posterised, which leaves regions. Where three or four
of them meet, there is a junction; by Euler's formula a plane cut into regions has about twice as
many junctions as regions, so that junctions count regions, but locally and without segmenting
anything. People count regions too: alone, the mean over a picture agrees with them better than all
entropies or all code lengths do (label-free PCC on the dev half of SAVOIAS .664, .624 and .639).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Texture is gone at a quarter of the resolution, things are not.
SHRINK = 4
MEDIAN = 3
# Of each of red, green and blue.
LEVELS = 8
# Junctions of a patch of 4 x 4 shrunk pixels that count as 1, on a logarithmic scale; few patches have more.
MANY = 10.0


def junction_density(images: Tensor, patch: int) -> Tensor:
    """Junctions of each patch on a logarithmic scale from none (0) to `MANY` (1): [N, L].

    Args:
        images: RGB [N, 3, H, W] in [0, 1].
        patch: side of a patch in pixels, a multiple of 4 that divides H and W.
    """
    labels = _posterise(F.avg_pool2d(images, SHRINK))  # [N, h, w]
    around = F.pad(labels, (0, 1, 0, 1), mode="replicate")
    quads = torch.stack([around[:, y:, x:][:, : labels.shape[1], : labels.shape[2]] for y in (0, 1) for x in (0, 1)])
    different = (quads.sort(dim=0).values.diff(dim=0) != 0).sum(dim=0) + 1  # [N, h, w]
    # Four regions in a point are as many as two points in which three meet.
    junctions = (different - 2).clamp(min=0).float() / 2.0
    side = patch // SHRINK
    count = F.avg_pool2d(junctions.unsqueeze(1), side).flatten(1) * side**2  # [N, L]
    return (torch.log1p(count) / math.log1p(MANY)).clamp(max=1.0)


def _posterise(images: Tensor) -> Tensor:
    """A number for the colour of each pixel, after a median of 3 x 3: [N, 3, h, w] -> float [N, h, w]."""
    n, channels, height, width = images.shape
    reach = MEDIAN // 2
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    windows = F.unfold(padded.flatten(0, 1).unsqueeze(1), MEDIAN)  # [3 N, 9, h w]
    smooth = windows.median(dim=1).values.view(n, channels, height, width)
    levels = (smooth * LEVELS).floor().clamp(0, LEVELS - 1)
    red, green, blue = levels.unbind(1)
    return (red * LEVELS + green) * LEVELS + blue
