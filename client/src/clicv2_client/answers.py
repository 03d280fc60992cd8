"""From what came over the wire to results and errors (pure)."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from clicv2_client import errors
from clicv2_client.errors import InvalidAnswer, Problem, ProblemDocument
from clicv2_client.results import HeatmapPicture
from clicv2_client.retry import parse_retry_after

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def media_type(self) -> str:
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()


def read(model: type[ModelT], reply: Reply) -> ModelT:
    """Raises InvalidAnswer."""
    try:
        return model.model_validate_json(reply.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise InvalidAnswer(
            f"status {reply.status} with {reply.media_type or 'no type'}, but no {model.__name__}: "
            f"{where}: {first['msg']}; is this URL a CLICv2 service's?"
        ) from error


def read_heatmap(reply: Reply) -> HeatmapPicture:
    """Raises InvalidAnswer."""
    if not reply.media_type.startswith("image/"):
        raise InvalidAnswer(f"{reply.media_type or 'no type'} and not a picture; is this URL a CLICv2 service's?")
    try:
        score, percentile, entropy = (
            float(reply.headers[f"x-complexity-{name}"]) for name in ("score", "percentile", "entropy")
        )
    except (KeyError, ValueError) as error:
        raise InvalidAnswer("a picture without its numbers; does a proxy remove X-Complexity-* headers?") from error
    return HeatmapPicture(
        data=reply.content, media_type=reply.media_type, score=score, percentile=percentile, entropy=entropy
    )


def problem_of(reply: Reply) -> Problem:
    """Of an answer that is not good; where it has no problem document, what its status says (RFC 9457, 4.2.1)."""
    retry_after_s = parse_retry_after(reply.headers.get("retry-after"))
    try:
        document = ProblemDocument.model_validate_json(reply.content)
    except ValidationError:
        document = ProblemDocument()
    if reply.media_type != "application/problem+json" or document.status != reply.status:
        document = _undocumented(reply)
    return errors.problem(document, retry_after_s)


def _undocumented(reply: Reply) -> ProblemDocument:
    try:
        title = HTTPStatus(reply.status).phrase
    except ValueError:
        title = ""
    where = reply.headers.get("location")
    detail = f"status {reply.status} {title}".strip() + (f" to {where}" if where else "")
    return ProblemDocument(title=title, status=reply.status, detail=f"{detail}, without a word of the service")
