"""Jobs and outcomes as bytes, for a queue between processes. Little-endian; no pickle.

    job      "CJ" version:u8 height:u16 width:u16 channels:u8, then uint8 [H, W, C]
    answer   "CA" version:u8 model:u32 inference_s:f64 score:f64 entropy:f64 h:u16 w:u16 D:u32,
             then float32 [h, w] (heatmap) and float32 [D] (embedding)
    failure  "CF" version:u8 reason:u8, then the detail in UTF-8

Whoever changes a layout raises VERSION: during a roll-out both are in the queue, and each side
refuses what it cannot read.

A caller, who waits for a job's answer, has a name: <gateway>/<number>, and where the job is traced /<traceparent>
after it. The name is the end of the key under which a worker finds the job's pixels, so it learns the trace by it.
That is in no layout: to a release that does not know it a name is a name, which it hands on as it is, so that
gateways and workers of both find together, and a trace is no reason to refuse a job.
"""

import math
import re
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from clicv2.imaging import Pixels
from service.prediction import Prediction
from service.queue.protocol import Answer, Failure, Outcome, Reason

VERSION = 1

_JOB, _ANSWER, _FAILURE = b"CJ", b"CA", b"CF"
_PREFIX = struct.Struct("<2sB")
_SHAPE = struct.Struct("<HHB")
_NUMBERS = struct.Struct("<IdddHHI")
_REASON = struct.Struct("<B")
# A reason's code is its position: only ever append.
_REASONS = (Reason.DEAD, Reason.EXPIRED, Reason.UNAVAILABLE)
_SINGLE = np.dtype("<f4")
_TRACED = re.compile(rb"/([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})")
_TRACED_BYTES = len("/00-") + 32 + len("-") + 16 + len("-00")


class WireError(Exception):
    """These bytes are not what they should be, or of another version."""


def name_caller(gateway: str, number: int, trace: str) -> str:
    """Unique, as the gateway's name and its numbers are."""
    return f"{gateway}/{number}/{trace}" if trace else f"{gateway}/{number}"


def trace_of(pixels_key: bytes) -> str:
    """The traceparent of a job, by the key of its pixels; "" if it is not traced."""
    found = _TRACED.fullmatch(pixels_key[-_TRACED_BYTES:])
    return found[1].decode() if found else ""


def encode_pixels(pixels: Pixels) -> bytes:
    """uint8 [H, W, C] as a job's bytes."""
    values = np.ascontiguousarray(pixels).reshape(-1).data
    return b"".join((_PREFIX.pack(_JOB, VERSION), _SHAPE.pack(*pixels.shape), values))


def decode_pixels(data: bytes) -> Pixels:
    """uint8 [H, W, C], read-only, in the same memory. Raises WireError."""
    shape, pixels = _unpack(_SHAPE, _body(data, _JOB))
    return _array(pixels, np.dtype(np.uint8), shape)


def encode_outcome(outcome: Outcome) -> bytes:
    if isinstance(outcome, Failure):
        head = _PREFIX.pack(_FAILURE, VERSION) + _REASON.pack(_REASONS.index(outcome.reason))
        return head + outcome.detail.encode(errors="replace")
    one = outcome.prediction
    sizes = (*one.heatmap.shape, *one.embedding.shape)
    numbers = _NUMBERS.pack(one.version, outcome.inference_s, one.score, one.entropy, *sizes)
    tensors = (one.heatmap.astype(_SINGLE).tobytes(), one.embedding.astype(_SINGLE).tobytes())
    return b"".join((_PREFIX.pack(_ANSWER, VERSION), numbers, *tensors))


def decode_outcome(data: bytes) -> Outcome:
    """Raises WireError."""
    if data[:2] == _FAILURE:
        return _decode_failure(_body(data, _FAILURE))
    (version, inference_s, score, entropy, height, width, size), body = _unpack(_NUMBERS, _body(data, _ANSWER))
    split = height * width * _SINGLE.itemsize
    heatmap = _array(body[:split], _SINGLE, (height, width))
    embedding = _array(body[split:], _SINGLE, (size,))
    return Answer(Prediction(version, score, entropy, heatmap, embedding), inference_s)


def _decode_failure(body: memoryview) -> Failure:
    (code,), detail = _unpack(_REASON, body)
    if code >= len(_REASONS):
        raise WireError(f"a failure for the unknown reason {code}")
    try:
        return Failure(_REASONS[code], str(detail, "utf-8"))
    except UnicodeDecodeError as error:
        raise WireError(f"a failure whose detail is no text: {error}") from error


def _body(data: bytes, kind: bytes) -> memoryview:
    (found, version), body = _unpack(_PREFIX, memoryview(data))
    if found != kind:
        raise WireError(f"bytes that begin with {found!r} where {kind!r} should be")
    if version != VERSION:
        raise WireError(f"bytes of version {version}; this process reads version {VERSION}")
    return body


def _unpack(layout: struct.Struct, data: memoryview) -> tuple[tuple[Any, ...], memoryview]:
    if len(data) < layout.size:
        raise WireError(f"cut off: {len(data)} bytes where {layout.size} should be")
    return layout.unpack_from(data), data[layout.size :]


def _array(data: memoryview, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    array = np.frombuffer(data, np.uint8)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if array.size != size:
        raise WireError(f"{array.size} bytes of values where the shape {list(shape)} needs {size}")
    return array.view(dtype).reshape(shape)
