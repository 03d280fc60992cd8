"""From bytes to the model's input, and to a preview that is as sharp as it is large."""

import numpy as np
import pytest
from pictures import encode
from PIL import Image

from clicv2.imaging import DEFAULT_LIMITS, decode, to_model_input
from clicv2.spec import PreprocessSpec
from service.decoding import decode as decode_upload

SPEC = PreprocessSpec(height=64, width=64)


@pytest.fixture(scope="module")
def stripes() -> bytes:
    """A large JPEG with stripes of 8 pixels: gone at the model's size, plain to see at a preview's."""
    columns = np.arange(2048) // 8 % 2 * 255
    return encode(np.broadcast_to(columns[None, :, None], (1024, 2048, 3)).astype(np.uint8), "JPEG")


def test_the_preview_is_sharp_and_the_models_input_is_what_it_was(stripes: bytes) -> None:
    decoded = decode_upload(stripes, SPEC, DEFAULT_LIMITS, preview_side=1024)
    assert decoded.preview is not None
    assert decoded.preview.size == (1024, 512)
    assert np.asarray(decoded.preview.convert("L")).std() > 100
    assert np.array_equal(decoded.pixels, to_model_input(decode(stripes, SPEC).image, SPEC))


def test_no_preview_unless_asked_for(stripes: bytes) -> None:
    decoded = decode_upload(stripes, SPEC, DEFAULT_LIMITS)
    assert decoded.preview is None
    assert decoded.size == (2048, 1024)


def test_a_small_picture_is_enlarged_from_what_there_is() -> None:
    decoded = decode_upload(encode(Image.new("RGB", (20, 10), "red"), "PNG"), SPEC, DEFAULT_LIMITS, preview_side=100)
    assert decoded.preview is not None
    assert decoded.preview.size == (100, 50)
