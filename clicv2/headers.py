"""What a file says of itself, read without a decoder, and refused here if it asks too much.

Pillow's own header readers spend seconds, or gigabytes, on hostile metadata (measured: 2.4 s on
8 MB of empty JPEG segments, 4 s on 2 MB of PNG colour profiles), and a progressive JPEG of 300 kB
may ask for any number of passes over 50 million pixels. So each file is walked once by the few
functions below, which look only at what matters to the pixels; everything else is skipped unread
and, where Pillow decodes, never shown to it.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from clicv2.errors import Corrupt, TooLarge, Unsupported


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused before any pixel is decoded.

    Attributes:
        max_bytes: size of the file; 32 MiB holds the JPEGs of any camera.
        max_pixels: width x height; 50 million is a phone's largest mode, 150 MB as RGB.
        max_side: longest side in pixels; a sliver of 1 x 50 million is no picture.
        max_frames: frames of an animation; only the first is scored, but each costs a header.
        max_segments: segments of a JPEG's header, chunks of a PNG or WebP. The PNGs with the
            smallest chunks in use (8 KiB) have 4,096 at 32 MiB; each costs a microsecond or two.
        max_scans: passes of a progressive JPEG over its pixels. Encoders write 10 to 20; at 50
            million pixels one of 75 bytes costs 40 ms.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 16_384
    max_frames: int = 1_000
    max_segments: int = 10_000
    max_scans: int = 50


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says.

    Attributes:
        format: "JPEG", "PNG" or "WEBP".
        width, height: as stored, before any EXIF orientation.
        orientation: EXIF's, 1 to 8; 1 if there is none or it is damaged.
        frames: of an animation; 1 otherwise. The further pictures of an MPO are not counted.
        channels: components of a JPEG: 1 grey, 3 colour, 4 CMYK; 0 for the other formats.
        bits: of a sample.
        interlaced: whether a PNG is.
        spans: (start, stop) of the bytes that make the pixels, in order.
    """

    format: str
    width: int
    height: int
    orientation: int
    frames: int
    channels: int
    bits: int
    spans: tuple[tuple[int, int], ...]
    interlaced: bool = False

    def essence(self, data: bytes) -> bytes:
        """The file without its metadata."""
        return b"".join(data[start:stop] for start, stop in self.spans)


def read_header(data: bytes, limits: Limits) -> Header:
    """Recognise a file by its first bytes (names and media types lie) and read its header.

    Raises Unsupported, Corrupt, or TooLarge for each limit but `max_bytes`.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(data, limits)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_png(data, limits)
    if data.startswith(b"RIFF") and data.startswith(b"WEBP", 8):
        return _read_webp(data, limits)
    raise Unsupported("not a picture in a supported format (JPEG, PNG, WEBP)")


def check(limit: str, actual: int, maximum: int) -> None:
    if actual > maximum:
        raise TooLarge(limit, actual, maximum)


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise Corrupt(f"the header says {width} x {height} pixels")
    check("side", max(width, height), limits.max_side)
    check("pixels", width * height, limits.max_pixels)


# JPEG: ITU-T T.81, annex B. A marker is ff and a byte that is neither 00 nor ff; anything else
# between two segments is skipped, as libjpeg does.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
_JPEG_MARKER_IN_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_SOI, _EOI, _SOS, _EXIF = 0xD8, 0xD9, 0xDA, 0xE1
_STANDALONE = frozenset({0x01, _SOI, *range(0xD0, 0xD8)})  # TEM, SOI, RST0 to RST7: no length follows
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG, DAC
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
# Metadata: APP1 to APP13, APP15 and comments. APP0 (JFIF) and APP14 (Adobe) name the colour space.
_JPEG_METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})


def _read_jpeg(data: bytes, limits: Limits) -> Header:
    frame: tuple[int, int, int, int] | None = None  # bits, height, width, channels
    progressive = False
    orientation = 0
    spans = [(0, 2)]
    at, segments = 2, 0
    while True:
        segments += 1
        check("segments", segments, limits.max_segments)
        marker, start, at = _jpeg_segment(data, at, _JPEG_MARKER)
        if marker == _EOI:
            raise Corrupt("the JPEG ends before its picture begins")
        if marker == _SOS:
            break
        if marker == _EXIF and not orientation and data.startswith(b"Exif\0\0", start + 4):
            orientation = exif_orientation(data[start + 10 : at])
        if marker in _FRAMES:
            if frame is not None or at - start < 10:
                raise Corrupt("the JPEG has more than one frame header, or one cut short")
            frame, progressive = struct.unpack_from(">BHHB", data, start + 4), marker in _PROGRESSIVE
            _check_size(frame[2], frame[1], limits)
        if marker not in _JPEG_METADATA:
            spans.append((start, at))
    if frame is None:
        raise Corrupt("the JPEG has no frame header")
    bits, height, width, channels = frame
    # libjpeg stops after the first scan of a baseline picture with all its channels in one.
    if progressive or data[start + 4 : start + 5] != bytes([channels]):
        _check_scans(data, at, limits)
    return Header("JPEG", width, height, orientation or 1, 1, channels, bits, (*spans, (start, len(data))))


def _check_scans(data: bytes, at: int, limits: Limits) -> None:
    """Count the scans from the end of the first one's header on."""
    scans, segments = 1, 0
    while True:
        try:
            marker, _, at = _jpeg_segment(data, at, _JPEG_MARKER_IN_SCAN)
        except Corrupt:
            return  # cut short: the decoder's business
        if marker == _EOI:
            return
        scans += marker == _SOS
        segments += 1
        check("scans", scans, limits.max_scans)
        check("segments", segments, limits.max_segments)


