"""Everything that a call can raise.

Clicv2Error
+-- UnreadablePicture         what was given is no picture that can be sent; nothing was sent
+-- ConnectionFailed          no answer: the service is not there, or the connection broke
+-- TimedOut                  no answer within the call's time
+-- InvalidAnswer             an answer, but not one of this service
+-- Problem                   the service says what is wrong (RFC 9457); of types that are newer than this client too
    +-- BadPicture            ... with the picture
    |   +-- EmptyImage, UnsupportedImage, CorruptImage, ImageTooLarge
    +-- BadRequest            ... with the request, which is pointless to repeat as it is
    |   +-- NotAcceptable, UnsupportedContent, MalformedUpload, MissingFile, TooManyFiles, BadEntry,
    |   |   InvalidParameter, IdempotencyKeyReused, UrlInputDisabled, UploadTimeout, UnknownModel, UnknownJob,
    |   |   WebhooksDisabled, InvalidUrl, ForbiddenUrl, NotFound, MethodNotAllowed
    |   +-- AccessDenied
    |       +-- Unauthorized, Forbidden
    +-- FetchFailed           ... with the host of a URL
    +-- Throttled             ... with how much is asked
    |   +-- RateLimited
    |   |   +-- QuotaExceeded
    |   +-- Overloaded
    |       +-- JobsFull
    +-- Unavailable           ... with the service
    |   +-- Draining, NotReady, NoWorker
    +-- ServerFailed
    |   +-- InternalError, InferenceFailed
    +-- DeadlineExceeded      is a TimedOut too

Each class below `Problem` that has a `slug` is the type `urn:clicv2:problem:SLUG`.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

PREFIX = "urn:clicv2:problem:"
# What may be well a moment later. Every other status says that the same request gets the same answer.
_PASSING = frozenset({429, 502, 503, 504})


class Clicv2Error(Exception):
    """Whatever a call raises.

    Attributes:
        retryable: whether the same call may succeed a moment later; by then the client has tried that in vain.
        retry_after_s: when the service said that it is worth trying again; None if it did not.
    """

    retryable: bool = False
    retry_after_s: float | None = None


class UnreadablePicture(Clicv2Error):
    """What was given is no picture that can be sent; nothing was sent."""


class ConnectionFailed(Clicv2Error):
    """No answer: the service is not there, or the connection broke."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class TimedOut(Clicv2Error):
    """No answer within the call's time."""


class InvalidAnswer(Clicv2Error):
    """An answer, but not one of this service: is the URL right?"""


