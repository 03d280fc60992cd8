"""Whatever a caller calls a picture, the service gets its pixels."""

import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from clicv2_client.bodies import Body, Form
from clicv2_client.errors import UnreadablePicture
from clicv2_client.pictures import is_url, part_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encode, noise, scene, stored_sideways
from PIL import Image, ImageOps

from clicv2.imaging import decode
from clicv2.spec import PreprocessSpec
from service.multipart import FileParts

SPEC = PreprocessSpec(height=16, width=16)


def sent(body: Body) -> bytes:
    opened = body.open()
    try:
        data = b"".join(opened.pieces)
    finally:
        opened.pieces.close()
    assert opened.size in (None, len(data))
    return data


def decoded(data: bytes) -> np.ndarray:
    """As any decoder sees it."""
    return np.asarray(Image.open(BytesIO(data)))


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([None, 1, 3, 4]),
    seed=st.integers(0, 99),
)
def test_an_array_arrives_as_it_is(height: int, width: int, channels: int | None, seed: int) -> None:
    shape = (height, width) if channels is None else (height, width, channels)
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    expected = array[:, :, 0] if channels == 1 else array
    np.testing.assert_array_equal(decoded(sent(part_of(array))), expected)


def test_a_view_of_an_array_arrives_as_it_is() -> None:
    array = noise(60, 40)
    for view in (array[::-1, ::2], array[..., ::-1], array.swapaxes(0, 1), np.asfortranarray(array)):
        np.testing.assert_array_equal(decoded(sent(part_of(view))), view)


