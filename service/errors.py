"""Everything that can go wrong between a request and its answer, and what HTTP says of it.

ServiceError
+-- RequestError            the request itself cannot be served
|   +-- NotAcceptable       no media type in Accept can be made
|   +-- UnsupportedContent  the body's type or coding is not a picture's
|   +-- UploadTooLarge      the body exceeds the byte cap; found by Content-Length or while it streams
|   |   +-- JobTooLarge     ... or it would be a job that could not be held, however few others there are
|   +-- MalformedUpload     the body is not the form, archive or JSON that its type says
|   +-- MissingFile         a body without a part named `file`, or without as many as are needed
|   +-- TooManyFiles        a body with more pictures than one request may hold
|   +-- BadEntry            something in a form or an archive that is no file with a picture in it
|   +-- InvalidParameter    a header or a member of the body has a value that it cannot have
|   +-- KeyReused           an Idempotency-Key that came before, with another picture
|   +-- UrlInputDisabled    a picture by URL, where that is not allowed
|   +-- UploadTimeout       the body did not arrive within the deadline
|   +-- UnknownModel        no model of this name is served
|   +-- UnknownJob          no job of this id, or not the caller's
|   +-- WebhooksDisabled    a webhook, where none are sent
|   +-- Unauthorized        no API key, or none that is valid
|   +-- Forbidden           the API key's scope does not suffice
|   +-- InvalidUrl          a URL that is not fetched, whoever it belongs to
|   +-- ForbiddenUrl        a URL that leads, or redirects, to what is not public
+-- FetchFailed             the host of a URL did not give its picture
+-- RateLimited             the caller's requests come faster than his rate allows
|   +-- QuotaExceeded       ... or he has had as many pictures as his quota allows
+-- Overloaded              shed: as much is in flight as is allowed
|   +-- JobsFull            ... or jobs hold as much as is allowed
|       +-- JobShareTaken   ... or the caller's own as much as one caller's may
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


class JobTooLarge(UploadTooLarge):
    """A job that could not be held, however few others there are: no later attempt would fare better."""

    def __init__(self, maximum: int) -> None:
        RequestError.__init__(
            self,
            f"the job needs more than the {maximum} bytes that it may hold, for its pictures and for their results at "
            "their largest; send fewer pictures at once, or ask for smaller maps or none",
        )
        self.maximum = maximum
        self.actual = None

    def facts(self) -> Mapping[str, object]:
        return {"limit": "job-bytes", "maximum": self.maximum}


class MalformedUpload(RequestError):
    """The body is not the form, archive or JSON that its type says."""


class MissingFile(RequestError):
    """A body without a part named `file`, or without as many as are needed."""


class TooManyFiles(RequestError):
    """A body with more pictures than one request may hold."""

    def __init__(self, maximum: int) -> None:
        super().__init__(f"a request may hold {maximum} pictures, this one has more")
        self.maximum = maximum

    def facts(self) -> Mapping[str, object]:
        return {"limit": "pictures", "maximum": self.maximum}


class BadEntry(RequestError):
    """Something in a form or an archive that is no file with a picture in it."""


class InvalidParameter(RequestError):
    """A header or a member of the body has a value that it cannot have; `parameter` is its name."""

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(f"{parameter}: {detail}")
        self.parameter = parameter
        self.detail = detail

    def facts(self) -> Mapping[str, object]:
        return {"invalid": [{"parameter": self.parameter, "detail": self.detail}]}


class KeyReused(RequestError):
    """An Idempotency-Key that came before, with another picture."""


class UrlInputDisabled(RequestError):
    """A picture by URL, where that is not allowed."""


class UploadTimeout(RequestError):
    """The body did not arrive within the deadline."""


class UnknownModel(RequestError):
    """No model of this name is served."""


class UnknownJob(RequestError):
    """No job of this id, or not the caller's: nobody learns of other callers' jobs."""

    def __init__(self) -> None:
        super().__init__("there is no such job: it never was, it is not yours, or it has been forgotten")


class WebhooksDisabled(RequestError):
    """A webhook, where none are sent."""


class InvalidUrl(RequestError):
    """A URL that is not fetched, whoever it belongs to. The message does not repeat it: it may hold secrets."""


class ForbiddenUrl(RequestError):
    """A URL that leads, or redirects, to what is not public. The message does not tell what is there instead."""


class FetchFailed(ServiceError):
    """The host of a URL did not give its picture.

    Attributes:
        upstream_status: what it answered with; None when there was no usable answer.
    """

    def __init__(self, message: str, upstream_status: int | None = None) -> None:
        super().__init__(message)
        self.upstream_status = upstream_status

    def facts(self) -> Mapping[str, object]:
        return {} if self.upstream_status is None else {"upstream_status": self.upstream_status}


class Unauthorized(RequestError):
    """No API key, or none that is valid.

    Attributes:
        challenge: for WWW-Authenticate (RFC 6750, section 3).
    """

    def __init__(self, message: str, challenge: str) -> None:
        super().__init__(message)
        self.challenge = challenge


class Forbidden(RequestError):
    """The API key's scope does not suffice.

    Attributes:
        challenge: for WWW-Authenticate (RFC 6750, section 3).
    """

    def __init__(self, message: str, challenge: str) -> None:
        super().__init__(message)
        self.challenge = challenge


class RateLimited(ServiceError):
    """The caller's requests come faster than his rate allows.

    Attributes:
        maximum: how many are allowed in `window_s`.
        remaining: how many are left; above 0 when more were asked for at once.
    """

    policy = "rate"
    unit = "requests"

    def __init__(self, maximum: int, window_s: int, remaining: int, retry_after_s: float) -> None:
        super().__init__(
            f"{maximum} {self.unit} in {window_s} s are allowed, of which {remaining} are left; "
            f"try again in {retry_after_s:.0f} s"
        )
        self.maximum = maximum
        self.window_s = window_s
        self.remaining = remaining
        self.retry_after_s = retry_after_s

    def facts(self) -> Mapping[str, object]:
        # The first member is that of draft-ietf-httpapi-ratelimit-headers-11, section 5.1.
        return {"violated-policies": [self.policy], "maximum": self.maximum, "window_s": self.window_s}


class QuotaExceeded(RateLimited):
    """The caller has had as many pictures as his quota allows."""

    policy = "quota"
    unit = "pictures"


class Overloaded(ServiceError):
    """Shed: as much is in flight as is allowed.

    Attributes:
        reason: which limit: "requests", "batches" or "urls" (of this gateway), or "queue".
    """

    def __init__(self, reason: str, maximum: int, retry_after_s: float = 1.0) -> None:
        what = "batches" if reason == "batches" else "pictures"
        super().__init__(f"the service is at its limit of {maximum} {what} in flight; try again later")
        self.reason = reason
        self.maximum = maximum
        self.retry_after_s = retry_after_s

    def facts(self) -> Mapping[str, object]:
        return {"limit": self.reason, "maximum": self.maximum}


class JobsFull(Overloaded):
    """Jobs hold as much as is allowed.

    Attributes:
        reason: which limit: "jobs" (unfinished ones), "job-bytes" (of all together), "job-uploads" or "event-streams"
            (of this gateway).
    """

    def __init__(self, reason: str, maximum: int, retry_after_s: float = 10.0) -> None:
        ServiceError.__init__(self, f"jobs are at their limit of {maximum} {_JOB_LIMITS[reason]}; try again later")
        self.reason = reason
        self.maximum = maximum
        self.retry_after_s = retry_after_s


class JobShareTaken(JobsFull):
    """The caller's own jobs hold as much as one caller's may; others may have room.

    Attributes:
        share_of: the limit, a reason of `JobsFull`, of which `maximum` is one caller's share.
    """

    def __init__(self, share_of: str, maximum: int, retry_after_s: float = 10.0) -> None:
        what = _JOB_LIMITS[share_of]
        ServiceError.__init__(self, f"the jobs of this API key are at its share of {maximum} {what}; try again later")
        self.reason = "job-share"
        self.share_of = share_of
        self.maximum = maximum
        self.retry_after_s = retry_after_s

    def facts(self) -> Mapping[str, object]:
        return {**super().facts(), "share_of": self.share_of}


_JOB_LIMITS: Mapping[str, str] = {
    "jobs": "unfinished ones",
    "job-bytes": "bytes held; what is forgotten, or deleted with DELETE, makes room",
    "job-uploads": "uploads under way",
    "event-streams": "streams of events",
}


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
    JobTooLarge: Problem(413, "image-too-large", "The picture exceeds a limit"),
    MalformedUpload: Problem(400, "malformed-upload", "The body cannot be parsed"),
    MissingFile: Problem(400, "missing-file", "The upload lacks a picture"),
    TooManyFiles: Problem(413, "too-many-files", "Too many pictures in one request"),
    BadEntry: Problem(415, "bad-entry", "Not a file with a picture"),
    InvalidParameter: INVALID_PARAMETER,
    KeyReused: Problem(422, "idempotency-key-reused", "The Idempotency-Key was used for another picture"),
    UrlInputDisabled: Problem(403, "url-input-disabled", "Pictures by URL are not allowed"),
    UploadTimeout: Problem(408, "upload-timeout", "The upload took too long"),
    UnknownModel: Problem(404, "unknown-model", "No such model"),
    UnknownJob: Problem(404, "unknown-job", "No such job"),
    WebhooksDisabled: Problem(403, "webhooks-disabled", "Webhooks are not sent"),
    # 422 and not 403, which clients take to speak of their credentials; and no other key would help.
    InvalidUrl: Problem(422, "invalid-url", "Not a URL that is fetched"),
    ForbiddenUrl: Problem(422, "forbidden-url", "The URL does not lead to a public host"),
    # Not 502: what callers name must not look like a failure of ours, to alerts and to balancers that eject for it.
    FetchFailed: Problem(422, "fetch-failed", "The URL could not be fetched"),
    Unauthorized: Problem(401, "unauthorized", "A valid API key is needed"),
    Forbidden: Problem(403, "forbidden", "The API key's scope does not suffice"),
    RateLimited: Problem(429, "rate-limited", "Too many requests"),
    QuotaExceeded: Problem(429, "quota-exceeded", "The quota is used up"),
    Overloaded: Problem(429, "overloaded", "Too many pictures in flight"),
    JobsFull: Problem(429, "jobs-full", "Jobs are at their limit"),
    JobShareTaken: Problem(429, "jobs-full", "Jobs are at their limit"),
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