class ProblemDocument(BaseModel):
    """What the service says of an error (RFC 9457); further members are its facts."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    instance: str = ""


class Problem(Clicv2Error):
    """The service says what is wrong.

    A class for each type of problem that this client knows; others are of this class itself.

    Attributes:
        document: as it came; without one (a proxy's answer) only the status is known.
    """

    slug: ClassVar[str] = ""

    def __init__(self, document: ProblemDocument, retry_after_s: float | None = None) -> None:
        super().__init__(document, retry_after_s)  # what pickle makes a copy of
        self.document = document
        self.retry_after_s = retry_after_s
        self.retryable = self._may_pass()

    def __str__(self) -> str:
        return self.document.detail or self.document.title or f"status {self.status}"

    @property
    def type(self) -> str:
        return self.document.type

    @property
    def status(self) -> int:
        return self.document.status

    @property
    def facts(self) -> Mapping[str, object]:
        """The document's further members, such as `limit`, `maximum`, `index`."""
        return self.document.model_extra or {}

    @property
    def request_id(self) -> str:
        """By which the service's log names the request."""
        return self.document.instance.removeprefix("urn:clicv2:request:")

    def _may_pass(self) -> bool:
        return self.status in _PASSING


class BadPicture(Problem):
    """The picture cannot be scored."""


class EmptyImage(BadPicture):
    """The picture has no bytes."""

    slug = "empty-image"


class UnsupportedImage(BadPicture):
    """Not a picture in a format that the service takes."""

    slug = "unsupported-image"


class CorruptImage(BadPicture):
    """The picture is truncated, damaged, or its header and its data disagree."""

    slug = "corrupt-image"


class ImageTooLarge(BadPicture):
    """The picture exceeds a limit: `facts` has `limit`, `maximum`, and `actual` if it is known."""

    slug = "image-too-large"


class BadRequest(Problem):
    """The request cannot be served; repeating it as it is is pointless."""


class NotAcceptable(BadRequest):
    """Nothing that was asked for can be made."""

    slug = "not-acceptable"


class UnsupportedContent(BadRequest):
    """The body's type is not one that the service takes."""

    slug = "unsupported-content"


class MalformedUpload(BadRequest):
    """The body is not the form, archive or JSON that its type says."""

    slug = "malformed-upload"


class MissingFile(BadRequest):
    """Fewer pictures than are needed."""

    slug = "missing-file"


class TooManyFiles(BadRequest):
    """More pictures than one request may hold: `facts` has `maximum`."""

    slug = "too-many-files"


class BadEntry(BadRequest):
    """Something in an archive that is no file with a picture in it."""

    slug = "bad-entry"


class InvalidParameter(BadRequest):
    """A parameter has a value that it cannot have."""

    slug = "invalid-parameter"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of those that are wrong."""
        return tuple(_members(self.facts.get("invalid"), "parameter"))


class IdempotencyKeyReused(BadRequest):
    """The Idempotency-Key came before, with another picture."""

    slug = "idempotency-key-reused"


class UrlInputDisabled(BadRequest):
    """The service takes no pictures by URL."""

    slug = "url-input-disabled"


class UploadTimeout(BadRequest):
    """The upload took longer than the service waits."""

    slug = "upload-timeout"


class UnknownModel(BadRequest):
    """No such model, or not of this version."""

    slug = "unknown-model"


class UnknownJob(BadRequest):
    """No job of this id: it never was, is another key's, was deleted, or has been forgotten."""

    slug = "unknown-job"


class WebhooksDisabled(BadRequest):
    """The service sends no webhooks."""

    slug = "webhooks-disabled"


class InvalidUrl(BadRequest):
    """Not a URL that the service fetches, whoever it belongs to."""

    slug = "invalid-url"


class ForbiddenUrl(BadRequest):
    """The URL leads to what is not public."""

    slug = "forbidden-url"


class NotFound(BadRequest):
    """No such path: is the client newer than the service?"""

    slug = "not-found"


class MethodNotAllowed(BadRequest):
    """The path has no such method: is the client newer than the service?"""

    slug = "method-not-allowed"


class AccessDenied(BadRequest):
    """The API key does not allow it."""


class Unauthorized(AccessDenied):
    """No API key, or none that is valid."""

    slug = "unauthorized"


class Forbidden(AccessDenied):
    """The API key's scope does not suffice."""

    slug = "forbidden"


class FetchFailed(Problem):
    """The host of a URL did not give its picture."""

    slug = "fetch-failed"

    @property
    def upstream_status(self) -> int | None:
        """What that host answered with; None when there was no usable answer."""
        found = self.facts.get("upstream_status")
        return found if isinstance(found, int) else None

    def _may_pass(self) -> bool:
        # Older services say 502; but a host that says 404 will say so again.
        return super()._may_pass() and (self.upstream_status is None or self.upstream_status in {429, 500, *_PASSING})


class Throttled(Problem):
    """More is asked than is allowed or possible now."""


class RateLimited(Throttled):
    """The key's requests come faster than its rate allows."""

    slug = "rate-limited"


class QuotaExceeded(RateLimited):
    """The key has had as many pictures as its quota allows."""

    slug = "quota-exceeded"


class Overloaded(Throttled):
    """As many pictures are in flight as the service allows, whoever sent them."""

    slug = "overloaded"


class JobsFull(Overloaded):
    """Jobs hold as much as the service allows; deleting one makes room."""

    slug = "jobs-full"


class Unavailable(Problem):
    """The service cannot score pictures now."""

    slug = "unavailable"


class Draining(Unavailable):
    """This process of the service is about to exit."""

    slug = "draining"


class NotReady(Unavailable):
    """The service could not prove that it is ready."""

    slug = "not-ready"


class NoWorker(Unavailable):
    """No worker of the service is ready."""

    slug = "no-worker"


class ServerFailed(Problem):
    """A defect of the service, or of its model."""


class InternalError(ServerFailed):
    """A defect of the service; its log has it under `request_id`."""

    slug = "internal-error"


class InferenceFailed(ServerFailed):
    """The model has no valid answer for this picture."""

    slug = "inference-failed"


class DeadlineExceeded(Problem, TimedOut):
    """The service had no answer within the call's time."""

    slug = "deadline-exceeded"


def problem(document: ProblemDocument, retry_after_s: float | None = None) -> Problem:
    """Of the class for its type; `Problem` itself for a type that this client does not know."""
    kind = PROBLEMS.get(document.type.removeprefix(PREFIX), Problem)
    return kind(document, retry_after_s)


def _known(kind: type[Problem]) -> Iterator[tuple[str, type[Problem]]]:
    if kind.slug:
        yield kind.slug, kind
    for child in kind.__subclasses__():
        yield from _known(child)


def _members(found: object, name: str) -> Iterator[str]:
    for each in found if isinstance(found, list) else ():
        if isinstance(each, dict) and isinstance(each.get(name), str):
            yield each[name]


PROBLEMS: Mapping[str, type[Problem]] = dict(_known(Problem))
