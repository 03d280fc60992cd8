"""Errors -> application/problem+json (RFC 9457), whoever raised them."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from clicv2.errors import ImageError
from service import framing
from service.errors import (
    INTERNAL,
    INVALID_PARAMETER,
    PROBLEMS,
    ClientGone,
    Overloaded,
    Problem,
    ServiceError,
    facts_of,
    problem_of,
)
from service.metrics import Metrics
from service.routes import examples
from service.schemas import ProblemDocument

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# Where `service.routes.problem_pages` explains each type, named by its slug.
HELP = "/errors"

# Found by the framework, and so in no row of the table.
NOT_FOUND = Problem(404, "not-found", "Not Found")
METHOD_NOT_ALLOWED = Problem(405, "method-not-allowed", "Method Not Allowed")


def install(app: FastAPI, metrics: Metrics) -> None:
    """Answer every error of the application's routes with a problem document."""

    async def on_our_error(request: Request, error: Exception) -> Response:
        count(error, metrics)
        return problem_response(request_id(request), error)

    async def on_http_error(request: Request, error: Exception) -> Response:
        """Raised by the framework for an unknown path or method."""
        assert isinstance(error, HTTPException)  # noqa: S101  # registered for it alone, below
        status = HTTPStatus(error.status_code)
        slug = status.phrase.lower().replace(" ", "-")
        detail = f"{request.method} {request.url.path}: {error.detail}"
        headers = dict(error.headers or {})
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = _allowed(request)
        return _response(request_id(request), Problem(status, slug, status.phrase), detail, headers=headers)

    async def on_invalid_parameter(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for it alone, below
        invalid = [
            {"parameter": ".".join(str(part) for part in each["loc"][1:]), "detail": each["msg"]}
            for each in error.errors()
        ]
        detail = "; ".join(f"{each['parameter']}: {each['detail']}" for each in invalid)
        return _response(request_id(request), INVALID_PARAMETER, detail, facts={"invalid": invalid})

    app.add_exception_handler(ServiceError, on_our_error)
    app.add_exception_handler(ImageError, on_our_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid_parameter)


def count(error: Exception, metrics: Metrics) -> None:
    """Whichever way an error is told, once."""
    if isinstance(error, Overloaded):
        metrics.shed(error.reason)
    if isinstance(error, ImageError):
        metrics.undecodable(error)


def kinds() -> list[Problem]:
    """All that a caller may be sent, each once, in the order of the table."""
    table = (problem for error, problem in PROBLEMS.items() if error is not ClientGone)
    found_before = (NOT_FOUND, METHOD_NOT_ALLOWED, framing.MALFORMED, framing.TOO_LARGE, framing.TOO_SLOW)
    return list(dict.fromkeys([*table, INVALID_PARAMETER, INTERNAL, *found_before]))


def responses(*of: int | type[Exception] | Problem) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what can go wrong, and how that looks.

    Args:
        of: kinds of error of the table; or a status, for all of the table that have it.
    """
    named = {PROBLEMS[each] if isinstance(each, type) else each for each in of}
    ours = set(PROBLEMS.values()) | {INTERNAL}
    wanted = [kind for kind in kinds() if kind in named or (kind in ours and kind.status in of)]
    return {
        status: {
            "description": "; ".join(f"`{kind.slug}`: {kind.title}" for kind in wanted if kind.status == status),
            "content": {
                MEDIA_TYPE: {
                    "schema": ProblemDocument.model_json_schema(),
                    "examples": {
                        kind.slug: {"summary": kind.title, "value": example(kind)}
                        for kind in wanted
                        if kind.status == status
                    },
                }
            },
        }
        for status in sorted({kind.status for kind in wanted})
    }


def problem_response(request_id: str, error: Exception, *, place: Mapping[str, object] | None = None) -> Response:
    """The document for an error of the table `service.errors.PROBLEMS`; any other stays internal.

    Args:
        place: further members: which of several pictures it is about.
    """
    problem = problem_of(error)
    headers = _help(problem)
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    document = problem_document(request_id, error) | dict(place or {})
    return Response(orjson.dumps(document), problem.status, headers, MEDIA_TYPE)


def problem_document(request_id: str, error: Exception) -> dict[str, object]:
    """`problem_response`'s, for an error within a greater whole."""
    problem = problem_of(error)
    if problem is INTERNAL:
        return _document(request_id, problem, "An unexpected error; the log has it under this request's id.", {})
    return _document(request_id, problem, str(error), facts_of(error))


def request_id(request: Request) -> str:
    """As given by the caller or made by `service.routes.edge`."""
    return str(request.scope["state"]["request_id"])


def example(kind: Problem) -> dict[str, object]:
    """A document of this kind."""
    detail, facts = examples.DETAILS.get(kind.slug, (kind.title, {}))
    return _document("9f86d081884c7d65", kind, detail, facts)


def _response(
    request_id: str,
    problem: Problem,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    facts: Mapping[str, object] | None = None,
) -> Response:
    document = _document(request_id, problem, detail, facts or {})
    return Response(orjson.dumps(document), problem.status, {**_help(problem), **(headers or {})}, MEDIA_TYPE)


def _document(request_id: str, problem: Problem, detail: str, facts: Mapping[str, object]) -> dict[str, object]:
    return {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "instance": f"urn:clicv2:request:{request_id}",
        **facts,
    }


def _help(problem: Problem) -> dict[str, str]:
    """Leads from an error to its explanation, which a URN cannot."""
    return {"Link": f'<{HELP}/{problem.slug}>; rel="help"'}


def _allowed(request: Request) -> str:
    """Of all routes of this path: the framework names the methods of the first alone, or none at all for files."""

    def serves(method: str) -> bool:
        asked = {**request.scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in request.app.routes)

    methods = [method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if serves(method)]
    if methods in ([], ["GET"]):  # none: files, which are not among the routes
        return "GET, HEAD"
    return ", ".join(methods).replace("GET,", "GET, HEAD,")
