"""POST /v1/complexity: a picture in; its complexity out, and where it is complex."""

import time
from concurrent.futures import Executor
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from clicv2.imaging import MEDIA_TYPES
from service import rendering
from service.decoding import off_loop
from service.door import Door
from service.ingest import read_upload, unless_gone
from service.metrics import Metrics
from service.rendering import Png
from service.routes.negotiation import negotiate
from service.routes.problems import responses
from service.schemas import Complexity, ComplexityQuery, Grid, ImageFacts, ModelName, Rendering, Timings
from service.scoring import Scored, Scorer
from service.settings import Settings

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The picture, as a form's part named `file` or as the body itself.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            **dict.fromkeys((*MEDIA_TYPES, "application/octet-stream"), _BINARY),
        },
    }
}
_HEADERS = {
    "X-Complexity-Score": {"description": "The score.", "schema": {"type": "number"}},
    "X-Complexity-Percentile": {"description": "The percentile.", "schema": {"type": "number"}},
    "X-Complexity-Entropy": {"description": "The label-free measure.", "schema": {"type": "number"}},
}
_OK = {
    "model": Complexity,
    "description": "The complexity; with `Accept: image/png` the heatmap itself, the numbers in headers.",
    "content": {"image/png": _BINARY},
    "headers": _HEADERS,
}


def routes(door: Door, scorer: Scorer, pool: Executor, metrics: Metrics, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["complexity"])

    @router.post(
        "/v1/complexity",
        operation_id="score",
        summary="Score a picture",
        response_class=Response,
        responses={200: _OK, **responses(400, 406, 408, 413, 415, 422, 429, 500, 503, 504)},
        openapi_extra=_BODY,
    )
    async def score(request: Request, query: Annotated[ComplexityQuery, Query()]) -> Response:
        """How visually complex a picture is, from 0 to 1, and where, as a heatmap."""
        started = time.monotonic()
        deadline = started + settings.deadline_s
        form = negotiate(request.headers.get("accept"))
        door.check()
        data = await read_upload(request, settings.max_upload_bytes, settings.deadline_s)
        uploaded = time.monotonic()
        metrics.took("upload", uploaded - started)

        picture: Png | None = None
        async with unless_gone(request):
            with door.entered():
                preview_side = query.heatmap_size if query.heatmap == "overlay" else None
                scored = await scorer.score(data, deadline, preview_side=preview_side)
                answered = time.monotonic()
                if form == "png" or query.heatmap in ("png", "overlay"):
                    picture = await off_loop(
                        pool, deadline - answered, rendering.png, scored.prediction.heatmap, scored.decoded, query
                    )
                    metrics.took("render", time.monotonic() - answered)

        if form == "png" and picture:
            return _png_response(scored, picture)
        timings = _timings(scored, started, uploaded, answered)
        return _json_response(scored, _heatmap(scored, picture, query), timings)

    return router


def _heatmap(scored: Scored, picture: Png | None, query: ComplexityQuery) -> Grid | Rendering | None:
    if picture:
        return rendering.as_json(picture, query)
    return rendering.grid(scored.prediction.heatmap) if query.heatmap == "grid" else None


def _timings(scored: Scored, started: float, uploaded: float, answered: float) -> Timings:
    now = time.monotonic()
    return Timings(
        upload_s=round(uploaded - started, 6),
        decode_s=round(scored.decode_s, 6),
        queue_s=round(scored.queue_s, 6),
        inference_s=round(scored.inference_s, 6),
        render_s=round(now - answered, 6),
        total_s=round(now - started, 6),
    )


def _json_response(scored: Scored, heatmap: Grid | Rendering | None, timings: Timings) -> Response:
    decoded, prediction, manifest = scored.decoded, scored.prediction, scored.manifest
    answer = Complexity(
        id=scored.id,
        score=round(prediction.score, 6),
        percentile=round(manifest.percentile(prediction.score), 2),
        entropy=round(prediction.entropy, 6),
        model=ModelName(name=manifest.name, version=manifest.version),
        image=ImageFacts(
            width=decoded.width,
            height=decoded.height,
            format=decoded.format,
            sha256=decoded.sha256,
            frames=decoded.frames,
        ),
        heatmap=heatmap,
        timings=timings,
    )
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _png_response(scored: Scored, picture: Png) -> Response:
    prediction = scored.prediction
    headers = {
        "X-Complexity-Score": f"{prediction.score:.6f}",
        "X-Complexity-Percentile": f"{scored.manifest.percentile(prediction.score):.2f}",
        "X-Complexity-Entropy": f"{prediction.entropy:.6f}",
    }
    return Response(picture.data, headers=headers, media_type="image/png")