def _jpeg_segment(data: bytes, at: int, pattern: re.Pattern[bytes]) -> tuple[int, int, int]:
    """Marker, start and end of the first segment from `at` on."""
    found = pattern.search(data, at)
    if found is None:
        raise Corrupt("the JPEG is truncated")
    marker, start = found[1][0], found.start()
    if marker in _STANDALONE or marker == _EOI:
        return marker, start, start + 2
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    end = start + 2 + length
    if length < 2 or end > len(data):
        raise Corrupt("the JPEG is truncated, or a segment of it lies about its length")
    return marker, start, end


# PNG: W3C PNG, third edition, section 5.
_READ_AT_ONCE, _INFLATED_AT_ONCE = 2**16, 2**20  # bytes, when a PNG is inflated only to be counted
# Adam7: first column, first row, step of columns, step of rows.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def _read_png(data: bytes, limits: Limits) -> Header:
    if not data.startswith(b"\0\0\0\rIHDR", 8) or len(data) < 33:
        raise Corrupt("the PNG does not begin with a header")
    width, height = struct.unpack_from(">II", data, 16)
    _check_size(width, height, limits)
    view = memoryview(data)
    spans, orientation = [(0, 8)], 1
    frames, animated, seen = 1, False, set[bytes]()
    at, segments, kind = 8, 0, b""
    while kind != b"IEND":
        segments += 1
        check("segments", segments, limits.max_segments)
        start, kind = at, data[at + 4 : at + 8]
        at = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if len(kind) < 4 or at > len(data):
            raise Corrupt("the PNG is truncated, or a chunk of it lies about its length")
        if kind in _PNG_PIXELS:
            if zlib.crc32(view[start + 4 : at - 4]) != int.from_bytes(view[at - 4 : at], "big"):
                raise Corrupt(f"the PNG is damaged: wrong checksum in {kind.decode()}")
            if kind == b"IHDR" and seen:
                raise Corrupt("the PNG has more than one header")
            spans.append((start, at))
        elif kind == b"eXIf":
            orientation = exif_orientation(data[start + 8 : at - 4])
        elif kind == b"acTL" and at - start >= 20:
            frames, animated = int.from_bytes(data[start + 8 : start + 12], "big"), True
        # The default image is a frame of the animation only if fcTL comes before it.
        if kind == b"IDAT" and not seen & {b"IDAT", b"fcTL"} and animated:
            frames += 1
        check("frames", frames, limits.max_frames)
        seen.add(kind)
    return Header("PNG", width, height, orientation, max(frames, 1), 0, data[24], tuple(spans), data[28] == 1)


def check_png_is_whole(data: bytes, header: Header) -> None:
    """Raise Corrupt if the pixels of a PNG, inflated and thrown away, are fewer than its header says."""
    sample_bits = header.bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[data[25]]
    missing = sum(
        len(range(top, header.height, down)) * (1 + (columns * sample_bits + 7) // 8)
        for left, top, right, down in (_ADAM7 if header.interlaced else ((0, 0, 1, 1),))
        if (columns := len(range(left, header.width, right)))
    )
    inflater = zlib.decompressobj()
    for start, stop in header.spans:
        if data[start + 4 : start + 8] == b"IDAT":
            for at in range(start + 8, stop - 4, _READ_AT_ONCE):
                packed = data[at : min(at + _READ_AT_ONCE, stop - 4)]
                while packed and missing > 0:
                    missing -= len(inflater.decompress(packed, _INFLATED_AT_ONCE))
                    packed = inflater.unconsumed_tail
    if missing - len(inflater.flush()) > 0:
        raise Corrupt("the PNG has fewer pixels than its header says")


# WebP: RFC 9649, section 2.5 to 2.7.
def _read_webp(data: bytes, limits: Limits) -> Header:
    _check_size(*_webp_size(data), limits)
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise Corrupt("the WEBP is truncated")
    frames, orientation = 0, 1
    at, segments = 12, 0
    while at + 8 <= end:
        segments += 1
        check("segments", segments, limits.max_segments)
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"ANMF":
            frames += 1
            check("frames", frames, limits.max_frames)
        elif kind == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    width, height = _webp_size(data)
    return Header("WEBP", width, height, orientation, max(frames, 1), 0, 8, ((0, len(data)),))


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk."""
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


def exif_orientation(exif: bytes) -> int:
    """Orientation from a TIFF block's first directory (EXIF 2.32, tag 0x0112); 1 if it has none that is valid.

    Damaged EXIF is common and says nothing about the pixels, so nothing is raised.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    if directory + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, directory)
    for at in range(directory + 2, min(directory + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, at)
        if tag == 0x0112:
            return value if kind == 3 and values == 1 and 1 <= value <= 8 else 1
    return 1