def test_a_large_array_is_packed() -> None:
    assert len(sent(part_of(scene(640, 480)))) < 640 * 480


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4), bool),
        np.zeros((4,), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_an_array_that_is_no_picture_is_refused_here(array: np.ndarray) -> None:
    with pytest.raises(UnreadablePicture, match="uint8"):
        sent(part_of(array))


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I;16", "La"]
)
def test_a_pil_image_arrives_in_any_mode(mode: str) -> None:
    image = Image.fromarray(scene())
    if mode == "La":
        image = image.convert("LA")
    elif mode == "RGBa":
        image = image.convert("RGBA")
    elif mode == "PA":
        image = image.convert("P")
    converted = (
        image.convert("L").point(lambda v: v * 256, "I").convert("I;16") if mode == "I;16" else image.convert(mode)
    )
    arrived = Image.open(BytesIO(sent(part_of(converted))))
    assert arrived.size == image.size
    if mode not in ("1", "I;16"):
        grey = np.asarray(arrived.convert("RGB").convert("L"), np.float32)
        expected = np.asarray(
            converted.convert("RGBA" if mode in ("RGBa", "PA") else "LA" if mode == "La" else "RGB").convert("L"),
            np.float32,
        )
        np.testing.assert_allclose(grey, expected, atol=2)


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "RGBa", "La"])
def test_a_pil_image_stays_as_transparent_as_it_is(mode: str) -> None:
    image = Image.fromarray(scene())
    alpha = Image.linear_gradient("L").resize(image.size)
    if mode == "PA":
        image = image.convert("P").convert("PA")
    else:
        image = image.convert("LA" if mode.lower() == "la" else "RGBA")
    image.putalpha(alpha)
    arrived = Image.open(BytesIO(sent(part_of(image if mode == "PA" else image.convert(mode)))))
    np.testing.assert_array_equal(np.asarray(arrived.convert("RGBA"))[..., 3], np.asarray(alpha))


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B", "I;16L", "I;16N"])
def test_a_pil_image_of_16_bits_keeps_them(mode: str) -> None:
    """Pillow's own conversion makes white of whatever is above 255."""
    levels = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.int32)
    image = Image.fromarray(levels).convert("I") if mode == "I" else Image.new(mode, (48, 32))
    if mode != "I":
        image.putdata(levels.flatten().tolist())
    arrived = Image.open(BytesIO(sent(part_of(image))))
    np.testing.assert_array_equal(np.asarray(arrived, np.int32), levels)


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("F", 300.0), ("I", -1), ("I", 65536)])
def test_a_pil_image_whose_white_nobody_knows_is_refused_here(mode: str, value: float) -> None:
    with pytest.raises(UnreadablePicture, match=f"mode {mode} and values from {value}"):
        sent(part_of(Image.new(mode, (4, 4), value)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_arrives_upright(orientation: int) -> None:
    """As the service sees the file: there the orientation is in the file, and here apart from the pixels."""
    stored = Image.fromarray(stored_sideways(scene(), orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encode(stored, "PNG", exif=exif)
    with Image.open(BytesIO(file)) as image:
        arrived = sent(part_of(image))
        assert image.getexif()[0x0112] == orientation, "the caller's image is as it was"
        upright = ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(decode(arrived, SPEC).image, decode(file, SPEC).image)
    np.testing.assert_array_equal(decoded(arrived), np.asarray(upright))


def test_a_damaged_pil_image_is_refused_here() -> None:
    with (
        Image.open(BytesIO(encode(noise(99, 99), "PNG")[:2000])) as image,
        pytest.raises(UnreadablePicture, match="PIL"),
    ):
        sent(part_of(image))


def test_a_file_arrives_however_it_is_given(tmp_path: Path) -> None:
    data = os.urandom(700_000)
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        for picture in (path, str(path), data, bytearray(data), memoryview(data), BytesIO(data), file, raw):
            part = part_of(picture)
            assert sent(part) == data
            assert sent(part) == data, "and once more"
            assert part.replayable
        assert not file.closed, "that is the caller's to do"
        assert {part_of(path).name, part_of(file).name} == {"picture.png"}


def test_a_file_is_sent_from_where_it_is(tmp_path: Path) -> None:
    file = BytesIO(b"headerpicture")
    file.seek(6)
    part = part_of(file)
    assert [sent(part), sent(part)] == [b"picture", b"picture"]


def test_a_pipe_is_sent_once() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as sink:
        sink.write(b"picture")
    with os.fdopen(reading, "rb") as source:
        part = part_of(source)
        assert part.once
        assert part.replayable, "as long as nobody has taken anything"
        assert part.open().size is None
        assert sent(part) == b"picture"
        assert not part.replayable


@pytest.mark.parametrize(
    ("picture", "match"),
    [
        ("missing.png", "No such file"),
        (".", "directory"),
        ("zero\0byte", "null byte"),
        (StringIO("text"), "binary mode"),
        (3, "not int"),
        (None, "not NoneType"),
        ("https://example.com/a.png", "URL"),
    ],
)
def test_what_is_no_picture_is_refused_here(picture: object, match: str) -> None:
    with pytest.raises(UnreadablePicture, match=match):
        sent(part_of(picture))  # type: ignore[arg-type]


def test_a_closed_file_is_refused_here() -> None:
    file = BytesIO(b"picture")
    part = part_of(file)
    opened = part.open()
    file.close()
    with pytest.raises(UnreadablePicture, match="closed"):
        list(opened.pieces)
    with pytest.raises(UnreadablePicture, match="closed"):
        part_of(file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a/b", True),
        ("HTTPS://a", True),
        ("https:/a", False),
        ("ftp://a", False),
        ("a.png", False),
        (b"http://", False),
    ],
)
def test_a_url_is_told_from_a_path(text: object, expected: bool) -> None:
    assert is_url(text) == expected


class Named(BytesIO):
    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20),
            st.binary(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_form_is_what_the_service_understands(files: list[tuple[str, bytes]]) -> None:
    form = Form([part_of(Named(data, name)) for name, data in files])
    opened = form.open()
    body = b"".join(opened.pieces)
    boundary = opened.media_type.partition("boundary=")[2].encode()
    parts = FileParts(boundary, 1000)
    items = [*parts.write(body), *parts.finish()]
    assert [item.read() for item in items] == [data for _, data in files]
    plain = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
    for item, (name, _) in zip(items, files, strict=True):
        if "\\" not in name:  # which every parser of forms understands in its own way
            assert item.name == Path(name).name.translate(plain)


@pytest.mark.parametrize("use", ["import clicv2_client", "from clicv2_client.testing import FakeService"])
def test_nothing_heavy_is_imported_and_nothing_of_the_service(use: str) -> None:
    script = f"{use}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "httpx" in printed
    assert not {"PIL", "numpy", "clicv2", "service", "fastapi", "training"} & set(printed)


@pytest.mark.parametrize("make", [lambda: noise(8, 8), lambda: Image.fromarray(noise(8, 8))], ids=["array", "image"])
def test_encoding_is_done_once(make: Callable[[], object]) -> None:
    part = part_of(make())  # type: ignore[arg-type]
    assert sent(part) is not None
    made = part._made  # type: ignore[attr-defined]
    sent(part)
    assert part._made is made  # type: ignore[attr-defined]
