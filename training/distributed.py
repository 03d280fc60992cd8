"""Data parallelism under torchrun: what a step does together with the other processes.

Every function does nothing in a single process. Gradients are averaged after the backward pass
rather than by DistributedDataParallel, whose hooks hang on one `forward`, while a method calls its
modules several times; at a few million weights the overlap that it would gain is not noticed.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class World:
    """Where this process stands: `rank` of `size`, computing on `device`."""

    rank: int
    size: int
    device: torch.device


@contextmanager
def join() -> Iterator[World]:
    """Join the processes that torchrun started (it sets RANK, WORLD_SIZE and LOCAL_RANK), if it did."""
    cuda = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ:
        yield World(0, 1, torch.device("cuda" if cuda else "cpu"))
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process speaks for all, also before it joins them and after it left."""
    return os.environ.get("RANK", "0") == "0"


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(own: Tensor) -> Tensor:
    """The tensors of all processes, joined along the first axis in the order of ranks; gradients flow back."""
    if size() == 1:
        return own
    return torch.cat(differentiable.all_gather(own.contiguous()))  # type: ignore[no-untyped-call]


def even_share(count: Tensor) -> Tensor:
    """The mean of a count over the processes.

    A sum over own items divided by this, averaged over the processes, is the mean over the items of
    the whole batch, however unevenly they are spread.
    """
    if size() == 1:
        return count
    total = count.detach().clone().float()
    dist.all_reduce(total)
    return total / size()


def average(measures: Mapping[str, Tensor]) -> dict[str, float]:
    """Measures by name, averaged over the processes."""
    values = torch.stack([value.detach().float() for value in measures.values()])
    if size() > 1:
        dist.all_reduce(values)
        values /= size()
    return dict(zip(measures, values.tolist(), strict=True))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in one exchange."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    means = torch.split(flat / size(), [g.numel() for g in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
