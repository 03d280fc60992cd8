"""From whatever a caller calls a picture to what is sent for it. Only says what is to be done: nothing is read here.

Pillow and numpy are no dependencies: an object of theirs can only come from a process that has them.
"""

import os
import sys
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import IO, TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, TypeGuard, cast

from clicv2_client import bodies
from clicv2_client.bodies import Part
from clicv2_client.errors import UnreadablePicture

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

PNG = "image/png"
# Of Pillow's modes those that have an alpha channel and are not PNG's -> one that is.
_WITH_ALPHA = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}

_WHITE = 65535  # of 16 bits


class ImageLike(Protocol):
    """A PIL image."""

    @property
    def mode(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...


class ArrayLike(Protocol):
    """A numpy array, or what can be seen as one: uint8, [H, W], [H, W, 3] (RGB) or [H, W, 4] (RGBA)."""

    @property
    def __array_interface__(self) -> Mapping[str, object]: ...


# A str that begins with http:// or https:// is a URL, which the service fetches; any other is a path.
Picture: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | BinaryIO | ImageLike | ArrayLike
)


def is_url(picture: object) -> TypeGuard[str]:
    return isinstance(picture, str) and picture.lower().startswith(("http://", "https://"))


def part_of(picture: Picture) -> Part:
    """What is to be sent for a picture that is here. Raises UnreadablePicture."""
    if is_url(picture):
        raise UnreadablePicture("a URL can only be scored; here give the picture itself")
    if isinstance(picture, str | os.PathLike):
        return bodies.File(Path(picture))
    if isinstance(picture, bytes | bytearray | memoryview):
        return bodies.Bytes(picture)
    if _is_image(picture):
        return bodies.Encoded(lambda: _encode_image(picture), PNG, _name(picture))
    if _is_array(picture):
        return bodies.Encoded(lambda: _encode_array(picture), PNG, "array")
    if hasattr(picture, "read"):
        return bodies.of_file(cast("BinaryIO", picture))
    raise UnreadablePicture(
        f"a picture is a path, a URL, bytes, a binary file, a PIL image or a numpy array, not {type(picture).__name__}"
    )


def _is_image(picture: object) -> "TypeGuard[Image.Image]":
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(picture, pil.Image)


def _is_array(picture: object) -> TypeGuard[ArrayLike]:
    return hasattr(picture, "__array_interface__")


def _name(image: "Image.Image") -> str:
    filename = getattr(image, "filename", "")  # of an image that was opened, not made
    return Path(filename).name if isinstance(filename, str) and filename else "image"


def _encode_image(image: "Image.Image") -> bytes:
    """Without loss, and upright: the service does not see the EXIF orientation that a PIL image carries apart."""
    from PIL import ImageOps

    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F" or upright.mode.startswith("I"):
            upright = _in_16_bits(upright)
        elif upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            upright = upright.convert(_WITH_ALPHA.get(upright.mode, "RGB"))
        buffer = BytesIO()
        upright.save(buffer, "PNG", compress_level=1, exif=b"")
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's, of a damaged PNG
        raise UnreadablePicture(f"the PIL image cannot be read: {error}") from error
    return buffer.getvalue()


def _in_16_bits(image: "Image.Image") -> "Image.Image":
    """Grey levels of 0 to 65535. Raises UnreadablePicture for others: Pillow would clip them to 0 or 255."""
    whole = image if image.mode in ("I", "F") else image.convert("I")  # "I;16B" and the like
    low, high = cast("tuple[float, float]", whole.getextrema())
    if image.mode == "F" or low < 0 or high > _WHITE:
        raise UnreadablePicture(
            f"the PIL image has the mode {image.mode} and values from {low} to {high}, of which nobody can tell what "
            'is white: scale them to 0 to 255, and convert it to "L"'
        )
    return whole.convert("I;16")


def _encode_array(picture: ArrayLike) -> bytes:
    """A PNG (W3C, third edition) whose rows are each byte's difference from its left neighbour, which packs well."""
    import numpy as np

    array: npt.NDArray[np.uint8] = np.asarray(picture)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise UnreadablePicture(
            f"an array must be uint8 and [H, W], [H, W, 3] or [H, W, 4], not {array.dtype} and {list(array.shape)}"
        )
    height, width = array.shape[:2]
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = 1  # the filter "Sub"
    rows[:, 1:] = array.reshape(height, -1)
    rows[:, 1 + channels :] -= array.reshape(height, -1)[:, :-channels]
    colour = {1: 0, 3: 2, 4: 6}[channels]
    header = pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(content)) + kind + content + pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, 1)), (b"IEND", b""))
    )
