from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.prediction import Prediction
from service.queue import wire
from service.queue.protocol import Answer, Failure, Outcome, Reason
from service.queue.wire import WireError

SINGLES = st.floats(width=32, allow_nan=False)
PIXELS = arrays.arrays(np.uint8, st.tuples(st.integers(0, 9), st.integers(0, 9), st.just(3)))
PREDICTIONS = st.builds(
    Prediction,
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.floats(0, 1),
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5), elements=SINGLES),
    arrays.arrays(np.float32, st.integers(0, 9), elements=SINGLES),
)
FAILURES = st.builds(Failure, st.sampled_from(Reason), st.text(st.characters(exclude_categories=["Cs"])))
OUTCOMES = st.one_of(st.builds(Answer, PREDICTIONS, st.floats(0, 1e6)), FAILURES)


@given(PIXELS)
def test_pixels_come_back(pixels: np.ndarray) -> None:
    assert np.array_equal(wire.decode_pixels(wire.encode_pixels(pixels)), pixels)


def test_pixels_of_any_layout_in_memory_come_back() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)[::-2, ::3]
    assert np.array_equal(wire.decode_pixels(wire.encode_pixels(pixels)), pixels)


@given(OUTCOMES)
def test_outcomes_come_back(outcome: Outcome) -> None:
    back = wire.decode_outcome(wire.encode_outcome(outcome))
    if isinstance(outcome, Failure):
        assert back == outcome
        return
    assert isinstance(back, Answer)
    assert back.inference_s == outcome.inference_s
    before, after = outcome.prediction, back.prediction
    assert (after.version, after.score, after.entropy) == (before.version, before.score, before.entropy)
    for name in ("heatmap", "embedding"):
        assert getattr(after, name).dtype == np.float32
        assert np.array_equal(getattr(after, name), getattr(before, name))


@given(st.one_of(PIXELS.map(wire.encode_pixels), OUTCOMES.map(wire.encode_outcome)), st.data())
def test_changed_bytes_raise_nothing_else(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 3))):
        changed[draw.draw(st.integers(0, len(changed) - 1))] = draw.draw(st.integers(0, 255))
    changed = changed[: draw.draw(st.integers(0, len(changed)))] + draw.draw(st.binary(max_size=3))
    for decode in (wire.decode_pixels, wire.decode_outcome):
        with suppress(WireError):
            decode(bytes(changed))


@given(st.binary(max_size=100))
def test_foreign_bytes_raise_nothing_else(data: bytes) -> None:
    for decode in (wire.decode_pixels, wire.decode_outcome):
        with pytest.raises(WireError):
            decode(data)


def test_another_version_is_named() -> None:
    data = bytearray(wire.encode_outcome(Failure(Reason.DEAD, "")))
    data[2] = 2
    with pytest.raises(WireError, match="version 2; this process reads version 1"):
        wire.decode_outcome(bytes(data))


def test_the_layout_is_what_the_documentation_says() -> None:
    """Bytes that are in the queue while a new release is rolled out: change them only with the version."""
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    assert wire.encode_pixels(pixels).hex() == "434a010100020003010203040506"
    prediction = Prediction(7, 0.5, 0.25, np.ones((1, 2), np.float32), np.zeros(1, np.float32))
    assert wire.encode_outcome(Answer(prediction, 2.0)).hex() == (
        "434101" "07000000" "0000000000000040" "000000000000e03f" "000000000000d03f" "0100" "0200" "01000000"
        "0000803f" "0000803f" "00000000"
    )  # fmt: skip
    codes = {Reason.DEAD: "00", Reason.EXPIRED: "01", Reason.UNAVAILABLE: "02"}
    for reason in Reason:
        assert wire.encode_outcome(Failure(reason, "é")).hex() == "434601" + codes[reason] + "c3a9"
