"""POST /v1/complexity: a picture in; its complexity out, and where it is complex."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from clicv2 import errors as image_errors
from clicv2.imaging import MEDIA_TYPES
from service import errors
from service.answering import Answering, complexity
from service.cache.results import digest
from service.errors import UrlInputDisabled
from service.ingest import Link, read_upload, unless_gone
from service.rendering import Rendered
from service.routes import examples
from service.routes.conditional import (
    CACHE_STATUS,
    CONDITIONS,
    VALIDATORS,
    cache_status,
    cache_use,
    etag,
    has_it,
    not_modified,
    validators,
)
from service.routes.demands import Names, parameters, timeout_s
from service.routes.negotiation import OFFERS, negotiate
from service.routes.parts import Parts
from service.routes.problems import responses
from service.schemas import Complexity, ComplexityQuery, JsonPicture
from service.scoring import Scored

# What can be wrong with a picture, and with the request for it.
PICTURE_ERRORS = (image_errors.Empty, image_errors.Unsupported, image_errors.Corrupt, image_errors.TooLarge)
REQUEST_ERRORS = (
    errors.NotAcceptable,
    errors.UnsupportedContent,
    errors.MalformedUpload,
    errors.MissingFile,
    errors.UploadTimeout,
    errors.UnknownModel,
    errors.InvalidParameter,
    errors.KeyReused,
)
# And with us, or with how many others ask: every error of these statuses.
SERVER_STATUSES = (429, 500, 503, 504)
_URL_ERRORS = (errors.UrlInputDisabled, errors.InvalidUrl, errors.ForbiddenUrl, errors.FetchFailed)

BINARY = {"schema": {"type": "string", "format": "binary"}}
_HEADERS = {
    "X-Complexity-Score": {"description": "The score.", "schema": {"type": "number"}, "example": 0.412345},
    "X-Complexity-Percentile": {"description": "The percentile.", "schema": {"type": "number"}, "example": 83.61},
    "X-Complexity-Entropy": {
        "description": "The label-free measure.",
        "schema": {"type": "number"},
        "example": 0.537812,
    },
}
_OK = {
    "model": Complexity,
    "description": "The complexity; with `Accept: image/png` or `image/webp` the heatmap itself, and the numbers in "
    "headers.",
    "content": {
        "application/json": {
            "examples": examples.named(
                scores=examples.COMPLEXITY,
                with_the_heatmap_as_numbers=examples.WITH_GRID,
                with_the_heatmap_as_a_picture=examples.WITH_PICTURE,
            )
        },
        "image/png": BINARY,
        "image/webp": BINARY,
    },
    "headers": {**VALIDATORS, **CACHE_STATUS, **_HEADERS},
}


def routes(parts: Parts) -> APIRouter:
    settings, door, scorer = parts.settings, parts.door, parts.scorer
    router = APIRouter(tags=["complexity"])
    answering = Answering(scorer, parts.pool, parts.metrics)

    @router.post(
        "/v1/complexity",
        operation_id="score",
        summary="Score a picture",
        response_class=Response,
        responses={
            200: _OK,
            304: {"description": "The caller has this answer: its `ETag` is in If-None-Match.", "headers": VALIDATORS},
            **responses(*PICTURE_ERRORS, errors.UploadTooLarge, *REQUEST_ERRORS, *_URL_ERRORS, *SERVER_STATUSES),
        },
        openapi_extra={**_BODY, "parameters": [*parameters(settings.deadline_s), *CONDITIONS]},
    )
    async def score(request: Request, query: Annotated[ComplexityQuery, Query()]) -> Response:
        """How visually complex a picture is, from 0 to 1, and where, as a heatmap."""
        started = time.monotonic()
        deadline = started + timeout_s(request, settings.deadline_s)
        form = negotiate(request.headers.get("accept"), OFFERS)
        names = Names(request, parts.idempotency)
        use = cache_use(request.headers.getlist("cache-control"))
        known = request.headers.getlist("if-none-match")
        scorer.check_model(query.model_name)
        door.check()
        data = await read_upload(request, settings.max_upload_bytes, deadline - started, parts.pool)
        async with unless_gone(request):
            if isinstance(data, Link):
                if parts.fetch is None:
                    raise UrlInputDisabled("this server takes no pictures by URL: send the picture itself")
                data = await parts.fetch(data.url, deadline)
            parts.metrics.took("upload", time.monotonic() - started)
            if known and use.find and has_it(known, tag := etag(await digest(data), scorer.manifest, form, query)):
                return not_modified(tag)
            with door.entered():
                answered = await answering.answer(
                    data, query, deadline, as_picture=None if form == "json" else form, naming=names.at(), use=use
                )
        scored = answered.scored
        tag = etag(scored.decoded.sha256, scored.manifest, form, query)
        if has_it(known, tag):
            return not_modified(tag)
        headers = {**validators(tag), **cache_status(scored.cache)}
        if form != "json" and answered.picture:
            return _picture_response(scored, answered.picture, headers)
        document = complexity(answered, query, started)
        return Response(document.model_dump_json(exclude_none=True), headers=headers, media_type="application/json")

    return router


def _only(member: str, **constraints: object) -> dict[str, Any]:
    """For OpenAPI: JSON with this member and not the other."""
    members: dict[str, Any] = JsonPicture.model_json_schema()["properties"]
    told = {"type": "string", "description": members[member]["description"], **constraints}
    absent = {name: {"type": "null"} for name in members if name != member}
    properties = {member: told, **absent}
    return {"type": "object", "required": [member], "properties": properties, "additionalProperties": False}


# As `service.ingest` reads it.
_BASE64 = "^(data:[^,]*;base64,)?([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The picture: as a form's part named `file`, as the body itself, or within JSON.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            **dict.fromkeys((*MEDIA_TYPES, "application/octet-stream"), BINARY),
            "application/json": {
                "schema": {"oneOf": [_only("image", pattern=_BASE64), _only("url", maxLength=2048)]},
                "examples": examples.named(
                    the_picture_in_base64={"image": examples.PIXEL},
                    a_url={
                        "url": "https://upload.wikimedia.org/wikipedia/commons/4/47/PNG_transparency_demonstration_1.png"
                    },
                ),
            },
        },
    }
}


def _picture_response(scored: Scored, picture: Rendered, headers: dict[str, str]) -> Response:
    prediction = scored.prediction
    headers = headers | {
        "X-Complexity-Score": f"{prediction.score:.6f}",
        "X-Complexity-Percentile": f"{scored.manifest.percentile(prediction.score):.2f}",
        "X-Complexity-Entropy": f"{prediction.entropy:.6f}",
    }
    return Response(picture.data, headers=headers, media_type=picture.media_type)
