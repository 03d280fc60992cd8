"""Bytes of a picture -> RGB -> the model's input; the only decoder in the project.

`decode` refuses by the header alone whatever exceeds the limits, so a decompression bomb costs
no more than its first bytes. Large JPEGs are decoded at a fraction of their size in the DCT
domain (libjpeg-turbo); whatever that fast path refuses is judged by Pillow.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from clicv2.errors import Corrupt, Empty, ImageError, TooLarge, Unsupported
from clicv2.spec import PreprocessSpec

Pixels = npt.NDArray[np.uint8]

# The plug-ins are called directly: Image.open would turn an MPO into another class, and its
# bomb check is a process-wide setting and a warning, where ours are limits of the call.
FORMATS: Mapping[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
MEDIA_TYPES = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}

# EXIF orientation -> what turns the picture upright (EXIF 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused before any pixel is decoded.

    Attributes:
        max_bytes: size of the file; 32 MiB holds the JPEGs of any camera.
        max_pixels: width x height; 50 million is a phone's largest mode, 150 MB as RGB.
        max_side: longest side in pixels; a sliver of 1 x 50 million is no picture.
        max_frames: frames of an animation; only the first is scored, but each costs a header.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 16_384
    max_frames: int = 1_000


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright and opaque.

    Attributes:
        image: RGB; smaller than (width, height) when the decoder scaled it on the way.
        width, height: of the file, in pixels as it is meant to be seen (after EXIF orientation).
        format: "JPEG", "PNG" or "WEBP".
        frames: how many the file holds; `image` is the first.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    frames: int


def decode(data: bytes, spec: PreprocessSpec, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Decode an encoded picture to upright, opaque RGB, no smaller than the model's input needs.

    Raises:
        Empty, Unsupported, Corrupt, TooLarge: see `clicv2.errors`; nothing else, whatever the bytes.
    """
    if not data:
        raise Empty("the picture is empty: 0 bytes")
    _check("bytes", len(data), limits.max_bytes)
    file_format = _sniff(data)
    try:
        # WebP's plug-in allocates its canvas on opening, so its size is read before that.
        if file_format == "WEBP":
            _check_size(_webp_size(data), limits)
        opened = FORMATS[file_format](BytesIO(data))
        _check_size(opened.size, limits)
        frames = int(getattr(opened, "n_frames", 1))
        _check("frames", frames, limits.max_frames)
        orientation = _orientation(opened) if spec.exif_orientation else 1
        width, height = opened.size
        image = _pixels(data, opened, file_format, spec, sideways=orientation in _SIDEWAYS)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
        if orientation in _SIDEWAYS:
            width, height = height, width
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plug-ins raise a dozen unrelated types on damaged files
        raise Corrupt(f"the {file_format} cannot be decoded: {error}") from error
    return Picture(image, width, height, file_format, frames)


def to_model_input(image: Image.Image, spec: PreprocessSpec) -> Pixels:
    """Squash an RGB image to the model's input: uint8 [H, W, 3]."""
    size = (spec.width, spec.height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=spec.reducing_gap)
    return np.asarray(image, dtype=np.uint8)  # [H, W, 3]


def _check(limit: str, actual: int, maximum: int) -> None:
    if actual > maximum:
        raise TooLarge(limit, actual, maximum)


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise Corrupt(f"the header says {width} x {height} pixels")
    _check("side", max(size), limits.max_side)
    _check("pixels", width * height, limits.max_pixels)


def _sniff(data: bytes) -> str:
    """The format by its first bytes; names and media types lie, signatures rarely."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    raise Unsupported(f"not a picture in a supported format ({', '.join(FORMATS)})")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from a WebP's first chunk (RFC 9649, section 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    if kind == b"VP8L" and len(data) >= 25:
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise Corrupt("the WEBP has no valid first chunk")


def _orientation(opened: ImageFile.ImageFile) -> int:
    try:
        value = opened.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF is common and says nothing about the pixels
        return 1
    return value if isinstance(value, int) else 1


def _pixels(
    data: bytes, opened: ImageFile.ImageFile, file_format: str, spec: PreprocessSpec, *, sideways: bool
) -> Image.Image:
    """The first frame as RGB, not yet turned upright."""
    if file_format != "JPEG":
        opened.load()
        return _to_rgb(opened, spec)
    width, height = (spec.height, spec.width) if sideways else (spec.width, spec.height)
    if opened.mode in ("L", "RGB"):
        try:
            scaled = {"min_height": height, "min_width": width} if spec.dct_scaling else {}
            return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", **scaled))
        except ValueError:
            pass  # strict libjpeg-turbo also refuses harmless oddities: let Pillow be the judge
    if spec.dct_scaling:
        opened.draft(None, (width, height))
    opened.load()
    return _to_rgb(opened, spec)


def _to_rgb(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    """Any mode that the three formats yield -> RGB, transparency composited on the spec's colour."""
    if image.mode.startswith("I"):  # 16-bit grey
        return _sixteen_bit_to_rgb(image, spec)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    opaque = Image.new("RGB", image.size, spec.background)
    opaque.paste(rgba, mask=rgba)
    return opaque


def _sixteen_bit_to_rgb(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    samples = np.asarray(image).astype(np.uint32)  # [H, W], 0 to 65535
    grey = ((samples * 255 + 32_767) // 65_535).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)  # [H, W, 3]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        rgb[samples == transparent] = spec.background
    return Image.fromarray(rgb)
