"""Everything that can go wrong between a request and its answer, and what HTTP says of it.

ServiceError
+-- RequestError            the request itself cannot be served
|   +-- NotAcceptable       no media type in Accept can be made
|   +-- UnsupportedContent  the body's type or coding is not a picture's
|   +-- UploadTooLarge      the body exceeds the byte cap; found by Content-Length or while it streams
|   +-- MalformedUpload     the multipart body cannot be parsed
|   +-- MissingFile         a multipart body without exactly one part named `file`
|   +-- UploadTimeout       the body did not arrive within the deadline
|   +-- UnknownModel        no model of this name is served
+-- Overloaded              shed: as much is in flight as is allowed
+-- Unavailable             nothing is served now
|   +-- Draining            ... because the process is about to exit
|   +-- NotReady            ... because readiness could not be proved
|   +-- NoWorker            ... because no worker is there that is ready
+-- InferenceFailed         the model has no valid answer for this picture
+-- DeadlineExceeded        the deadline passed before there was an answer
+-- ClientGone              the caller disconnected; nobody sees this

`clicv2.errors.ImageError` joins it in `PROBLEMS`, the one table error -> (status, problem type).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clicv2 import errors as image_errors

# Absolute, as RFC 9457 recommends, and the same at every deployment, so that a client can compare
# strings; a URN, because a URL would promise a page that a private installation does not have.
PROBLEM_PREFIX = "urn:clicv2:problem:"


class ServiceError(Exception):
    """The message is meant for the caller.

    Attributes:
        retry_after_s: when it is worth trying again; None where trying again is pointless.
    """

    retry_after_s: float | None = None

    def facts(self) -> Mapping[str, object]:
        """Extension members of the problem document."""
        return {}


class RequestError(ServiceError):
    """The request itself cannot be served; repeating it unchanged is pointless."""


class NotAcceptable(RequestError):
    """No media type in Accept can be made."""


class UnsupportedContent(RequestError):
    """The body's media type or coding is not a picture's."""


class UploadTooLarge(RequestError):
    """The body exceeds the byte cap.

    Attributes:
        actual: the size that Content-Length states; None when the body was cut off while streaming.
        maximum: the cap in bytes.
    """

    def __init__(self, maximum: int, actual: int | None = None) -> None:
        stated = "" if actual is None else f": it has {actual}"
        super().__init__(f"the upload exceeds the limit of {maximum} bytes{stated}")
        self.maximum = maximum
        self.actual = actual

    def facts(self) -> Mapping[str, object]:
        known = {} if self.actual is None else {"actual": self.actual}
        return {"limit": "bytes", "maximum": self.maximum, **known}


class MalformedUpload(RequestError):
    """The multipart body cannot be parsed."""


class MissingFile(RequestError):
    """A multipart body without exactly one part named `file`."""


class UploadTimeout(RequestError):
    """The body did not arrive within the deadline."""


class UnknownModel(RequestError):
    """No model of this name is served."""


class Overloaded(ServiceError):
    """Shed: as much is in flight as is allowed.

    Attributes:
        reason: which limit: "requests" (of this gateway) or "queue".
    """

    def __init__(self, reason: str, maximum: int, retry_after_s: float = 1.0) -> None:
        super().__init__(f"the service is at its limit of {maximum} pictures in flight; try again later")
        self.reason = reason
        self.maximum = maximum
        self.retry_after_s = retry_after_s

    def facts(self) -> Mapping[str, object]:
        return {"limit": self.reason, "maximum": self.maximum}


class Unavailable(ServiceError):
    """Nothing is served now."""

    retry_after_s = 1.0


class Draining(Unavailable):
    """The process is about to exit: it finishes what it has and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("this process is draining: it takes no new requests")


class NotReady(Unavailable):
    """Readiness could not be proved."""


class NoWorker(Unavailable):
    """No worker is there that is ready: none runs, or what runs the model is down."""

    def __init__(self) -> None:
        super().__init__("no worker is ready to score pictures; try again later")


class InferenceFailed(ServiceError):
    """The model has no valid answer for this picture."""


class DeadlineExceeded(ServiceError):
    """The deadline passed before there was an answer."""

    retry_after_s = 1.0


class ClientGone(ServiceError):
    """The caller disconnected; nobody sees this."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What HTTP says of an error: its status, its stable type, and a title that never varies."""

    status: int
    slug: str
    title: str

    @property
    def type(self) -> str:
        return PROBLEM_PREFIX + self.slug


INTERNAL = Problem(500, "internal-error", "Internal error")
INVALID_PARAMETER = Problem(422, "invalid-parameter", "A parameter has an invalid value")

PROBLEMS: Mapping[type[Exception], Problem] = {
    image_errors.Empty: Problem(400, "empty-image", "The picture is empty"),
    image_errors.Unsupported: Problem(415, "unsupported-image", "Not a picture in a supported format"),
    image_errors.Corrupt: Problem(422, "corrupt-image", "The picture is damaged"),
    image_errors.TooLarge: Problem(413, "image-too-large", "The picture exceeds a limit"),
    NotAcceptable: Problem(406, "not-acceptable", "No acceptable media type can be made"),
    UnsupportedContent: Problem(415, "unsupported-content", "Unsupported type of request body"),
    UploadTooLarge: Problem(413, "image-too-large", "The picture exceeds a limit"),
    MalformedUpload: Problem(400, "malformed-upload", "The multipart body cannot be parsed"),
    MissingFile: Problem(400, "missing-file", "The upload holds no part named `file`"),
    UploadTimeout: Problem(408, "upload-timeout", "The upload took too long"),
    UnknownModel: Problem(404, "unknown-model", "No such model"),
    Overloaded: Problem(429, "overloaded", "Too many pictures in flight"),
    Unavailable: Problem(503, "unavailable", "The service is unavailable"),
    Draining: Problem(503, "draining", "The service is shutting down"),
    NotReady: Problem(503, "not-ready", "The service is not ready"),
    NoWorker: Problem(503, "no-worker", "No worker is ready"),
    InferenceFailed: Problem(500, "inference-failed", "The model gave no valid answer"),
    DeadlineExceeded: Problem(504, "deadline-exceeded", "No answer within the deadline"),
    ClientGone: Problem(499, "client-gone", "The client disconnected"),
}


def problem_of(error: Exception) -> Problem:
    """The table's row for the error's class or its nearest ancestor; `INTERNAL` when there is none."""
    return next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), INTERNAL)


def facts_of(error: Exception) -> Mapping[str, object]:
    """Extension members of the problem document."""
    if isinstance(error, image_errors.TooLarge):
        return {"limit": error.limit, "actual": error.actual, "maximum": error.maximum}
    return error.facts() if isinstance(error, ServiceError) else {}
