"""GET /errors: what each type of problem means, in the words of docs/errors.md, which is this page.

The type itself is a URN, which leads nowhere. So every problem has a header `Link: </errors/overloaded>; rel="help"`,
and behind `/errors/` the whole type may stand, too.
"""

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from starlette.exceptions import HTTPException

from service.errors import PROBLEM_PREFIX, NotAcceptable, Problem
from service.routes.explanations import EXPLANATIONS, RETRIES
from service.routes.negotiation import negotiate
from service.routes.problems import HELP, NOT_FOUND, example, kinds, responses
from service.routes.under_path import root_path

Form = Literal["markdown", "html"]
# Markdown first: browsers ask for text/html by its name, programs and curl for nothing in particular.
_OFFERS: Mapping[Form, str] = {"markdown": "text/markdown", "html": "text/html"}

_INTRODUCTION = """\
Every error is a document of the type `application/problem+json` (RFC 9457). A program should look at `type`, which
never changes its meaning; `detail` is for people, and may. `instance` ends with the `X-Request-ID` under which the
log has the request. Further members state facts, such as `limit` and `maximum`.

Every answer with such a document has a header such as `Link: </errors/overloaded>; rel="help"`: there the gateway
itself explains the type. In a batch each picture has its own `problem`, while the batch itself is answered with 200.
"""
_STYLE = (
    ":root{color-scheme:light dark;background:Canvas;color:CanvasText}"
    "body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:1rem/1.5 system-ui,sans-serif}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:1rem;background:#8881}"
    "td,th{padding:.1rem 1rem .1rem 0;text-align:left}"
)


def routes() -> APIRouter:
    router = APIRouter(tags=["errors"])

    @router.get(
        HELP,
        operation_id="list_errors",
        summary="List the types of problem",
        response_class=Response,
        responses={
            200: _ok("Every type.", f"# Errors\n\n{_INTRODUCTION}", _page("Errors", _paragraphs(_INTRODUCTION))),
            **responses(NotAcceptable),
        },
    )
    async def list_errors(request: Request) -> Response:
        """Every type of problem with its status, what to do about it, and whether to try again."""
        return _answer(request, markdown(), _html_index())

    @router.get(
        HELP + "/{name}",
        operation_id="explain_error",
        summary="Explain a type of problem",
        response_class=Response,
        responses={
            200: _ok("The explanation.", _section(_EXAMPLE, "#"), _html(_EXAMPLE)),
            **responses(NotAcceptable, NOT_FOUND),
        },
    )
    async def explain_error(
        request: Request,
        name: Annotated[str, Path(description="A problem's `type`, or its end.", examples=["overloaded"])],
    ) -> Response:
        """When this problem comes, what to do about it, and whether to try again."""
        slug = name.removeprefix(PROBLEM_PREFIX)
        found = next((kind for kind in kinds() if kind.slug == slug), None)
        if found is None:
            raise HTTPException(404, f"no problem has this type; {root_path(request.scope)}{HELP} lists all")
        return _answer(request, _section(found, "#"), _html(found))

    return router


def markdown() -> str:
    """The whole page."""
    rows = "".join(f"| [`{kind.slug}`](#{kind.slug}) | {kind.status} | {kind.title} |\n" for kind in _sorted())
    sections = "\n".join(_section(kind, "##") for kind in _sorted())
    table = f"| `type`: `{PROBLEM_PREFIX}` and | Status | Title |\n|---|---|---|\n{rows}"
    return f"# Errors\n\n{_INTRODUCTION}\n{table}\n{sections}"


def _section(kind: Problem, heading: str) -> str:
    told = EXPLANATIONS[kind.slug]
    return (
        f"{heading} {kind.slug}\n\n"
        f"`{kind.type}`, status {kind.status}: {kind.title}.\n\n"
        f"- When: {told.when}\n- What to do: {told.remedy}\n- Try again? {RETRIES[told.retry]}\n\n"
        f"```json\n{_shown(kind)}\n```\n"
    )


def _html(kind: Problem) -> str:
    told = EXPLANATIONS[kind.slug]
    facts = {"When": told.when, "What to do": told.remedy, "Try again?": RETRIES[told.retry]}
    listed = "".join(f"<dt><b>{name}</b><dd>{_inline(text)}" for name, text in facts.items())
    return _page(
        kind.title,
        f"<p><code>{kind.type}</code>, status {kind.status}<dl>{listed}</dl><pre>{escape(_shown(kind))}</pre>"
        f'<p><a href="..{HELP}">All errors</a>',
        root="..",
    )


def _html_index() -> str:
    rows = "".join(
        f'<tr><td><a href=".{HELP}/{kind.slug}">{kind.slug}</a><td>{kind.status}<td>{kind.title}' for kind in _sorted()
    )
    return _page("Errors", f"{_paragraphs(_INTRODUCTION)}<table><tr><th>Type<th>Status<th>Title{rows}</table>")


def _page(title: str, body: str, root: str = ".") -> str:
    """With `root`, where the service's own is from here: right under any path, as all on the page at /."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="{root}/static/icon.svg">'
        f"<title>{title}</title><style>{_STYLE}</style><main><h1>{title}</h1>{body}</main></html>\n"
    )


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_inline(each)}" for each in text.split("\n\n"))


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _shown(kind: Problem) -> str:
    return json.dumps(example(kind), indent=2)


def _sorted() -> list[Problem]:
    """By status; among equals as the table has them."""
    return sorted(kinds(), key=lambda kind: kind.status)


def _answer(request: Request, as_markdown: str, as_html: str) -> Response:
    form = negotiate(request.headers.get("accept"), _OFFERS)
    text = as_html if form == "html" else as_markdown
    return Response(text, headers={"Vary": "Accept"}, media_type=_OFFERS[form])


def _ok(description: str, as_markdown: str, as_html: str) -> dict[str, Any]:
    schema = {"type": "string"}
    return {
        "description": description,
        "content": {
            "text/markdown": {"schema": schema, "example": as_markdown},
            "text/html": {"schema": schema, "example": as_html},
        },
    }


_EXAMPLE = next(kind for kind in kinds() if kind.slug == "overloaded")
