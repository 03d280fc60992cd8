"""POST /v1/complexity/batch: many pictures in; each one's complexity, or its problem, out.

The body is read to its end before the answer begins, while its pictures are being scored: a client that sends all
before it reads would otherwise block on us while we block on it. So what is wrong with the body as a whole still
has a status of its own. After that a picture's error is that picture's.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from starlette.types import Receive, Scope, Send

from clicv2.errors import ImageError
from service import errors
from service.answering import Answering, complexity
from service.archives import ArchiveLimits, refuse_archive
from service.bulk import Batches, Bulk, Places
from service.decoding import off_loop
from service.errors import ClientGone, ServiceError
from service.ingest import read_items, unless_gone
from service.items import Item
from service.routes import examples
from service.routes.complexity import BINARY, REQUEST_ERRORS, SERVER_STATUSES
from service.routes.demands import Names, parameters, take_pictures, timeout_s
from service.routes.negotiation import negotiate
from service.routes.parts import Parts
from service.routes.problems import count, problem_document, request_id, responses
from service.schemas import Batch, BatchQuery

Form = Literal["json", "lines"]
NDJSON = "application/x-ndjson"
_OFFERS: dict[Form, str] = {"json": "application/json", "lines": NDJSON}
# A picture's end as it is sent, and whether it is a score.
_End = tuple[bytes, bool]


def routes(parts: Parts) -> APIRouter:
    settings, door, scorer, pool, metrics = parts.settings, parts.door, parts.scorer, parts.pool, parts.metrics
    router = APIRouter(tags=["complexity"])
    answering = Answering(scorer, pool, metrics)
    batches = Batches(settings.bulk_at_once)
    archive_limits = ArchiveLimits(settings.bulk_max_bytes, settings.max_upload_bytes, settings.bulk_max_items)

    @router.post(
        "/v1/complexity/batch",
        operation_id="score_batch",
        summary="Score many pictures",
        response_class=Response,
        responses={
            200: _OK,
            **responses(*REQUEST_ERRORS, errors.UploadTooLarge, errors.TooManyFiles, *SERVER_STATUSES),
        },
        openapi_extra={**_BODY, "parameters": parameters(settings.bulk_deadline_s)},
    )
    async def score_batch(request: Request, query: Annotated[BatchQuery, Query()]) -> Response:
        """Scores each picture of a form, a zip, a tar or a tar.gz by itself.

        The answer is 200 as soon as the upload is sound; an item that could not be scored has a `problem` in place
        of its `result`. With `Accept: application/x-ndjson` each item is a line, sent when it is done.
        """
        started = time.monotonic()
        deadline = started + timeout_s(request, settings.bulk_deadline_s)
        form = negotiate(request.headers.get("accept"), _OFFERS)
        names = Names(request, parts.idempotency)
        scorer.check_model(query.model_name)
        door.check()
        places = Places(door)

        async def work(place: int, item: Item) -> _End:
            try:
                return await answer(place, item), True
            except (ServiceError, ImageError) as error:
                count(error, metrics)
                problem = problem_document(request_id(request), error)
                return orjson.dumps({"index": place, "name": item.name, "problem": problem}), False

        async def answer(place: int, item: Item) -> bytes:
            if place:  # whoever let the request in has counted the first
                await take_pictures(request, 1)

            async def inside() -> bytes:
                began = time.monotonic()
                until = min(deadline, began + settings.deadline_s)  # as long as if it had come alone
                data = await off_loop(pool, until - time.monotonic(), item.read)
                refuse_archive(data)
                answered = await answering.answer(data, query, until, naming=names.at(place))
                result = complexity(answered, query, began).model_dump_json(exclude_none=True)
                return b'{"index":%d,"name":%s,"result":%s}' % (place, orjson.dumps(item.name), result.encode())

            return await places.enter(inside, deadline)

        with ExitStack() as inside:
            inside.enter_context(batches.entered())
            inside.enter_context(door.entered())
            complete = asyncio.Event()
            items = read_items(request, archive_limits, deadline, pool, complete)
            bulk = Bulk(items, complete, work, lanes=settings.bulk_lanes)
            bulk.start()
            try:
                await bulk.arrived()
                metrics.took("upload", time.monotonic() - started)
                if form == "json":
                    async with unless_gone(request):
                        return Response(await _as_json(bulk.ends()), media_type="application/json")
            except BaseException:
                await bulk.close()
                raise
            return _Lines(request, bulk, inside.pop_all())

    return router


class _Lines(Response):
    """Sends each end as it comes, and stops the rest when nobody listens any more."""

    media_type = NDJSON

    def __init__(self, request: Request, bulk: Bulk[_End], inside: ExitStack) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._request = request
        self._bulk = bulk
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        with self._inside:
            try:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async with unless_gone(self._request), aclosing(self._bulk.ends()) as ends:
                    async for _, (line, _) in ends:
                        await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            except ClientGone:
                pass
            finally:
                await self._bulk.close()


async def _as_json(ends: AsyncIterator[tuple[int, _End]]) -> bytes:
    items: dict[int, bytes] = {}
    scored = 0
    async for place, (item, good) in ends:
        items[place] = item
        scored += good
    counts = {"items": len(items), "scored": scored, "failed": len(items) - scored}
    listed = b",".join(items[place] for place in sorted(items))
    return b'{"items":[%s],"counts":%s}' % (listed, orjson.dumps(counts))


FILES_SCHEMA = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The pictures: as parts of a form, each named `file`, or as the files of an archive.",
        "content": {
            "multipart/form-data": {"schema": FILES_SCHEMA},
            "application/zip": BINARY,
            "application/x-tar": BINARY,
            "application/gzip": BINARY,
        },
    }
}
_OK: dict[str, Any] = {
    "model": Batch,
    "description": "Each picture's result or problem: in the order of the upload, or as NDJSON in that of their ends.",
    "content": {
        "application/json": {"examples": examples.named(one_good_and_one_damaged=examples.BATCH)},
        NDJSON: {
            "schema": {"type": "string", "description": "A `BatchItem` each line."},
            "example": "\n".join(orjson.dumps(item).decode() for item in examples.ITEMS) + "\n",
        },
    },
}
