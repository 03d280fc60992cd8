"""Bytes of a picture -> RGB -> the model's input; the only decoder in the project.

`decode` refuses by the header alone whatever exceeds the limits (`clicv2.headers`), so a
decompression bomb costs no more than its first bytes. Large JPEGs are decoded at a fraction of
their size in the DCT domain (libjpeg-turbo); whatever that fast path refuses is judged by Pillow.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from clicv2.errors import Corrupt, Empty, ImageError
from clicv2.headers import Header, Limits, check, check_png_is_whole, read_header
from clicv2.spec import PreprocessSpec

__all__ = ["DEFAULT_LIMITS", "FORMATS", "MEDIA_TYPES", "Limits", "Picture", "Pixels", "decode", "to_model_input"]

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

# What libjpeg says of lost pixels. Its strict mode refuses harmless oddities too, such as padding
# that some cameras write; those are left to Pillow.
_JPEG_DAMAGE = re.compile(r"(?i)premature end|bad (huffman|arithmetic) code|instead of RST")

DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright and opaque.

    Attributes:
        image: RGB; smaller than (width, height) when the decoder scaled it on the way.
        width, height: of the file, in pixels as it is meant to be seen (after EXIF orientation).
        format: "JPEG", "PNG" or "WEBP".
        frames: how many the file holds; `image` is the first (of an APNG: its default image).
            The further pictures of an MPO are not counted.
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
    check("bytes", len(data), limits.max_bytes)
    header = read_header(data, limits)
    orientation = header.orientation if spec.exif_orientation else 1
    width, height = header.width, header.height
    if orientation in _SIDEWAYS:
        width, height = height, width
    try:
        image = _pixels(data, header, spec, sideways=orientation in _SIDEWAYS)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
    except (ImageError, MemoryError):  # running out of memory is ours to answer for, not the sender's
        raise
    except Exception as error:  # Pillow's plug-ins raise a dozen unrelated types on damaged files
        raise Corrupt(f"the {header.format} cannot be decoded: {error}") from error
    return Picture(image, width, height, header.format, header.frames)


def to_model_input(image: Image.Image, spec: PreprocessSpec) -> Pixels:
    """Squash an RGB image to the model's input: uint8 [H, W, 3], read-only. Raises ValueError for another mode."""
    if image.mode != "RGB":
        raise ValueError(f"the model's input is made from RGB, got {image.mode}")
    size = (spec.width, spec.height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=spec.reducing_gap)
    return np.asarray(image, dtype=np.uint8)  # [H, W, 3]


def _pixels(data: bytes, header: Header, spec: PreprocessSpec, *, sideways: bool) -> Image.Image:
    """The first frame as RGB, not yet turned upright."""
    # The least size that the decoder may yield, as stored.
    width, height = (spec.height, spec.width) if sideways else (spec.width, spec.height)
    if header.format == "JPEG":
        try:
            scaled = {"min_height": height, "min_width": width} if spec.dct_scaling else {}
            if header.channels == 4:  # stored inverted, as Adobe does and everyone after it
                inks = 255 - simplejpeg.decode_jpeg(data, "CMYK", **scaled)  # [H, W, 4]
                return Image.fromarray(inks, "CMYK").convert("RGB")
            return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", **scaled))
        except ValueError as error:
            if _JPEG_DAMAGE.search(str(error)):
                raise
    opened = FORMATS[header.format](BytesIO(header.essence(data)))
    if opened.size != (header.width, header.height):
        raise Corrupt(f"the {header.format} states two sizes")
    if spec.dct_scaling:
        opened.draft(None, (width, height))  # of effect on JPEG alone
    opened.load()
    if header.format == "PNG":
        # Pillow leaves at 0 the rows that a PNG does not have; interlaced, they may be anywhere.
        last_row = opened.crop((0, opened.height - 1, *opened.size))
        if header.interlaced or not np.asarray(last_row).any():
            check_png_is_whole(data, header)
    _scale_transparency(opened, header.bits)
    return _to_rgb(opened, spec)


def _scale_transparency(opened: ImageFile.ImageFile, bits: int) -> None:
    """Put the transparent colour on the scale of the pixels: Pillow scales those to 8 bits and leaves it as it was."""
    colour = opened.info.get("transparency")
    if opened.mode == "L" and bits < 8 and isinstance(colour, int):
        most = 2**bits - 1
        opened.info["transparency"] = (colour & most) * (255 // most)
    elif opened.mode == "RGB" and bits == 16 and isinstance(colour, tuple):
        opened.info["transparency"] = tuple(c >> 8 for c in colour)


# Rows treated at a time, so that a large picture is not held in memory a third time.
_BAND = 256


def _to_rgb(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    """Any mode that the three formats yield -> RGB, transparency composited on the spec's colour."""
    if image.mode.startswith("I"):
        band_to_rgb = _sixteen_bit_to_rgb
    elif image.has_transparency_data:
        band_to_rgb = _composite
    elif image.mode == "RGB" and image.format != "WEBP":
        return image
    else:  # also a copy of WebP's RGB, whose plug-in keeps two canvases as long as it lives
        return image.convert("RGB")
    rgb = Image.new("RGB", image.size, spec.background)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height)))
        band_to_rgb(band, rgb, top)
    return rgb


def _composite(band: Image.Image, onto: Image.Image, top: int) -> None:
    rgba = band if band.mode == "RGBA" else band.convert("RGBA")
    onto.paste(rgba, (0, top), mask=rgba)


def _sixteen_bit_to_rgb(band: Image.Image, onto: Image.Image, top: int) -> None:
    samples = np.asarray(band).astype(np.uint32)  # [h, W], 0 to 65535
    grey = Image.fromarray(((samples * 255 + 32_767) // 65_535).astype(np.uint8))
    transparent = band.info.get("transparency")
    opaque = None if transparent is None else Image.fromarray(samples != transparent)
    onto.paste(grey.convert("RGB"), (0, top), mask=opaque)
