"""What the OpenAPI document says beyond each route: of all answers, of keys, and how the operations are called."""

from collections.abc import Iterator, Mapping
from typing import Any

from service.routes import access
from service.routes.examples import CALLS
from service.routes.problems import HELP, MEDIA_TYPE
from service.schemas import ProblemDocument

_DESCRIPTION = f"""\
Send a picture, and learn how visually complex it is, from 0 to 1, and where.

Every answer has an `X-Request-ID`. Every error is a document of the type `{MEDIA_TYPE}` (RFC 9457), and its header
`Link` leads to what its `type` means: see [{HELP}](.{HELP}). What can be read with GET can also be asked for with HEAD.
"""
_TAGS: Mapping[str, str] = {
    "complexity": "How complex pictures are, and where.",
    "jobs": "Many pictures, scored while nobody waits for them.",
    "models": "Which model answers, and how good it is.",
    "errors": "What the types of problem mean.",
    "operations": "For whoever operates the service.",
}
_REF = "#/components/schemas/"
_REQUEST_ID = "X-Request-ID"

_ID_PARAMETER: Mapping[str, object] = {
    "name": _REQUEST_ID,
    "in": "header",
    "required": False,
    "description": "Comes back in the answer and names the request in the log; made here if there is none.",
    "schema": {"type": "string"},
    "example": "holiday-2024-0017",
}
_ID_HEADER: Mapping[str, object] = {
    "description": "The caller's own, if it has at most 128 letters, digits, `.`, `_`, `~` and `-`; else a new one.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,128}$"},
    "example": "holiday-2024-0017",
}
_LINK: Mapping[str, object] = {
    "description": "Where the problem's type is explained.",
    "required": True,
    "schema": {"type": "string"},
    "example": f'<{HELP}/overloaded>; rel="help"',
}
_RETRY_AFTER: Mapping[str, object] = {
    "description": "Seconds after which it is worth trying again.",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
    "example": 1,
}
# All of their problems are of the kind that passes.
_PASSING = frozenset({"429", "503", "504"})


def describe(schema: dict[str, Any], *, guarded: bool = False) -> dict[str, Any]:
    """Complete the document that FastAPI has made of the routes.

    Args:
        guarded: whether this server wants API keys.
    """
    access.describe(schema, guarded=guarded)
    schema["info"]["description"] = _DESCRIPTION
    schema["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    used = {tag for operation in _operations(schema) for tag in operation["tags"]}
    schema["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items() if name in used]
    problem = ProblemDocument.model_json_schema(ref_template=_REF + "{model}")
    schema["components"].setdefault("schemas", {}).setdefault(ProblemDocument.__name__, problem)
    for operation in _operations(schema):
        _describe_operation(operation)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    return schema


def _describe_operation(operation: dict[str, Any]) -> None:
    call = CALLS.get(operation["operationId"])
    if call:
        operation["description"] = f"{operation['description']}\n\n```sh\n{call}\n```"
    parameters = operation.setdefault("parameters", [])
    if not any(each["name"] == _REQUEST_ID for each in parameters):
        parameters.append(_ID_PARAMETER)
    # FastAPI's own answer for each operation with a parameter, though a path's text is never wrong: nobody is sent it.
    answers = {status: each for status, each in operation["responses"].items() if not _is_fastapis(each)}
    operation["responses"] = dict(sorted(answers.items()))
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers[_REQUEST_ID] = _ID_HEADER
        content = response.get("content", {}).get(MEDIA_TYPE)
        if content:
            content["schema"] = {"$ref": _REF + ProblemDocument.__name__}  # once, and not with each status
            headers["Link"] = _LINK
            if status in _PASSING:
                headers["Retry-After"] = _RETRY_AFTER


def _is_fastapis(response: dict[str, Any]) -> bool:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema == {"$ref": _REF + "HTTPValidationError"})


def _operations(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in schema["paths"].values():
        yield from operations.values()
