"""Pictures of every format and mode come out as what they show; oracles are plain arithmetic on the scene."""

import dataclasses
import json
import threading
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pictures as p
import pytest
import simplejpeg
from PIL import Image, ImageFile, JpegImagePlugin

from clicv2 import imaging
from clicv2.errors import Corrupt, Empty, ImageError, TooLarge, Unsupported
from clicv2.headers import Limits
from clicv2.imaging import decode, to_model_input
from clicv2.spec import PreprocessSpec

DATA = Path(__file__).parents[2] / "data"
GOLDEN: dict[str, dict[str, object]] = json.loads((DATA / "golden.json").read_text())
SPEC = PreprocessSpec(height=64, width=64, background=(200, 100, 50))  # larger than the scene: nothing is scaled
SMALL = PreprocessSpec(height=24, width=32)
BACKGROUND = np.array(SPEC.background)
SCENE = p.scene()
HEIGHT, WIDTH = SCENE.shape[:2]
LEVELS = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))  # [H, W]
ALPHA = np.dstack([SCENE, SCENE[..., 0]])
COLOURS = [(i * 37 % 256, i * 91 % 256, 255 - i) for i in range(256)]
LOSSY = 6.0  # mean absolute difference that a lossy encoder may leave


def pixels(data: bytes, spec: PreprocessSpec = SPEC) -> np.ndarray:
    picture = decode(data, spec)
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image).astype(int)


