"""POST /v1/compare: pictures side by side: their ranks, how far they are apart, and where."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import combinations
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from clicv2.errors import ImageError
from service import errors, rendering
from service.answering import Answered, Answering, image_facts
from service.archives import ArchiveLimits
from service.bulk import Batches, Bulk, Places
from service.decoding import off_loop
from service.errors import MissingFile, NotAcceptable, ServiceError, Unavailable, UnsupportedContent
from service.ingest import is_form, read_items, unless_gone
from service.items import Item
from service.rendering import PictureForm, Rendered
from service.routes import examples
from service.routes.complexity import BINARY, PICTURE_ERRORS, REQUEST_ERRORS, SERVER_STATUSES
from service.routes.demands import Names, parameters, take_pictures, timeout_s
from service.routes.negotiation import OFFERS, negotiate
from service.routes.parts import Parts
from service.routes.problems import count, problem_response, request_id, responses
from service.schemas import (
    ComparedPicture,
    CompareQuery,
    Comparison,
    Difference,
    DifferenceGrid,
    DifferenceRendering,
    ModelName,
    Options,
)


class _PictureFailed(Exception):
    """One of the pictures cannot be scored; there is nothing to compare then."""

    def __init__(self, place: int, name: str, error: Exception) -> None:
        super().__init__()
        self.place = {"index": place, "name": name}
        self.error = error


def routes(parts: Parts) -> APIRouter:
    settings, door, scorer, pool, metrics = parts.settings, parts.door, parts.scorer, parts.pool, parts.metrics
    router = APIRouter(tags=["complexity"])
    answering = Answering(scorer, pool, metrics)
    comparisons = Batches(settings.bulk_at_once)
    most = settings.bulk_max_compared
    form_limits = ArchiveLimits(most * settings.max_upload_bytes, settings.max_upload_bytes, most)

    @router.post(
        "/v1/compare",
        operation_id="compare",
        summary="Compare pictures",
        response_class=Response,
        responses={
            200: _OK,
            **responses(*PICTURE_ERRORS, *REQUEST_ERRORS, errors.UploadTooLarge, errors.TooManyFiles, *SERVER_STATUSES),
        },
        openapi_extra={**_body(settings.bulk_max_compared), "parameters": parameters(settings.deadline_s)},
    )
    async def compare(request: Request, query: Annotated[CompareQuery, Query()]) -> Response:
        """Which of two or more pictures is the more complex, by how much, and where.

        A picture that cannot be scored is a problem of the whole, which names it by `index` and `name`.
        """
        started = time.monotonic()
        deadline = started + timeout_s(request, settings.deadline_s)
        form = negotiate(request.headers.get("accept"), OFFERS)
        names = Names(request, parts.idempotency)
        scorer.check_model(query.model_name)
        if not is_form(request):
            raise UnsupportedContent("send multipart/form-data with two or more parts named 'file'")
        door.check()
        places = Places(door)
        options = Options.model_validate({"model": query.model})

        async def work(place: int, item: Item) -> tuple[str, Answered]:
            async def inside() -> Answered:
                return await answering.answer(item.read(), options, deadline, naming=names.at(place))

            try:
                if place:
                    await take_pictures(request, 1)
                return item.name, await places.enter(inside, deadline)
            except (ServiceError, ImageError) as error:
                raise _PictureFailed(place, item.name, error) from error

        complete = asyncio.Event()
        items = read_items(request, form_limits, deadline, pool, complete)
        bulk = Bulk(items, complete, work, lanes=min(settings.bulk_lanes, most))
        with comparisons.entered(), door.entered():
            bulk.start()
            try:
                await bulk.arrived()
                metrics.took("upload", time.monotonic() - started)
                async with unless_gone(request):
                    found = [end for _, end in sorted([end async for end in bulk.ends()], key=lambda end: end[0])]
                    answered = [each for _, each in found]
                    _check(answered)
                    if form != "json":
                        picture = await _difference(answered, query, form, pool, deadline)
                        return Response(picture.data, media_type=picture.media_type)
                    comparison = await off_loop(
                        pool, deadline - time.monotonic(), _comparison, [name for name, _ in found], answered, query
                    )
            except _PictureFailed as failed:
                count(failed.error, metrics)
                return problem_response(request_id(request), failed.error, place=failed.place)
            finally:
                await bulk.close()
        return Response(comparison.model_dump_json(exclude_none=True), media_type="application/json")

    return router


def _check(answered: Sequence[Answered]) -> None:
    if len(answered) < 2:
        raise MissingFile("to compare takes two pictures or more: parts of the form, each named 'file'")
    if len({each.scored.manifest.version for each in answered}) > 1:
        raise Unavailable("the model's version changed between the pictures, whose scores do not compare; try again")


async def _difference(
    answered: Sequence[Answered], query: CompareQuery, form: PictureForm, pool: Executor, deadline: float
) -> Rendered:
    if len(answered) != 2:
        raise NotAcceptable("the answer can be a picture only if there are two pictures to compare")
    return await off_loop(pool, deadline - time.monotonic(), _render, answered[0], answered[1], query, form)


def _comparison(names: Sequence[str], answered: Sequence[Answered], query: CompareQuery) -> Comparison:
    manifest = answered[0].scored.manifest
    scores = [round(each.scored.prediction.score, 6) for each in answered]
    pictures = [
        ComparedPicture(
            index=index,
            name=names[index],
            rank=1 + sum(score > scores[index] for score in scores),
            score=scores[index],
            percentile=round(manifest.percentile(scores[index]), 2),
            entropy=round(each.scored.prediction.entropy, 6),
            image=image_facts(each.scored.decoded),
        )
        for index, each in enumerate(answered)
    ]
    return Comparison(
        model=ModelName(name=manifest.name, version=manifest.version),
        pictures=pictures,
        differences=[
            Difference(
                first=first.index,
                second=second.index,
                score=round(second.score - first.score, 6),
                percentile=round(second.percentile - first.percentile, 2),
                entropy=round(second.entropy - first.entropy, 6),
                heatmap=_heatmap(answered[first.index], answered[second.index], query),
            )
            for first, second in combinations(pictures, 2)
        ],
    )


def _heatmap(first: Answered, second: Answered, query: CompareQuery) -> DifferenceGrid | DifferenceRendering | None:
    if query.difference == "png":
        return rendering.difference_as_json(_render(first, second, query, "png"), query)
    return rendering.difference_grid(_cells(first, second)) if query.difference == "grid" else None


def _render(first: Answered, second: Answered, query: CompareQuery, form: PictureForm) -> Rendered:
    return rendering.difference_picture(_cells(first, second), first.scored.decoded.size, query, form)


def _cells(first: Answered, second: Answered) -> np.ndarray[Any, np.dtype[np.float32]]:
    return rendering.difference(first.scored.prediction.heatmap, second.scored.prediction.heatmap)


def _body(most: int) -> dict[str, Any]:
    files = {"type": "array", "minItems": 2, "maxItems": most, "items": BINARY["schema"]}
    form = {"type": "object", "required": ["file"], "properties": {"file": files}}
    return {
        "requestBody": {
            "required": True,
            "description": "The pictures: parts of a form, each named `file`.",
            "content": {"multipart/form-data": {"schema": form}},
        }
    }


_OK: dict[str, Any] = {
    "model": Comparison,
    "description": "Scores, ranks and differences; with `Accept: image/png` or `image/webp`, and two pictures, the "
    "difference of their heatmaps as a picture.",
    "content": {
        "application/json": {"examples": examples.named(two_posters=examples.COMPARISON)},
        "image/png": BINARY,
        "image/webp": BINARY,
    },
}
