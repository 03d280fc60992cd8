"""Decode, resize and render off the event loop, in as many threads as there are cores."""

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from PIL import Image

from clicv2 import heatmap, imaging
from clicv2.headers import Limits
from clicv2.imaging import Pixels
from clicv2.spec import PreprocessSpec
from service.errors import DeadlineExceeded

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What an answer says of a picture itself.

    Attributes:
        width, height, format, frames: see `clicv2.imaging.Picture`.
        sha256: of the file, in hexadecimal.
        preview: the picture, small, for an overlay; None unless asked for.
    """

    width: int
    height: int
    format: str
    frames: int
    sha256: str
    preview: Image.Image | None

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


@dataclass(frozen=True, slots=True, eq=False)
class Decoded(Known):
    """A picture on its way to the model; the decoded original itself is not kept.

    Attributes:
        pixels: the model's input, uint8 [H, W, 3].
    """

    pixels: Pixels


def decode(
    data: bytes, spec: PreprocessSpec, limits: Limits, preview_side: int | None = None, sha256: str | None = None
) -> Decoded:
    """Bytes -> model input and facts. Raises ImageError.

    Args:
        preview_side: longest side of the preview in pixels; None for no preview.
        sha256: of the file, if it is known.
    """
    picture = imaging.decode(data, spec, limits)
    preview = None
    if preview_side is not None:
        size = heatmap.fit((picture.width, picture.height), preview_side)
        preview = picture.image
        if preview.width < min(size[0], picture.width):  # scaled down for the model on the way: once more, sharper
            preview = imaging.decode(data, replace(spec, width=size[0], height=size[1]), limits).image
        preview = preview.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return Decoded(
        pixels=imaging.to_model_input(picture.image, spec),
        width=picture.width,
        height=picture.height,
        format=picture.format,
        frames=picture.frames,
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
        preview=preview,
    )


async def off_loop(pool: Executor, timeout_s: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in the pool. Raises DeadlineExceeded; work that has not begun by then, or when the caller
    is cancelled, never begins. What it logs says whose request it is, as what the caller logs does."""
    if timeout_s <= 0:
        raise DeadlineExceeded("the deadline passed before the picture was decoded")
    try:
        async with asyncio.timeout(timeout_s):
            context = copy_context()  # which a pool's threads do not have
            return await asyncio.get_running_loop().run_in_executor(pool, lambda: context.run(work, *args, **kwargs))
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed while the picture waited for a core") from error
