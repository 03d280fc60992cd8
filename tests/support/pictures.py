"""Pictures for tests: scenes as arrays, and files of every kind, made byte by byte where Pillow cannot write them."""

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

Samples = npt.NDArray[np.integer]

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types of PNG
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
# Adam7: first column, first row, step of columns, step of rows (W3C PNG, section 8.1).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def scene(width: int = 48, height: int = 32) -> npt.NDArray[np.uint8]:
    """Smooth colours that look the same under no turn or flip: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    blue = 0.5 + 0.5 * np.sin(3 * x + 7 * y * y)
    return np.rint(np.stack([x, y, blue], axis=2) * 255).astype(np.uint8)  # [H, W, 3]


def noise(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(picture: Image.Image | Samples, file_format: str, **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    samples: Samples,
    bits: int,
    colour: int,
    *,
    palette: Sequence[tuple[int, int, int]] = (),
    transparency: bytes = b"",
    interlaced: bool = False,
    early: bytes = b"",
    late: bytes = b"",
) -> bytes:
    """A PNG written plainly, without filters.

    Args:
        samples: [H, W] or [H, W, channels], each of 0 to 2**bits - 1.
        transparency: content of tRNS.
        early, late: further chunks before and after the pixels.
    """
    samples = samples.reshape(*samples.shape[:2], -1)
    height, width, channels = samples.shape
    assert channels == _CHANNELS[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(
        b"\0" + _pack(row, bits)
        for left, top, right, down in passes
        for row in samples[top::down, left::right]
        if row.size
    )
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)),
            chunk(b"PLTE", bytes(c for entry in palette for c in entry)) if palette else b"",
            chunk(b"tRNS", transparency) if transparency else b"",
            early,
            chunk(b"IDAT", zlib.compress(rows, 9)),
            late,
            chunk(b"IEND"),
        ]
    )


def _pack(row: Samples, bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    if bits == 8:
        return row.astype(np.uint8).tobytes()
    digits = "".join(f"{sample:0{bits}b}" for sample in row.ravel().tolist())
    digits += "0" * (-len(digits) % 8)
    return bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8))


def flat_png(width: int, height: int) -> bytes:
    """A grey PNG of any size whose pixels are all 0, without holding them: a decompression bomb when large."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, GREY, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND")


def segment(marker: int, content: bytes = b"") -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(content)) + content


def into_jpeg(jpeg: bytes, *segments: bytes) -> bytes:
    """The JPEG with segments put in right after its first two bytes."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def exif(orientation: int, *, byte_order: str = "<", kind: int = 3, others: int = 2) -> bytes:
    """A TIFF block that states an orientation after `others` further tags."""
    signature = {"<": b"II*\0", ">": b"MM\0*"}[byte_order]
    entries = [struct.pack(f"{byte_order}HHII", 0x0100 + i, 4, 1, 99) for i in range(others)]
    entries.append(struct.pack(f"{byte_order}HHIHH", 0x0112, kind, 1, orientation, 0))
    count = struct.pack(f"{byte_order}H", len(entries))
    return signature + struct.pack(f"{byte_order}I", 8) + count + b"".join(entries) + b"\0\0\0\0"


def stored_sideways(upright: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """How a camera stores a picture under an EXIF orientation (EXIF 2.32: row 0 is the visual ..., column 0 ...).

    The table names, for each orientation, the edges of the upright picture on which the first
    stored row and the first stored column lie.
    """
    first_row, first_column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    stored = upright
    if "bottom" in (first_row, first_column):
        stored = stored[::-1]
    if "right" in (first_row, first_column):
        stored = stored[:, ::-1]
    if first_row in ("left", "right"):
        stored = stored.swapaxes(0, 1)
    return np.ascontiguousarray(stored)
