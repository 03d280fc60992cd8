"""Images from folders and tar shards, decoded by the shared core exactly as in serving.

A tar shard is indexed once (name, offset, size of each member) and read at those offsets, so
nothing is unpacked and any image can be reached at random.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from clicv2.errors import ImageError
from clicv2.imaging import decode, to_model_input
from clicv2.sources import SHARD, SUFFIXES, ImageSource, members, walk
from clicv2.spec import PreprocessSpec

__all__ = ["ImageDataset", "ImageSource", "ResumableSampler", "find_images"]


def find_images(paths: Sequence[Path]) -> list[ImageSource]:
    """All images under folders, in tar shards, and in folders' tar shards, in a stable order.

    Raises FileNotFoundError when a path does not exist or nothing is found at all.
    """
    found: list[ImageSource] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such images: {path}")
        files = sorted(f for f in walk(path) if f.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.suffix.lower() == SHARD:
                found.extend(members(file))
            elif file.suffix.lower() in SUFFIXES:
                name = file.relative_to(path).as_posix() if path.is_dir() else file.name
                found.append(ImageSource(name, file, 0, file.stat().st_size))
    if not found:
        raise FileNotFoundError(f"no images ({', '.join(sorted(SUFFIXES))}, or .tar) in {[str(p) for p in paths]}")
    return found


class ImageDataset(Dataset[Tensor]):
    """Images as the model will see them: uint8 [H, W, 3] each."""

    def __init__(self, sources: Sequence[ImageSource], spec: PreprocessSpec):
        self.sources = sources
        self.spec = spec

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Tensor:
        """Raises ValueError that names the image if it cannot be decoded."""
        source = self.sources[index]
        try:
            picture = decode(source.read(), self.spec)
        except ImageError as error:
            raise ValueError(f"{source.name} in {source.file}: {error}") from error
        return torch.from_numpy(np.array(to_model_input(picture.image, self.spec)))


class ResumableSampler(Sampler[int]):
    """The order of a whole run, epoch after epoch, each drawn from (seed, epoch) alone.

    Args:
        count: of images; what does not fill a batch at an epoch's end is left out, other images each time.
        batch_size: images a step, over all processes.
        epochs: passes over the images.
        first_step: to continue from.
        seed: of the orders.
        part: images that one process works through at a time, dividing batch_size / ranks.
        rank, ranks: each part of a batch is dealt to the processes in turn, so that together they see
            the images that one process would.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        epochs: int,
        first_step: int = 0,
        seed: int = 0,
        part: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ):
        self._count, self._batch_size, self._epochs = count, batch_size, epochs
        self._first_step, self._seed = first_step, seed
        self._part = part or batch_size // ranks
        self._rank, self._ranks = rank, ranks

    def __iter__(self) -> Iterator[int]:
        steps = self._count // self._batch_size
        first_epoch, into = divmod(self._first_step, steps)
        for epoch in range(first_epoch, self._epochs):
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            order = torch.randperm(self._count, generator=generator)[: steps * self._batch_size]
            if epoch == first_epoch:
                order = order[into * self._batch_size :]
            yield from order.view(-1, self._ranks, self._part)[:, self._rank].flatten().tolist()

    def __len__(self) -> int:
        steps = self._count // self._batch_size * self._epochs - self._first_step
        return steps * self._batch_size // self._ranks
