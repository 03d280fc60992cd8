"""From a request to the bytes of its pictures: counted as they stream, never more than the caps in memory."""

import asyncio
import time
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.archives import Archive, ArchiveLimits, Gunzip, TarStream, ZipBody
from service.errors import (
    ClientGone,
    InvalidParameter,
    MalformedUpload,
    TooManyFiles,
    UnsupportedContent,
    UploadTimeout,
    UploadTooLarge,
)
from service.items import Item
from service.multipart import OVERHEAD_BYTES, FilePart, FileParts
from service.schemas import JsonPicture

JSON = b"application/json"
MULTIPART = b"multipart/form-data"
_ZIP = frozenset({b"application/zip", b"application/x-zip-compressed"})
_TAR = frozenset({b"application/x-tar", b"application/tar", b"application/x-gtar"})
_TAR_GZIP = frozenset(
    {b"application/gzip", b"application/x-gzip", b"application/x-tgz", b"application/x-compressed-tar"}
)
# What is smaller is parsed where it is: a way into a thread and back costs more.
_SMALL = 64 * 1024


@dataclass(frozen=True, slots=True)
class Link:
    """A picture that is somewhere else."""

    url: str


class RawBody:
    """A body that is the picture; the counterpart of `FilePart`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._received = 0
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received > self._limit:
            raise UploadTooLarge(self._limit)
        self._chunks.append(chunk)

    def finish(self) -> bytes:
        return b"".join(self._chunks)


async def read_upload(request: Request, limit: int, timeout_s: float, pool: Executor) -> bytes | Link:
    """The picture in a raw, multipart or JSON body, at most `limit` bytes.

    Raises UnsupportedContent, UploadTooLarge, MalformedUpload, MissingFile, InvalidParameter, UploadTimeout,
    ClientGone.
    """
    media_type, parameters = _media_type(request)
    body = _body(request, media_type, parameters, limit)
    async with _arriving(timeout_s):
        async for chunk in request.stream():
            body.write(chunk)
    data = body.finish()
    if media_type != JSON:
        return data
    if len(data) <= _SMALL:
        return parse_json(data, limit)
    return await asyncio.get_running_loop().run_in_executor(pool, parse_json, data, limit)


async def read_items(
    request: Request, limits: ArchiveLimits, deadline: float, pool: Executor, complete: asyncio.Event
) -> AsyncIterator[Item]:
    """The pictures of a form or an archive, each as soon as it has arrived; `complete` is set when the body has.

    Who takes them slowly makes the sender wait, but only until `deadline`, an instant of the monotonic clock. What
    is wrong with the body as a whole is found before `complete`.

    Raises UnsupportedContent, UploadTooLarge, MalformedUpload, MissingFile, TooManyFiles, UploadTimeout, ClientGone.
    """
    media_type, parameters = _media_type(request)
    archive = _archive(media_type, parameters, limits)
    gunzip = Gunzip() if media_type in _TAR_GZIP else None
    stated = _stated_length(request)
    if stated > limits.max_bytes + OVERHEAD_BYTES:
        raise UploadTooLarge(limits.max_bytes, stated)
    arrived, received = 0, 0
    async for chunk in _chunks(request, deadline):
        received += len(chunk)
        if received > limits.max_bytes + OVERHEAD_BYTES:
            raise UploadTooLarge(limits.max_bytes)
        pieces: Iterable[bytes] = gunzip.write(chunk) if gunzip else (chunk,)
        for piece in pieces:
            for item in archive.write(piece):
                arrived += 1
                _check_count(arrived, limits)
                yield item
            await asyncio.sleep(0)  # one chunk may hold a thousand times as much as it weighs
    if gunzip:
        gunzip.finish()
    rest = await asyncio.get_running_loop().run_in_executor(pool, archive.finish)
    complete.set()
    for item in rest:
        yield item


def is_form(request: Request) -> bool:
    """Whether the body says that it is multipart/form-data."""
    return parse_options_header(request.headers.get("content-type"))[0] == MULTIPART


def parse_json(data: bytes, limit: int) -> bytes | Link:
    """The picture of a JSON body; CPU-bound if it is large.

    Raises MalformedUpload, InvalidParameter, UploadTooLarge.
    """
    try:
        found = JsonPicture.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        if first["type"] == "json_invalid":
            raise MalformedUpload(f"the body is no JSON: {first['msg']}") from None
        raise InvalidParameter(where, first["msg"]) from None
    if (found.image is None) == (found.url is None):
        raise InvalidParameter("body", "give either 'image' or 'url'")
    if found.url is not None:
        return Link(found.url)
    return _from_base64(found.image or "", limit)


def _from_base64(text: str, limit: int) -> bytes:
    """Also of a data: URL, as browsers make them."""
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise InvalidParameter("image", "a data: URL must be in base64")
    try:
        picture = a2b_base64(text, strict_mode=True)
    except (NotBase64, ValueError):  # ValueError: not even ASCII
        detail = "not base64: the alphabet is A-Z, a-z, 0-9, + and /, padded with =, in one line"
        raise InvalidParameter("image", detail) from None
    if len(picture) > limit:
        raise UploadTooLarge(limit, len(picture))
    return picture


def _media_type(request: Request) -> tuple[bytes, dict[bytes, bytes]]:
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise UnsupportedContent(f"the body is encoded as {coding!r}; send it as it is")
    return parse_options_header(request.headers.get("content-type"))


def _stated_length(request: Request) -> int:
    return int(request.headers.get("content-length", 0))  # digits only: uvicorn's parser has seen to it


def _body(request: Request, media_type: bytes, parameters: dict[bytes, bytes], limit: int) -> RawBody | FilePart:
    """Judge a body by its headers alone."""
    multipart = media_type == MULTIPART
    most = limit
    if multipart:
        most = limit + OVERHEAD_BYTES
    elif media_type == JSON:
        most = limit * 4 // 3 + OVERHEAD_BYTES
    elif not (media_type.startswith(b"image/") or media_type == b"application/octet-stream"):
        raise UnsupportedContent(
            "send multipart/form-data with a part named 'file', or the picture itself with Content-Type "
            "image/jpeg, image/png, image/webp or application/octet-stream, or application/json with a member "
            f"'image' or 'url'; the Content-Type is {_found(media_type)}"
        )
    stated = _stated_length(request)
    if stated > most:
        raise UploadTooLarge(limit, stated)
    return FilePart(parameters.get(b"boundary", b""), limit) if multipart else RawBody(most)


def _archive(media_type: bytes, parameters: dict[bytes, bytes], limits: ArchiveLimits) -> Archive:
    if media_type == MULTIPART:
        return FileParts(parameters.get(b"boundary", b""), limits.max_entry_bytes)
    if media_type in _ZIP:
        return ZipBody(limits)
    if media_type in _TAR or media_type in _TAR_GZIP:
        return TarStream(limits)
    raise UnsupportedContent(
        "send multipart/form-data with parts named 'file', or an archive with Content-Type application/zip, "
        f"application/x-tar or application/gzip (a tar.gz); the Content-Type is {_found(media_type)}"
    )


def _found(media_type: bytes) -> str:
    return repr(media_type.decode("latin-1")) if media_type else "missing"


def _check_count(count: int, limits: ArchiveLimits) -> None:
    if count > limits.max_files:
        raise TooManyFiles(limits.max_files)


async def _chunks(request: Request, deadline: float) -> AsyncIterator[bytes]:
    """The body as it comes. The time between two of them is the taker's, who must not be interrupted for it."""
    stream = request.stream()
    while True:
        async with _arriving(deadline - time.monotonic()):
            chunk = await anext(stream, None)
        if chunk is None:
            return
        yield chunk


@asynccontextmanager
async def _arriving(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise UploadTimeout("the upload did not arrive within the deadline") from error
    except ClientDisconnect as error:
        raise ClientGone("disconnected during the upload") from error


@asynccontextmanager
async def unless_gone(request: Request) -> AsyncIterator[None]:
    """Cancel what is done inside when the caller disconnects. Raises ClientGone then. The body must have been read."""
    task = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task:
            task.cancel()

    watcher = asyncio.create_task(watch(), name="watch for disconnect")
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        if task:
            task.uncancel()
        raise ClientGone("disconnected while waiting") from None
    finally:
        watcher.cancel()
