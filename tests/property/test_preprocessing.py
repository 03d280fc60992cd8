"""Whatever the bytes, decoding ends in a picture or an ImageError; whatever the picture, the input has its form."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pictures as p
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clicv2.contract import Figure, Manifest
from clicv2.errors import ImageError
from clicv2.headers import Limits, exif_orientation
from clicv2.heatmap import fit, overlay, render_map
from clicv2.imaging import FORMATS, Picture, decode, to_model_input
from clicv2.spec import PreprocessSpec

DATA = Path(__file__).parents[1] / "data"
FILES = {f.name: f.read_bytes() for f in sorted(DATA.iterdir()) if f.suffix in {".jpg", ".png", ".webp", ".mpo"}}
# So that no mutation of a header makes a test slow or large.
LIMITS = Limits(max_pixels=1_000_000, max_side=4_000)

no_deadline = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
many = settings(no_deadline, max_examples=1000)

specs = st.builds(
    PreprocessSpec,
    height=st.integers(1, 64),
    width=st.integers(1, 64),
    background=st.tuples(*[st.integers(0, 255)] * 3),
    reducing_gap=st.floats(1.0, 10.0),
    dct_scaling=st.booleans(),
    exif_orientation=st.booleans(),
)
sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, tuple[int, int]]:
    """An encoded picture of any size, mode, format and orientation, with its size as seen."""
    width, height = draw(sizes)
    file_format, mode = draw(
        st.sampled_from(
            [
                *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
                *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
                *(("WEBP", mode) for mode in ("RGB", "RGBA")),
            ]
        )
    )
    pixels = p.noise(width, height, draw(st.integers(0, 9)))
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(np.dstack([pixels, pixels[..., 0]])).convert(mode)
    options = {
        "JPEG": {"progressive": draw(st.booleans()), "quality": draw(st.sampled_from([1, 50, 95]))},
        "PNG": {"compress_level": 1},
        "WEBP": {"lossless": draw(st.booleans()), "method": 0},
    }[file_format]
    orientation = draw(st.integers(1, 8))
    data = p.encode(image, file_format, exif=b"Exif\0\0" + p.exif(orientation), **options)
    return data, (width, height) if orientation < 5 else (height, width)


@no_deadline
@given(files(), specs)
def test_every_valid_file_becomes_the_models_input(file: tuple[bytes, tuple[int, int]], spec: PreprocessSpec) -> None:
    data, seen = file
    picture = decode(data, spec)
    if spec.exif_orientation:
        assert (picture.width, picture.height) == seen
    assert well_formed(picture, spec)
    again = decode(data, spec)
    assert np.array_equal(to_model_input(picture.image, spec), to_model_input(again.image, spec))


def well_formed(picture: Picture, spec: PreprocessSpec) -> bool:
    """The picture is no smaller than it is or than the model needs, and its input has the right form."""
    result = to_model_input(picture.image, spec)
    return (
        picture.image.mode == "RGB"
        and picture.format in FORMATS
        and picture.image.width >= min(picture.width, spec.width)
        and picture.image.height >= min(picture.height, spec.height)
        and result.shape == (spec.height, spec.width, 3)
        and result.dtype == np.uint8
        and result.flags.c_contiguous
    )


def survives(data: bytes) -> None:
    spec = PreprocessSpec(height=16, width=16)
    try:
        picture = decode(data, spec, LIMITS)
    except ImageError:
        return
    assert well_formed(picture, spec)
    assert picture.width * picture.height <= LIMITS.max_pixels


@many
@given(st.sampled_from(sorted(FILES)), st.data())
def test_mutated_files_raise_nothing_but_image_errors(name: str, draw: st.DataObject) -> None:
    data = bytearray(FILES[name])
    # Headers are where the decisions are made: half of the places lie there.
    places = st.one_of(st.integers(0, min(64, len(data) - 1)), st.integers(0, len(data) - 1))
    for place, value in draw.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)):
        data[place] = value
    survives(bytes(data))


@many
@given(st.sampled_from(sorted(FILES)), st.sampled_from(sorted(FILES)), st.floats(0, 1), st.floats(0, 1))
def test_spliced_files_raise_nothing_but_image_errors(name: str, other: str, cut: float, resume: float) -> None:
    head, tail = FILES[name], FILES[other]
    survives(head[: int(cut * len(head))] + tail[int(resume * len(tail)) :])


def _renewed_checksums(png: bytes) -> bytes:
    """The PNG with every checksum made right, so that a mutation gets past it."""
    out, at = [png[:8]], 8
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        out.append(p.chunk(png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(out)


@many
@given(st.sampled_from([n for n in FILES if n.endswith(".png")]), st.integers(8, 300), st.integers(0, 255))
def test_mutated_pngs_with_right_checksums_raise_nothing_but_image_errors(name: str, place: int, value: int) -> None:
    data = bytearray(FILES[name])
    data[place % len(data)] = value
    survives(_renewed_checksums(bytes(data)))


@no_deadline
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP"]))
def test_any_bytes_raise_nothing_but_image_errors(data: bytes, signature: bytes) -> None:
    survives(signature + data)


@many
@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0", b"MM\0*", p.exif(6)]))
def test_any_exif_has_an_orientation(data: bytes, start: bytes) -> None:
    assert 1 <= exif_orientation(start + data) <= 8


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused_or_whole(name: str) -> None:
    """What is decoded from a part of a file is what the whole file shows: nothing is made up."""
    spec = PreprocessSpec(height=16, width=16)
    data = FILES[name]
    whole = to_model_input(decode(data, spec).image, spec)
    for kept in {*range(0, len(data), max(1, len(data) // 50)), *range(len(data) - 12, len(data))}:
        try:
            part = decode(data[:kept], spec)
        except ImageError:
            continue
        assert np.array_equal(to_model_input(part.image, spec), whole), f"{kept} of {len(data)} bytes"


@no_deadline
@given(st.integers(200, 900), st.integers(200, 900), st.integers(96, 192), st.booleans())
def test_a_scaled_decode_is_close_to_a_full_one(width: int, height: int, side: int, progressive: bool) -> None:
    # A photograph's spectrum, roughly: large shapes under fainter and fainter detail.
    coarse = Image.fromarray(p.noise(8, 8)).resize((width, height), Image.Resampling.BICUBIC)
    fine = p.noise(width, height).astype(int) // 8 - 16
    picture = np.clip(np.asarray(coarse).astype(int) + fine, 0, 255).astype(np.uint8)
    data = p.encode(picture, "JPEG", quality=90, progressive=progressive)
    scaled, full = (
        to_model_input(decode(data, spec).image, spec).astype(int)
        for spec in (PreprocessSpec(height=side, width=side, dct_scaling=dct) for dct in (True, False))
    )
    # What is left is the geometry: a scaled decode of 33.1 columns has 34, stretched over the whole width.
    assert np.abs(scaled - full).mean() < 5


@given(specs)
def test_a_spec_survives_being_stored(spec: PreprocessSpec) -> None:
    stored = PreprocessSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert stored == spec
    assert stored.fingerprint() == spec.fingerprint()


@given(specs, specs)
def test_fingerprints_differ_when_specs_do(one: PreprocessSpec, other: PreprocessSpec) -> None:
    assert (one.fingerprint() == other.fingerprint()) == (one == other)


grids = st.tuples(st.integers(1, 14), st.integers(1, 14)).map(
    lambda shape: np.random.default_rng(0).random(shape, dtype=np.float32)
)


@no_deadline
@given(grids, st.integers(1, 16_384), st.integers(1, 16_384), st.integers(1, 256))
def test_maps_keep_the_aspect_ratio(grid: np.ndarray, width: int, height: int, max_side: int) -> None:
    image = render_map(grid, (width, height), max_side=max_side)
    assert max(image.size) == max_side
    # Either side is within half a pixel of its exact length, or it is the least there is.
    for side, exact in zip(image.size, (width, height), strict=True):
        assert abs(side - exact * max_side / max(width, height)) <= 0.5 or side == 1
    laid = overlay(Image.new("RGB", fit((width, height), 50)), grid, (width, height), max_side=max_side)
    assert laid.size == image.size


numbers = st.floats(0, 1)


@settings(no_deadline, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(specs, st.lists(numbers, min_size=2, max_size=101), numbers, numbers, st.text(max_size=9))
def test_a_manifest_survives_being_stored_and_its_percentile_rises(
    tmp_path: Path, spec: PreprocessSpec, reference: list[float], one: float, other: float, text: str
) -> None:
    manifest = Manifest(
        name="m",
        version=1,
        method=text,
        recipe={"a": text},
        data={},
        preprocess=spec,
        fingerprint=spec.fingerprint(),
        grid=(3, 4),
        embedding_size=8,
        calibration={"x": one},
        reference=tuple(sorted(reference)),
        figures={"pcc": Figure(one, other, one)},
        sha256="0",
    )
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == manifest
    low, high = sorted((one, other))
    assert 0 <= manifest.percentile(low) <= manifest.percentile(high) <= 100
    assert dataclasses.asdict(manifest)["name"] == "m"
