"""Overlays of many pictures in one folder, under names that cannot collide nor lead out of it."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from clicv2 import contract
from clicv2.contract import Float32
from clicv2.heatmap import DEFAULT_MAX_SIDE, overlay, to_png
from service.decoding import Known
from service.files.errors import Unwritable

SIDE = DEFAULT_MAX_SIDE
_OTHERS = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Heatmaps:
    """A folder of overlays, 256 folders within it.

    Attributes:
        folder: it is there.
    """

    folder: Path

    @classmethod
    def into(cls, folder: Path) -> Self:
        """Make the folder, so that it is known when it is met among the pictures. Raises Unwritable."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unwritable(folder, error) from error
        return cls(folder)

    def place(self, path: str) -> Path:
        """Where the overlay of the picture at `path`, a text, belongs: by its name, and by a digest of all of it."""
        digest = hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
        return self.folder / digest[:2] / f"{slug(path)}-{digest}.png"

    def draw(self, path: str, heatmap: Float32, picture: Known) -> Path:
        """Lay the map, logits, over the picture's preview, as the service does, and `save` it."""
        if picture.preview is None:
            raise ValueError("decode it with a preview")
        image = overlay(picture.preview, contract.local_score(heatmap), picture.size, max_side=SIDE)
        return self.save(path, to_png(image))

    def save(self, path: str, png: bytes) -> Path:
        """Where it was put. Raises Unwritable."""
        place = self.place(path)
        try:
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(png)
        except OSError as error:
            raise Unwritable(place, error) from error
        return place


def slug(path: str) -> str:
    """The last part of a path, as every file system takes it: no separators, nothing hidden, not long."""
    return _OTHERS.sub("_", path.rpartition("/")[2])[-_LONGEST:].lstrip(".") or "picture"
