"""What is kept of a picture once a model has seen it, and under which key.

    key    SHA-256 of: the picture's SHA-256, fingerprint of the preprocessing, the model's name, version and SHA-256
    value  "CR" version:u8 width:u32 height:u32 frames:u32 length:u8, then the format's name of that length,
           then the answer (`service.queue.wire`)

The options of a request are not in the key: heatmaps are drawn anew from the prediction, so all requests for a
picture share one entry. Nor are the limits on pictures, which guard the decoder; a hit needs none, except that an
overlay decodes the picture again, and then within the limits.

Which version will answer is not known before it has. A look-up goes by the one that answered last: once a new one
has answered, nothing that was kept matches any more, and what the old one said matches again when it is pinned.
So that a new version is noticed although every request is a hit, readiness has to be proved by a real answer
(`service.health`), and entries expire whether or not they are used.

Callers share what is kept. By `cache` in his answer somebody who has a picture can tell whether anybody had it
scored lately; whoever must not be told so has a service of his own.
"""

import asyncio
import hashlib
import logging
import struct
from dataclasses import dataclass
from typing import Literal

from clicv2.contract import Manifest
from service.cache.protocol import Store
from service.prediction import Prediction
from service.queue.protocol import Answer
from service.queue.wire import WireError, decode_outcome, encode_outcome

log = logging.getLogger(__name__)

# Of an answer: it was kept; a job of its own gave it; or the job of somebody who asked at the same time.
CacheState = Literal["hit", "miss", "shared"]

VERSION = 1

_MAGIC = b"CR"
_HEAD = struct.Struct("<2sBIIIB")
# Up to here 0.1 to 0.3 ms of the event loop; a thread costs as much before it has begun.
_ON_LOOP_BYTES = 128 << 10


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a caller allows.

    Attributes:
        find: to answer from what was kept.
        keep: to keep the answer for others.
    """

    find: bool = True
    keep: bool = True


ANY_USE = CacheUse()


@dataclass(frozen=True, slots=True)
class Facts:
    """A picture as it was understood; see `clicv2.imaging.Picture`."""

    width: int
    height: int
    format: str
    frames: int


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What an answer is made from, whatever its options."""

    facts: Facts
    prediction: Prediction


class ResultCache:
    """Keeps results in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, content: str, manifest: Manifest) -> Result | None:
        """What this version of the model said of the picture whose SHA-256 is `content`, if that is still known."""
        found = await self._store.get(key(content, manifest))
        if found is None:
            return None
        try:
            result = decode(found)
        except WireError as error:  # of another release, during a roll-out
            log.debug("a kept result cannot be read: %s", error)
            return None
        return result if result.prediction.version == manifest.version else None

    def keep(self, content: str, manifest: Manifest, result: Result) -> None:
        self._store.put(key(content, manifest), encode(result))

    async def close(self) -> None:
        await self._store.close()


async def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    if len(data) <= _ON_LOOP_BYTES:
        return hashlib.sha256(data).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())


def key(content: str, manifest: Manifest) -> bytes:
    """32 bytes. The model's own SHA-256 is in it for who exports a version again without raising its number."""
    parts = (content, manifest.fingerprint, manifest.name, str(manifest.version), manifest.sha256)
    return hashlib.sha256("\0".join(parts).encode()).digest()


def encode(result: Result) -> bytes:
    facts = result.facts
    name = facts.format.encode("ascii")
    head = _HEAD.pack(_MAGIC, VERSION, facts.width, facts.height, facts.frames, len(name))
    return b"".join((head, name, encode_outcome(Answer(result.prediction, 0.0))))


def decode(data: bytes) -> Result:
    """Raises WireError."""
    if len(data) < _HEAD.size:
        raise WireError(f"cut off: {len(data)} bytes where {_HEAD.size} should be")
    magic, version, width, height, frames, length = _HEAD.unpack_from(data)
    if (magic, version) != (_MAGIC, VERSION):
        raise WireError(f"bytes that begin with {data[:3]!r} where {_MAGIC!r} and version {VERSION} should be")
    end = _HEAD.size + length
    answer = decode_outcome(data[end:])
    if not isinstance(answer, Answer):
        raise WireError("a failure where an answer should be")
    try:
        name = data[_HEAD.size : end].decode("ascii")
    except UnicodeDecodeError as error:
        raise WireError("a format whose name is no text") from error
    return Result(Facts(width, height, name, frames), answer.prediction)


def entry_bytes(manifest: Manifest) -> int:
    """How large a value is, whatever the picture."""
    rows, columns = manifest.grid
    return 100 + 4 * (rows * columns + manifest.embedding_size)
