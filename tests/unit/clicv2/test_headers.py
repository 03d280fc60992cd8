"""EXIF orientation, and what a header is taken to say, against tables made by hand."""

import pictures as p
import pytest

from clicv2.headers import Limits, exif_orientation, read_header

PLAIN = p.encode(p.scene(), "JPEG")


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, byte_order: str) -> None:
    tiff = p.exif(orientation, byte_order=byte_order)
    assert exif_orientation(tiff) == exif_orientation(b"Exif\0\0" + tiff) == orientation


GOOD = p.exif(6)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"II*\0",
        b"II*\0\x08\0\0\0",
        GOOD[:10],
        GOOD[:40],
        b"XX" + GOOD[2:],
        GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:],  # a directory beyond the end
        p.exif(0),
        p.exif(9),
        p.exif(6, kind=2),  # text instead of a number
        GOOD.replace(b"\x12\x01\x03\0\x01", b"\x12\x01\x03\0\x02"),  # two orientations
    ],
    ids=bytes.hex,
)
def test_damaged_exif_is_ignored(damaged: bytes) -> None:
    assert exif_orientation(damaged) == 1
    jpeg = p.into_jpeg(PLAIN, p.segment(0xE1, b"Exif\0\0" + damaged))
    assert read_header(jpeg, Limits()).orientation == 1


def test_exif_that_claims_more_entries_than_it_has_is_read_as_far_as_it_goes() -> None:
    assert exif_orientation(GOOD[:8] + b"\xff\xff" + GOOD[10:]) == 6


def test_the_first_exif_of_a_jpeg_counts() -> None:
    blocks = [p.segment(0xE1, b"Exif\0\0" + p.exif(n)) for n in (6, 3)]
    assert read_header(p.into_jpeg(PLAIN, *blocks), Limits()).orientation == 6


def test_xmp_is_not_exif() -> None:
    xmp = p.segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0 tiff:Orientation="6"')
    exif = p.segment(0xE1, b"Exif\0\0" + p.exif(3))
    assert read_header(p.into_jpeg(PLAIN, xmp, exif), Limits()).orientation == 3


def test_the_essence_of_a_jpeg_keeps_what_names_its_colours_and_drops_the_rest() -> None:
    kept = [p.segment(0xE0, b"JFIF\0kept"), p.segment(0xEE, b"Adobe kept")]
    dropped = [p.segment(m, b"dropped") for m in (*range(0xE1, 0xEE), 0xEF, 0xFE)]
    data = p.into_jpeg(PLAIN, *kept, *dropped)
    essence = read_header(data, Limits()).essence(data)
    assert essence.count(b"kept") == 2
    assert b"dropped" not in essence
    assert len(essence) == len(data) - sum(map(len, dropped))


def test_the_essence_of_a_png_is_its_pixels() -> None:
    pixels = p.png(p.scene(), 8, p.RGB)
    data = p.png(p.scene(), 8, p.RGB, early=p.chunk(b"tEXt", b"a\0b"), late=p.chunk(b"tIME", b"1234567"))
    assert read_header(data + b"garbage", Limits()).essence(data) == pixels


def test_an_animation_of_no_frames_is_a_still_picture() -> None:
    for late, early in ((b"", p.chunk(b"fcTL")), (p.chunk(b"fcTL"), b"")):
        data = p.png(p.scene(), 8, p.RGB, early=p.chunk(b"acTL", bytes(8)) + early, late=late)
        assert read_header(data, Limits()).frames == 1


@pytest.mark.parametrize("at", [0, 20, 3000])
def test_markers_are_found_behind_padding_and_junk(at: int) -> None:
    frame = PLAIN.index(b"\xff\xc0")
    data = PLAIN[:frame] + b"junk\xff\0" * at + b"\xff" * at + PLAIN[frame:]
    header = read_header(data, Limits(max_segments=20))
    assert (header.width, header.height, header.channels, header.bits) == (48, 32, 3, 8)
