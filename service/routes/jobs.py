"""/v1/jobs: many pictures that nobody waits for. Their progress as events, their results by page."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from secrets import token_hex
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from service import errors
from service.archives import ArchiveLimits
from service.errors import (
    ClientGone,
    Draining,
    InvalidParameter,
    JobsFull,
    JobShareTaken,
    MalformedUpload,
    ServiceError,
    TooManyFiles,
    UploadTimeout,
    UploadTooLarge,
    UrlInputDisabled,
)
from service.ingest import read_items
from service.jobs.intake import Intake, result_bytes
from service.jobs.parts import Jobs
from service.jobs.protocol import Draft, Facts, JobLimits
from service.jobs.webhook import check
from service.metrics import Metrics
from service.routes import examples, job_examples
from service.routes.batch import FILES_SCHEMA
from service.routes.complexity import BINARY, SERVER_STATUSES
from service.routes.demands import caller_id, idempotency_key, parameters, take_pictures, timeout_s
from service.routes.job_events import EVENT_STREAM, EVENTS, LAST_EVENT_PARAMETER, EventStream, events_after, last_event
from service.routes.negotiation import negotiate
from service.routes.parts import Parts
from service.routes.problems import request_id, responses
from service.routes.under_path import root_path
from service.schemas import JobCounts, JobFacts, JobPage, JobPageQuery, JobQuery, UrlList, WebhookFacts

# Of a URL in JSON: with its quotes and escapes.
_URL_BYTES = 3 * 2048

_JobId = Annotated[
    str, Path(description="As POST /v1/jobs told it.", max_length=64, json_schema_extra={"example": job_examples.ID})
]


def routes(parts: Parts, jobs: Jobs) -> APIRouter:
    router = APIRouter(tags=["jobs"])
    store, limits, door = jobs.store, jobs.limits, parts.door
    uploads = _Counted("job-uploads", limits.uploads, limits)
    streams = _Counted("event-streams", limits.streams, limits)
    archive_limits = ArchiveLimits(limits.max_bytes, parts.settings.max_upload_bytes, limits.max_items)

    def owner_of(request: Request) -> str:
        return caller_id(request) if jobs.by_key else ""

    @router.post(
        "/v1/jobs",
        operation_id="create_job",
        summary="Score many pictures later",
        status_code=202,
        response_class=Response,
        responses={202: _ACCEPTED, **responses(*_UPLOAD_ERRORS, *SERVER_STATUSES)},
        openapi_extra={**_BODY, "parameters": parameters(limits.upload_s)},
    )
    async def create_job(request: Request, query: Annotated[JobQuery, Query()]) -> Response:
        """Takes the pictures of a form, a zip, a tar, a tar.gz, or of URLs, and answers as soon as they are there.

        What is wrong with the upload as a whole is this answer; what is wrong with a picture is in its result. The jobs
        of one API key may take a part of what all may: beyond it the answer is 429 with the `limit` `job-share`.
        """
        started = time.monotonic()
        deadline = started + timeout_s(request, limits.upload_s)
        key, owner = idempotency_key(request), owner_of(request)
        slot = None if key is None else hashlib.sha256(f"{len(owner)}:{owner}:{key}".encode()).hexdigest()
        parts.scorer.check_model(query.model_name)
        if query.webhook is not None:
            check(query.webhook, jobs.webhooks)
        by_url = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        if by_url and parts.fetch is None:
            raise UrlInputDisabled("this server takes no pictures by URL: send the pictures themselves")
        door.check()
        options = query.model_dump_json(exclude={"webhook"})
        room = result_bytes(query, parts.scorer.manifest)
        draft = Draft(token_hex(16), owner, options, request_id(request), query.webhook, room)
        with uploads.entered(owner), door.entered():
            earlier = await store.begin(draft, slot)
            try:
                intake = Intake(store, jobs.runner, parts.pool, draft, deadline, earlier)
                if by_url:
                    for url in await _read_urls(request, limits.max_items, deadline):
                        await intake.take_url(url)
                else:
                    await intake.take(read_items(request, archive_limits, deadline, parts.pool, asyncio.Event()))
                parts.metrics.took("upload", time.monotonic() - started)
                if earlier is None:  # whoever let the request in has counted the first
                    await take_pictures(request, intake.count - 1)
                job_id = await intake.submit(slot)
            except BaseException:
                if earlier is None:
                    with suppress(ServiceError):  # else its time runs out
                        await store.forget(draft.id, owner)
                raise
            page = await store.look(job_id, owner)
        jobs.runner.wake()
        document = _described(page.facts, durable=store.lasting).model_dump_json(exclude_none=True)
        return Response(document, 202, {"Location": f"/v1/jobs/{job_id}"}, "application/json")

    @router.get(
        "/v1/jobs/{job_id}",
        operation_id="job",
        summary="How a job stands, and its results",
        response_class=Response,
        responses={200: _PAGE, **responses(*_JOB_ERRORS, *_SERVER_STATUSES)},
    )
    async def job(request: Request, job_id: _JobId, query: Annotated[JobPageQuery, Query()]) -> Response:
        """Results come by page, in the order in which they were done, also while the job runs."""
        limit = min(query.limit, limits.max_page)
        page = await store.look(job_id, owner_of(request), query.offset, limit)
        facts = _described(page.facts, durable=store.lasting).model_dump_json(exclude_none=True).encode()
        after = query.offset + len(page.results)
        more = limit > 0 and after < page.facts.scored + page.facts.failed
        path = f"{root_path(request.scope)}/v1/jobs/{job_id}"
        following = f',"next":"{path}?offset={after}&limit={limit}"' if more else ""
        where = f'{{"offset":{query.offset}{following}}}'.encode()
        body = b'%s,"results":[%s],"page":%s}' % (facts[:-1], b",".join(page.results), where)
        return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")

    @router.get(
        "/v1/jobs/{job_id}/events",
        operation_id="job_events",
        summary="A job's progress",
        response_class=Response,
        responses={
            200: EVENTS,
            204: {"description": "The job has ended, and Last-Event-ID is its last event: a browser stops asking."},
            **responses(*_JOB_ERRORS, errors.NotAcceptable, *_SERVER_STATUSES),
        },
        openapi_extra={"parameters": [LAST_EVENT_PARAMETER]},
    )
    async def job_events(request: Request, job_id: _JobId) -> Response:
        """Server-sent events: `job` at first; `item` for each picture that has its result; `end`, and that is all.

        `Last-Event-ID` goes on after that event, at any gateway. A stream that ends without `end` is worth coming
        back to: the process has been told to end, or what holds the jobs is out of reach.
        """
        after = last_event(request)
        negotiate(request.headers.get("accept"), {"events": EVENT_STREAM})
        owner = owner_of(request)
        if door.draining:
            raise Draining
        with ExitStack() as inside:
            inside.enter_context(streams.entered(owner))
            facts = (await store.look(job_id, owner)).facts
            last = facts.scored + facts.failed + facts.ended
            if facts.ended and after >= last:
                return Response(status_code=204)
            inside.enter_context(_observed(parts.metrics))
            events = events_after(jobs, door, facts, owner, min(after, last))
            return EventStream(request, events, inside.pop_all())

    @router.delete(
        "/v1/jobs/{job_id}",
        operation_id="forget_job",
        summary="Cancel and forget a job",
        status_code=204,
        response_class=Response,
        responses={204: {"description": "It is forgotten."}, **responses(*_JOB_ERRORS, *_SERVER_STATUSES)},
    )
    async def forget_job(request: Request, job_id: _JobId) -> Response:
        """Also its results, and what was uploaded; no picture of it is begun any more, and no webhook is sent."""
        await store.forget(job_id, owner_of(request))
        return Response(status_code=204)

    return router


class _Counted:
    """Lets in as many at once as are allowed, and of one owner as many as are his share."""

    def __init__(self, reason: str, capacity: int, limits: JobLimits) -> None:
        self._reason = reason
        self._capacity = capacity
        self._limits = limits
        self._inside: Counter[str] = Counter()

    @contextmanager
    def entered(self, owner: str) -> Iterator[None]:
        """Raises JobsFull, JobShareTaken."""
        if self._inside.total() >= self._capacity:
            raise JobsFull(self._reason, self._capacity)
        share = self._limits.most(self._capacity, owner)
        if self._inside[owner] >= share:
            raise JobShareTaken(self._reason, share)
        self._inside[owner] += 1
        try:
            yield
        finally:
            self._inside[owner] -= 1
            if not self._inside[owner]:
                del self._inside[owner]  # else every key that was ever used


@contextmanager
def _observed(metrics: Metrics) -> Iterator[None]:
    metrics.event_stream(True)
    try:
        yield
    finally:
        metrics.event_stream(False)


def _described(facts: Facts, *, durable: bool) -> JobFacts:
    counts = JobCounts(items=facts.items, scored=facts.scored, failed=facts.failed, left=facts.left)
    hook = facts.hook and WebhookFacts(state=facts.hook, attempts=facts.hook_attempts, detail=facts.hook_detail or None)
    return JobFacts(
        id=facts.id,
        status=facts.status,
        counts=counts,
        created_at=_instant(facts.created_at),
        ended_at=None if facts.ended_at is None else _instant(facts.ended_at),
        expires_at=_instant(facts.expires_at),
        durable=durable,
        webhook=hook or None,
    )


def _instant(unix_s: float) -> datetime:
    return datetime.fromtimestamp(round(unix_s, 3), UTC)


async def _read_urls(request: Request, max_urls: int, deadline: float) -> list[str]:
    """Of a JSON body. Raises MalformedUpload, InvalidParameter, TooManyFiles, UploadTooLarge, UploadTimeout,
    ClientGone."""
    most = max_urls * _URL_BYTES
    body = bytearray()
    async with _arriving(deadline - time.monotonic()):
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise UploadTooLarge(most)
    try:
        urls = UrlList.model_validate_json(bytes(body)).urls
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise MalformedUpload(f"the body is no JSON: {first['msg']}") from None
        raise InvalidParameter(".".join(map(str, first["loc"])) or "body", first["msg"]) from None
    if len(urls) > max_urls:
        raise TooManyFiles(max_urls)
    return urls


@asynccontextmanager
async def _arriving(timeout_s: float) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise UploadTimeout("the upload did not arrive within the deadline") from error
    except ClientDisconnect as error:
        raise ClientGone("disconnected during the upload") from error


_UPLOAD_ERRORS = (
    errors.UnsupportedContent,
    errors.MalformedUpload,
    errors.MissingFile,
    errors.UploadTooLarge,
    errors.TooManyFiles,
    errors.UploadTimeout,
    errors.UnknownModel,
    errors.InvalidParameter,
    errors.KeyReused,
    errors.UrlInputDisabled,
    errors.WebhooksDisabled,
    errors.InvalidUrl,
    errors.ForbiddenUrl,
)
_JOB_ERRORS = (errors.UnknownJob, errors.InvalidParameter)
_SERVER_STATUSES = (429, 500, 503)

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The pictures: as parts of a form, each named `file`, as the files of an archive, or by URL.",
        "content": {
            "multipart/form-data": {"schema": FILES_SCHEMA},
            "application/zip": BINARY,
            "application/x-tar": BINARY,
            "application/gzip": BINARY,
            "application/json": {
                "schema": UrlList.model_json_schema(),
                "examples": examples.named(two_urls=job_examples.URLS),
            },
        },
    }
}
_ACCEPTED: dict[str, Any] = {
    "model": JobFacts,
    "description": "All pictures are there, and the job waits for its turn.",
    "content": {"application/json": {"examples": examples.named(a_job_with_a_webhook=job_examples.BEGUN)}},
    "headers": {
        "Location": {
            "description": "Path of the job.",
            "schema": {"type": "string"},
            "example": f"/v1/jobs/{job_examples.ID}",
        }
    },
}
_PAGE: dict[str, Any] = {
    "model": JobPage,
    "description": "How the job stands, and some of its results.",
    "content": {
        "application/json": {
            "examples": examples.named(
                done=job_examples.DONE, a_page_of_two=job_examples.FIRST_PAGE, running=job_examples.RUNNING
            )
        }
    },
}