def shown(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colour over the background; alpha of 0 to 1, [H, W]."""
    return rgb * alpha[..., None] + BACKGROUND * (1 - alpha[..., None])


def grey(samples: np.ndarray, most: int) -> np.ndarray:
    return np.repeat(np.floor(samples * 255 / most + 0.5)[..., None], 3, axis=2)


# --- every file kept in tests/data -------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_the_model_gets_the_golden_pixels(name: str) -> None:
    """If this fails for a library's sake, every model's fingerprint is void: see tests/data/make.py."""
    spec = PreprocessSpec()
    picture = decode((DATA / name).read_bytes(), spec)
    facts = {
        "format": picture.format,
        "size": [picture.width, picture.height],
        "frames": picture.frames,
        "sha256": sha256(to_model_input(picture.image, spec).tobytes()).hexdigest(),
    }
    assert facts == GOLDEN[name]


def test_every_committed_picture_has_its_golden_hash() -> None:
    assert {f.name for f in DATA.iterdir() if f.suffix in {".jpg", ".png", ".webp", ".mpo"}} == set(GOLDEN)


LOSSY_FILES = ("baseline.jpg", "baseline-444.jpg", "progressive.jpg", "cmyk.jpg", "first-of-two.mpo", "lossy.webp")
EXACT_FILES = ("rgb.png", "rgb-16.png", "rgb-interlaced.png", "animated.png", "lossless.webp")


@pytest.mark.parametrize(("name", "bound"), [*((n, LOSSY) for n in LOSSY_FILES), *((n, 0.0) for n in EXACT_FILES)])
def test_a_committed_picture_shows_the_scene(name: str, bound: float) -> None:
    assert np.abs(pixels((DATA / name).read_bytes()) - SCENE).mean() <= bound


def test_an_animated_webp_shows_its_first_frame() -> None:
    picture = decode((DATA / "animated.webp").read_bytes(), SPEC)
    assert picture.frames == 2
    assert np.abs(np.asarray(picture.image).astype(int) - SCENE).mean() <= LOSSY


# --- JPEG --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"restart_marker_rows": 1}], ids=str
)
def test_jpeg(options: dict[str, object]) -> None:
    assert np.abs(pixels(p.encode(SCENE, "JPEG", quality=90, **options)) - SCENE).mean() <= LOSSY


def test_a_grey_jpeg() -> None:
    luminance = np.asarray(Image.fromarray(SCENE).convert("L")).astype(int)
    result = pixels(p.encode(Image.fromarray(SCENE).convert("L"), "JPEG", quality=95))
    assert np.abs(result - luminance[..., None]).mean() <= 1.5


def test_a_cmyk_jpeg_is_inverted_as_adobe_writes_it() -> None:
    cmyk = Image.fromarray(SCENE).convert("CMYK")
    data = p.encode(cmyk, "JPEG", quality=95)  # Pillow stores inverted, and states Adobe's marker
    assert b"Adobe" in data
    assert np.abs(pixels(data) - SCENE).mean() <= LOSSY


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_is_turned_upright(file_format: str, orientation: int, byte_order: str) -> None:
    stored = p.stored_sideways(SCENE, orientation)
    tiff = p.exif(orientation, byte_order=byte_order)
    if file_format == "JPEG":
        data = p.into_jpeg(p.encode(stored, "JPEG", quality=95), p.segment(0xE1, b"Exif\0\0" + tiff))
    elif file_format == "PNG":
        data = p.png(stored, 8, p.RGB, early=p.chunk(b"eXIf", tiff))
    else:
        data = p.encode(stored, "WEBP", lossless=True, exif=tiff)
    picture = decode(data, SPEC)
    assert (picture.width, picture.height) == picture.image.size == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(picture.image).astype(int) - SCENE).mean() <= (LOSSY if file_format == "JPEG" else 0)


def test_orientation_can_be_left_alone() -> None:
    spec = PreprocessSpec(height=24, width=32, exif_orientation=False)
    assert decode((DATA / "exif-6.jpg").read_bytes(), spec).image.size == (HEIGHT, WIDTH)


def test_exif_after_the_pixels_of_a_png_counts() -> None:
    data = p.png(p.stored_sideways(SCENE, 6), 8, p.RGB, late=p.chunk(b"eXIf", p.exif(6)))
    assert np.array_equal(pixels(data), SCENE)


@pytest.mark.parametrize("dct", [True, False])
def test_a_large_jpeg_is_scaled_by_the_decoder_to_no_less_than_the_input(dct: bool) -> None:
    data = (DATA / "large.jpg").read_bytes()
    spec = PreprocessSpec(height=192, width=192, dct_scaling=dct)
    picture = decode(data, spec)
    assert (picture.width, picture.height) == (900, 700)
    # 700 * 2/8 is 175 and too little; 3/8 is the smallest eighth that leaves at least 192 rows.
    assert picture.image.size == ((338, 263) if dct else (900, 700))


def test_a_sideways_jpeg_is_scaled_for_the_side_that_is_seen() -> None:
    data = p.into_jpeg(p.encode(p.noise(800, 400), "JPEG"), p.segment(0xE1, b"Exif\0\0" + p.exif(6)))
    picture = decode(data, PreprocessSpec(height=400, width=100))
    assert (picture.width, picture.height) == (400, 800)
    assert picture.image.size == (200, 400)


def test_a_large_cmyk_jpeg_is_scaled_too() -> None:
    data = p.encode(Image.fromarray(p.noise(640, 480)).convert("CMYK"), "JPEG")
    assert decode(data, PreprocessSpec(height=100, width=100)).image.size == (160, 120)


def odd_jpeg(junk: bytes, before: bytes = b"\xff\xdb", mode: str = "RGB") -> bytes:
    plain = p.encode(Image.fromarray(SCENE).convert(mode), "JPEG", quality=90)
    at = plain.rindex(before)
    return plain[:at] + junk + plain[at:]


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("before", [b"\xff\xdb", b"\xff\xd9"], ids=["tables", "end"])
@pytest.mark.parametrize("junk", [b"\0\0\0", b"\xff\xff\xff"], ids=["bytes", "padding"])
def test_harmless_oddities_of_a_jpeg_are_no_reason_to_refuse(junk: bytes, before: bytes, mode: str) -> None:
    assert np.abs(pixels(odd_jpeg(junk, before, mode)) - SCENE).mean() <= LOSSY


def test_an_odd_jpeg_is_scaled_too() -> None:
    plain = p.encode(p.noise(640, 480), "JPEG")
    data = plain.replace(b"\xff\xdb", b"\0\xff\xdb", 1)
    assert decode(data, PreprocessSpec(height=100, width=100)).image.size == (160, 120)


# --- PNG ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_png_is_scaled_to_eight_bits(bits: int, interlaced: bool) -> None:
    most = 2**bits - 1
    samples = (LEVELS * 821) % 65536 if bits == 16 else LEVELS % (most + 1)
    assert np.array_equal(pixels(p.png(samples, bits, p.GREY, interlaced=interlaced)), grey(samples, most))


@pytest.mark.parametrize("key", [0, 1, 2, "most"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_level_of_a_grey_png_shows_the_background(bits: int, key: int | str) -> None:
    most = 2**bits - 1
    level = most if key == "most" else min(int(key), most)
    samples = np.array([[0, 1, 2 % (most + 1), most // 2, most]])
    expected = np.where((samples == level)[..., None], BACKGROUND, grey(samples, most))
    assert np.array_equal(pixels(p.png(samples, bits, p.GREY, transparency=level.to_bytes(2, "big"))), expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_an_rgb_png_shows_the_background(bits: int) -> None:
    shown_as = SCENE.astype(int) // 64 * 64
    samples = shown_as if bits == 8 else shown_as * 256 + 255 - shown_as
    key = samples[20, 30]
    data = p.png(samples, bits, p.RGB, transparency=b"".join(int(c).to_bytes(2, "big") for c in key))
    hidden = (samples == key).all(axis=2)
    assert 0 < hidden.sum() < hidden.size
    assert np.array_equal(pixels(data), np.where(hidden[..., None], BACKGROUND, shown_as))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparency", [b"", b"\0", b"\xff\0", b"\x40\x80"], ids=bytes.hex)
def test_a_palette(bits: int, transparency: bytes) -> None:
    samples = LEVELS % 2**bits
    alpha = np.array([*transparency, *[255] * (256 - len(transparency))])[samples] / 255
    result = pixels(p.png(samples, bits, p.PALETTE, palette=COLOURS[: 2**bits], transparency=transparency))
    assert np.abs(result - shown(np.array(COLOURS)[samples], alpha)).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [p.GREY_ALPHA, p.RGBA])
def test_alpha_is_composited_on_the_background(colour: int, bits: int) -> None:
    samples = ALPHA if colour == p.RGBA else ALPHA[..., [2, 3]]
    result = pixels(p.png(samples.astype(int) * (257 if bits == 16 else 1), bits, colour))
    rgb = ALPHA[..., :3] if colour == p.RGBA else ALPHA[..., [2, 2, 2]]
    assert np.abs(result - shown(rgb, ALPHA[..., 3] / 255)).max() <= 1


def test_bands_of_a_tall_transparent_picture_meet_without_a_seam() -> None:
    tall = np.dstack([p.noise(5, 600), p.noise(5, 600, seed=1)[..., 0]])
    assert np.abs(pixels(p.png(tall, 8, p.RGBA)) - shown(tall[..., :3], tall[..., 3] / 255)).max() <= 1
    samples = p.noise(5, 600)[..., 0].astype(int) * 257
    assert np.array_equal(pixels(p.png(samples, 16, p.GREY)), grey(samples, 65535))


@pytest.mark.parametrize(
    "encoded",
    [
        p.png(np.dstack([SCENE, np.zeros_like(LEVELS)]), 8, p.RGBA),
        p.encode(np.dstack([SCENE, np.zeros_like(SCENE[..., 0])]), "WEBP", lossless=True, exact=True),
    ],
    ids=["PNG", "WEBP"],
)
def test_a_fully_transparent_picture_is_the_background_and_not_its_hidden_colours(encoded: bytes) -> None:
    assert np.array_equal(pixels(encoded), np.broadcast_to(BACKGROUND, SCENE.shape))


def animation(*, default_image_is_a_frame: bool) -> bytes:
    control = p.chunk(b"acTL", (2).to_bytes(4, "big") + bytes(4))

    def frame(sequence: int) -> bytes:
        numbers = (sequence, WIDTH, HEIGHT, 0, 0)
        return p.chunk(b"fcTL", b"".join(n.to_bytes(4, "big") for n in numbers) + b"\0\1\0\1\0\0")

    return p.png(SCENE, 8, p.RGB, early=control + (frame(0) if default_image_is_a_frame else b""), late=frame(1))


@pytest.mark.parametrize(("inside", "frames"), [(True, 2), (False, 3)])
def test_an_apng_shows_its_default_image(inside: bool, frames: int) -> None:
    picture = decode(animation(default_image_is_a_frame=inside), SPEC)
    assert picture.frames == frames
    assert np.array_equal(np.asarray(picture.image), SCENE)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    "size", [(1, 1), (7, 9), (3, 3000), (2000, 900), (128, 8192)]
)  # the last: 128 bytes beyond 1 MiB
@pytest.mark.parametrize("bits", [1, 8])
def test_a_black_png_is_not_taken_for_a_cut_one(bits: int, size: tuple[int, int], interlaced: bool) -> None:
    black = np.zeros(size, int)
    assert not pixels(p.png(black, bits, p.GREY, interlaced=interlaced)).any()


def test_metadata_of_a_png_is_never_read() -> None:
    rubbish = p.chunk(b"iCCP", b"x") + p.chunk(b"zTXt", b"x\0\0x") + p.chunk(b"fcTL", b"") + p.chunk(b"acTL", b"")
    wrong_checksum = p.chunk(b"tEXt", b"a\0b")[:-1] + b"!"
    assert np.array_equal(pixels(p.png(SCENE, 8, p.RGB, early=rubbish + wrong_checksum, late=rubbish)), SCENE)


# --- WebP --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "bound"), [({"quality": 90}, LOSSY), ({"lossless": True}, 0.0), ({"quality": 90, "method": 6}, LOSSY)]
)
def test_webp(options: dict[str, object], bound: float) -> None:
    assert np.abs(pixels(p.encode(SCENE, "WEBP", **options)) - SCENE).mean() <= bound


def test_webp_alpha_is_composited_on_the_background() -> None:
    result = pixels(p.encode(ALPHA, "WEBP", lossless=True, exact=True))
    assert np.abs(result - shown(ALPHA[..., :3], ALPHA[..., 3] / 255)).max() <= 1


# --- what cannot be decoded --------------------------------------------------------------------

WHOLE = {
    "JPEG": p.encode(p.noise(80, 60), "JPEG"),
    "progressive JPEG": p.encode(p.noise(80, 60), "JPEG", progressive=True),
    "CMYK JPEG": p.encode(Image.fromarray(p.noise(80, 60)).convert("CMYK"), "JPEG"),
    "PNG": p.encode(p.noise(80, 60), "PNG"),
    "WEBP": p.encode(p.noise(80, 60), "WEBP"),
    "lossless WEBP": p.encode(p.noise(80, 60), "WEBP", lossless=True),
    "animated WEBP": (DATA / "animated.webp").read_bytes(),
}


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if anything that allocates pixels is touched: plug-ins, Pillow's images, libjpeg-turbo."""

    def touched(*_: object, **__: object) -> None:
        pytest.fail("a decoder was touched")

    for owner, name in [(simplejpeg, "decode_jpeg"), (ImageFile.ImageFile, "__init__"), (Image, "new")]:
        monkeypatch.setattr(owner, name, touched)


def test_no_bytes() -> None:
    with pytest.raises(Empty):
        decode(b"", SPEC)


@pytest.mark.parametrize(
    "data",
    [
        b"a text named picture.jpg",
        b"\xff\xd8",
        b"\x89PNG",
        b"RIFF\0\0\0\0WAVE",
        b"\0" * 100,
        *(p.encode(SCENE, f) for f in ("GIF", "BMP", "TIFF", "PPM", "ICO")),
    ],
    ids=lambda data: repr(data[:8]),
)
def test_what_is_no_picture_of_ours_is_unsupported(data: bytes) -> None:
    with pytest.raises(Unsupported, match="JPEG, PNG, WEBP"):
        decode(data, SPEC)


@pytest.mark.parametrize("kept", [0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_file_is_corrupt(name: str, kept: float) -> None:
    data = WHOLE[name]
    with pytest.raises(Corrupt):
        decode(data[: max(20, int(len(data) * kept))], SPEC)


@pytest.mark.parametrize("name", WHOLE)
def test_trailing_bytes_do_no_harm(name: str) -> None:
    assert np.array_equal(pixels(WHOLE[name] + b"\0garbage\xff\xd9" * 99), pixels(WHOLE[name]))


def test_the_fast_jpeg_decoder_is_strict() -> None:
    """Were it lenient, a truncated photograph would be scored with its lower half grey."""
    data = WHOLE["JPEG"]
    with pytest.raises(ValueError, match=r"(?i)premature end|truncated"):
        simplejpeg.decode_jpeg(data[: len(data) // 2], "RGB")


def lie(data: bytes, at: int, value: int, length: int, order: str = "big") -> bytes:
    return data[:at] + value.to_bytes(length, order) + data[at + length :]


def png_of_size(width: int, height: int, data: bytes) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:29]
    return data[:8] + p.chunk(b"IHDR", header) + data[33:]


def jpeg_of_size(width: int, height: int, data: bytes, frame: int = 0xC0) -> bytes:
    at = data.index(bytes([0xFF, frame]))
    return lie(lie(data, at + 5, height, 2), at + 7, width, 2)


def webp_of_size(width: int, height: int, data: bytes) -> bytes:
    assert data[12:16] == b"VP8X"
    return lie(lie(data, 24, width - 1, 3, "little"), 27, height - 1, 3, "little")


def without_last_pixels(data: bytes, count: int) -> bytes:
    """The PNG with its last bytes of pixels left out, and sound otherwise."""
    start = data.index(b"IDAT")
    stop = start + 4 + int.from_bytes(data[start - 4 : start], "big")
    rows = zlib.decompress(data[start + 4 : stop])
    return data[: start - 4] + p.chunk(b"IDAT", zlib.compress(rows[:-count])) + data[stop + 4 :]


LIES = {
    "PNG taller than its pixels": png_of_size(80, 61, WHOLE["PNG"]),
    "black PNG taller than its pixels": png_of_size(80, 61, p.png(np.zeros((60, 80), int), 8, p.GREY)),
    "black PNG wider than its pixels": png_of_size(90, 60, p.png(np.zeros((60, 80), int), 8, p.GREY)),
    "interlaced PNG taller than its pixels": png_of_size(48, 33, p.png(SCENE, 8, p.RGB, interlaced=True)),
    "interlaced PNG without its last row": without_last_pixels(
        p.png(p.scene(48, 33), 8, p.RGB, interlaced=True), 1 + 3 * 48
    ),
    "narrow black PNG without its last row": without_last_pixels(p.png(np.zeros((60, 1), int), 8, p.GREY), 2),
    "PNG without its last pixel": without_last_pixels(p.png(np.zeros((60, 80), int), 8, p.GREY), 1),
    "PNG wider than its pixels": png_of_size(200, 60, WHOLE["PNG"]),
    "PNG of no width": png_of_size(0, 60, WHOLE["PNG"]),
    "PNG of an unknown mode": p.png(SCENE[..., 0], 8, p.GREY).replace(b"\x08\0\0\0\0", b"\x07\0\0\0\0", 1),
    "PNG without pixels": WHOLE["PNG"][:33] + p.chunk(b"IEND"),
    "PNG with two headers": WHOLE["PNG"][:33] + WHOLE["PNG"][8:],
    "PNG without a palette": p.png(LEVELS % 4, 2, p.PALETTE),
    "PNG with a wrong checksum": lie(WHOLE["PNG"], len(WHOLE["PNG"]) - 16, 0, 4),
    "PNG whose chunk goes beyond its end": lie(WHOLE["PNG"], 33, 2**31, 4),
    "JPEG taller than its pixels": jpeg_of_size(80, 600, WHOLE["JPEG"]),
    "JPEG of no height": jpeg_of_size(80, 0, WHOLE["JPEG"]),
    "JPEG without a frame": b"\xff\xd8" + WHOLE["JPEG"][WHOLE["JPEG"].index(b"\xff\xda") :],
    "JPEG without a scan": WHOLE["JPEG"][: WHOLE["JPEG"].index(b"\xff\xda")] + b"\xff\xd9",
    "JPEG with two frames": p.into_jpeg(WHOLE["JPEG"], p.segment(0xC0, b"\x08\0\x10\0\x10\x01\x01\x11\0")),
    "JPEG with a frame cut short": p.into_jpeg(WHOLE["JPEG"], p.segment(0xC0, b"\x08\0\x10")),
    "JPEG of 12 bits": lie(WHOLE["JPEG"], WHOLE["JPEG"].index(b"\xff\xc0") + 4, 12, 1),
    "JPEG of five channels": lie(WHOLE["JPEG"], WHOLE["JPEG"].index(b"\xff\xc0") + 9, 5, 1),
    "JPEG segment shorter than its length": p.into_jpeg(WHOLE["JPEG"], b"\xff\xe5\0\1"),
    "JPEG segment beyond the end": p.into_jpeg(WHOLE["JPEG"][:200], b"\xff\xe5\xff\xff"),
    "WebP canvas larger than its only frame": webp_of_size(500, 500, (DATA / "alpha.webp").read_bytes()),
    "WebP canvas smaller than its only frame": webp_of_size(20, 20, (DATA / "alpha.webp").read_bytes()),
    "WebP frame beyond its canvas": webp_of_size(20, 20, WHOLE["animated WEBP"]),
    "WebP of an unknown chunk": WHOLE["WEBP"].replace(b"VP8 ", b"VP9 ", 1),
    "WebP with nothing in it": b"RIFF\4\0\0\0WEBP",
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_file_is_corrupt(name: str) -> None:
    with pytest.raises(Corrupt, match=r"(JPEG|PNG|WEBP|header).*\w\w"):
        decode(LIES[name], SPEC)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    "data",
    [
        *(LIES[f"JPEG with {what}"] for what in ("two frames", "a frame cut short")),
        *(LIES[f"PNG with {what}"] for what in ("two headers", "a wrong checksum")),
        WHOLE["WEBP"][:-1],
    ],
    ids=["frames", "frame", "headers", "checksum", "WebP"],
)
def test_what_the_header_gives_away_never_reaches_a_decoder(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(data, SPEC)


def test_no_pixel_may_be_decoded_to_another_size_than_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Liar(JpegImagePlugin.JpegImageFile):
        def _open(self) -> None:
            super()._open()
            self._size = (1000, 1000)

    monkeypatch.setitem(imaging.FORMATS, "JPEG", Liar)  # type: ignore[arg-type]
    with pytest.raises(Corrupt, match="two sizes"):
        decode(odd_jpeg(b"\0"), SPEC)


def test_running_out_of_memory_is_not_the_senders_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(simplejpeg, "decode_jpeg", exhausted)
    with pytest.raises(MemoryError):
        decode(WHOLE["JPEG"], SPEC)


# --- what is refused by the header alone -------------------------------------------------------


def with_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    data = p.encode(np.full((64, 64, 3), 90, np.uint8), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def with_unmixed_scans(scans: int) -> bytes:
    """A baseline JPEG whose channels come one by one; libjpeg takes any number of such scans too."""
    data = p.encode(p.noise(16, 16), "JPEG", subsampling=0)
    at = data.index(b"\xff\xda")
    one = p.segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\0" * 9
    return data[:at] + one * scans + b"\xff\xd9"


BOMB = p.flat_png(13_000, 13_000)

REFUSED: dict[str, tuple[bytes, Limits, str, int, int]] = {
    "bytes": (WHOLE["PNG"], Limits(max_bytes=100), "bytes", len(WHOLE["PNG"]), 100),
    "PNG pixels": (WHOLE["PNG"], Limits(max_pixels=4799), "pixels", 4800, 4799),
    "JPEG pixels": (WHOLE["JPEG"], Limits(max_pixels=4799), "pixels", 4800, 4799),
    "lossy WebP pixels": (WHOLE["WEBP"], Limits(max_pixels=4799), "pixels", 4800, 4799),
    "lossless WebP pixels": (WHOLE["lossless WEBP"], Limits(max_pixels=4799), "pixels", 4800, 4799),
    "animated WebP pixels": (WHOLE["animated WEBP"], Limits(max_pixels=1535), "pixels", 1536, 1535),
    "PNG side": (WHOLE["PNG"], Limits(max_side=79), "side", 80, 79),
    "PNG side, upright": (p.encode(p.noise(60, 80), "PNG"), Limits(max_side=79), "side", 80, 79),
    "JPEG side": (WHOLE["JPEG"], Limits(max_side=79), "side", 80, 79),
    "WebP side": (WHOLE["WEBP"], Limits(max_side=79), "side", 80, 79),
    "WebP frames": (WHOLE["animated WEBP"], Limits(max_frames=1), "frames", 2, 1),
    "APNG frames": (animation(default_image_is_a_frame=True), Limits(max_frames=1), "frames", 2, 1),
    "APNG frames and a default image": (
        animation(default_image_is_a_frame=False),
        Limits(max_frames=2),
        "frames",
        3,
        2,
    ),
    "PNG bomb": (BOMB, Limits(), "pixels", 169_000_000, 50_000_000),
    "PNG of the largest size": (png_of_size(2**31 - 1, 2**31 - 1, WHOLE["PNG"]), Limits(), "side", 2**31 - 1, 16_384),
    "JPEG bomb": (jpeg_of_size(13_000, 13_000, WHOLE["JPEG"]), Limits(), "pixels", 169_000_000, 50_000_000),
    "progressive JPEG bomb": (
        jpeg_of_size(65_535, 65_535, WHOLE["progressive JPEG"], 0xC2),
        Limits(),
        "side",
        65_535,
        16_384,
    ),
    "WebP bomb": (
        webp_of_size(16_000, 16_000, (DATA / "alpha.webp").read_bytes()),
        Limits(),
        "pixels",
        256_000_000,
        50_000_000,
    ),
    "JPEG scans": (with_scans(51), Limits(), "scans", 51, 50),
    "JPEG scans of one channel": (with_unmixed_scans(51), Limits(), "scans", 51, 50),
    "JPEG segments": (p.into_jpeg(WHOLE["JPEG"], b"\xff\xe5\0\2" * 10_000), Limits(), "segments", 10_001, 10_000),
    "JPEG segments between scans": (
        with_scans(50)[:-2] + b"\xff\xfe\0\2" * 10_000,
        Limits(),
        "segments",
        10_001,
        10_000,
    ),
    "PNG chunks": (p.png(SCENE, 8, p.RGB, early=p.chunk(b"aaAa") * 10_000), Limits(), "segments", 10_001, 10_000),
    "WebP chunks": (
        lie(WHOLE["WEBP"] + b"aaaa\0\0\0\0" * 10_000, 4, len(WHOLE["WEBP"]) + 80_000 - 8, 4, "little"),
        Limits(),
        "segments",
        10_001,
        10_000,
    ),
}


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("name", REFUSED)
def test_what_exceeds_a_limit_is_refused_without_decoding(name: str) -> None:
    data, limits, limit, actual, maximum = REFUSED[name]
    with pytest.raises(TooLarge) as caught:
        decode(data, SPEC, limits)
    assert (caught.value.limit, caught.value.actual, caught.value.maximum) == (limit, actual, maximum)
    assert str(caught.value) == f"the picture has {actual} {limit}, the limit is {maximum}"


def test_the_bomb_is_a_small_file() -> None:
    assert len(BOMB) < 500_000


JUST_WITHIN = {
    "PNG": (
        WHOLE["PNG"],
        Limits(max_bytes=len(WHOLE["PNG"]), max_pixels=4800, max_side=80, max_frames=1, max_segments=3),
    ),
    "JPEG": (WHOLE["JPEG"], Limits(max_pixels=4800, max_side=80, max_frames=1, max_scans=1)),
    "WEBP": (WHOLE["animated WEBP"], Limits(max_pixels=1536, max_side=48, max_frames=2)),
    "scans": (with_scans(50), Limits()),
}


@pytest.mark.parametrize("name", JUST_WITHIN)
def test_what_meets_a_limit_exactly_is_decoded(name: str) -> None:
    data, limits = JUST_WITHIN[name]
    assert decode(data, SPEC, limits).frames >= 1


def test_scans_of_a_thumbnail_or_of_a_second_picture_are_not_counted() -> None:
    thumbnail = p.segment(0xE1, with_scans(30))
    data = p.into_jpeg(with_scans(30), thumbnail) + with_scans(30)
    assert decode(data, SPEC).image.size == (64, 64)


# --- the model's input -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 24), (33, 25), (1, 1), (1, 5000), (5000, 1), (1000, 700), (3, 2)])
def test_the_input_has_the_models_size(size: tuple[int, int]) -> None:
    result = to_model_input(Image.new("RGB", size, (10, 20, 30)), SMALL)
    assert result.shape == (24, 32, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert (result == [10, 20, 30]).all()


def test_a_picture_of_the_models_size_is_left_alone() -> None:
    picture = p.noise(32, 24)
    assert np.array_equal(to_model_input(Image.fromarray(picture), SMALL), picture)


def test_the_whole_picture_is_squashed_and_not_cropped() -> None:
    halves = np.zeros((480, 1280, 3), np.uint8)
    halves[:, 640:] = 255
    result = to_model_input(Image.fromarray(halves), SMALL)
    assert (result[:, :14] == 0).all()
    assert (result[:, 18:] == 255).all()


def test_the_reducing_gap_trades_exactness_for_speed() -> None:
    image = Image.fromarray(p.noise(900, 700))
    exact = np.asarray(image.resize((SMALL.width, SMALL.height), Image.Resampling.BICUBIC)).astype(int)
    off = [
        np.abs(to_model_input(image, dataclasses.replace(SMALL, reducing_gap=gap)) - exact).mean()
        for gap in (100.0, 3.0, 1.0)
    ]
    assert off[0] == 0
    assert 0 < off[1] < off[2]


def test_only_rgb_is_taken() -> None:
    with pytest.raises(ValueError, match="RGB, got L"):
        to_model_input(Image.new("L", (5, 5)), SMALL)


@pytest.mark.parametrize("name", ["large.jpg", "rgba.png", "animated.webp", "cmyk.jpg"])
def test_threads_decode_the_same_as_one(name: str) -> None:
    data = (DATA / name).read_bytes()

    def once() -> str:
        spec = PreprocessSpec()
        return sha256(to_model_input(decode(data, spec).image, spec).tobytes()).hexdigest()

    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.extend(once() for _ in range(5))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [GOLDEN[name]["sha256"]] * 80


def test_the_errors_form_one_tree() -> None:
    kinds: list[Callable[..., Exception]] = [Empty, Unsupported, Corrupt, TooLarge]
    assert all(issubclass(kind, ImageError) for kind in kinds)
