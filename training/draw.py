"""The random numbers of one training step, the same however many processes share its batch."""

import torch
from torch import Tensor


class Draw:
    """Drawn on the CPU for all images of a batch, then cut to those of this process.

    So a step's randomness depends on its seed alone: a run that was killed, and one that is spread
    over more processes, take the same step.

    Args:
        seed: of the step.
        rank: of this process, which has the `rank`-th share of every batch.
        ranks: number of processes.
    """

    def __init__(self, seed: int, rank: int = 0, ranks: int = 1):
        self._generator = torch.Generator().manual_seed(seed)
        self._rank = rank
        self._ranks = ranks

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Uniform in [0, 1): [count, *shape], `count` images of this process."""
        return self._own(torch.rand(count * self._ranks, *shape, generator=self._generator))

    def integers(self, high: int, count: int, *shape: int) -> Tensor:
        """Uniform in 0 ... high - 1: int64 [count, *shape]."""
        return self._own(torch.randint(high, (count * self._ranks, *shape), generator=self._generator))

    def shared(self) -> float:
        """One number in [0, 1) for the whole batch."""
        return float(torch.rand((), generator=self._generator))

    def _own(self, drawn: Tensor) -> Tensor:
        count = len(drawn) // self._ranks
        return drawn[self._rank * count : (self._rank + 1) * count]
