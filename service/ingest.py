"""From a request to the bytes of its picture: counted as they stream, never more than the cap in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.errors import ClientGone, UnsupportedContent, UploadTimeout, UploadTooLarge
from service.multipart import OVERHEAD_BYTES, FilePart


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


async def read_upload(request: Request, limit: int, timeout_s: float) -> bytes:
    """The picture in a raw or multipart body, at most `limit` bytes.

    Raises UnsupportedContent, UploadTooLarge, MalformedUpload, MissingFile, UploadTimeout, ClientGone.
    """
    body = _body(request, limit)
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body.write(chunk)
    except TimeoutError as error:
        raise UploadTimeout("the upload did not arrive within the deadline") from error
    except ClientDisconnect as error:
        raise ClientGone("disconnected during the upload") from error
    return body.finish()


def _body(request: Request, limit: int) -> RawBody | FilePart:
    """Judge a body by its headers alone."""
    headers = request.headers
    coding = headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise UnsupportedContent(f"the body is encoded as {coding!r}; send the picture as it is")
    media_type, parameters = parse_options_header(headers.get("content-type"))
    multipart = media_type == b"multipart/form-data"
    if not (multipart or media_type.startswith(b"image/") or media_type == b"application/octet-stream"):
        found = repr(media_type.decode("latin-1")) if media_type else "missing"
        raise UnsupportedContent(
            "send multipart/form-data with a part named 'file', or the picture itself with Content-Type "
            f"image/jpeg, image/png, image/webp or application/octet-stream; the Content-Type is {found}"
        )
    stated = int(headers.get("content-length", 0))  # digits only: uvicorn's parser has seen to it
    if stated > (limit + OVERHEAD_BYTES if multipart else limit):
        raise UploadTooLarge(limit, stated)
    return FilePart(parameters.get(b"boundary", b""), limit) if multipart else RawBody(limit)


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
