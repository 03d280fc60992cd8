"""What a caller is told of each type of problem: when it comes, what to do, and whether to send the request again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Retry = Literal["never", "changed", "once", "later"]

RETRIES: Mapping[Retry, str] = {
    "never": "No: the same request gets the same answer.",
    "changed": "Not as it is: whatever is wrong with it stays wrong.",
    "once": "Once, after a minute: if it comes again, it will stay.",
    "later": "Yes, unchanged, after as many seconds as `Retry-After` says; wait longer each time it comes again.",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Markdown, in whole sentences.

    Attributes:
        retry: "later" exactly where the answer has a Retry-After.
    """

    when: str
    remedy: str
    retry: Retry = "changed"


# By the slug of `service.errors.Problem`; a test finds what is missing.
EXPLANATIONS: Mapping[str, Explanation] = {
    "empty-image": Explanation(
        "The picture, or the form's part `file`, has no bytes.",
        "Look whether the file was read before it was sent: often it was opened and is already at its end.",
    ),
    "unsupported-image": Explanation(
        "The bytes are not a JPEG, PNG or WebP picture. The bytes decide, not the name and not the `Content-Type`.",
        "Convert the picture, e.g. from HEIC, AVIF, GIF or TIFF to PNG or JPEG.",
    ),
    "corrupt-image": Explanation(
        "The file begins as a picture does, but is cut off, damaged, or contradicts its own header.",
        "Compare its size and hash with the original's; if they agree, open and save it with another program.",
    ),
    "image-too-large": Explanation(
        "The upload has too many bytes, or the picture too many pixels, too long a side, or too many frames, segments "
        "or scans. `limit` names which, `maximum` how many there may be, `actual` how many there are if that is known. "
        "`job-bytes`: a job's pictures, with room for their results, need more than a job may hold.",
        "Make the picture smaller. The model looks at a few hundred pixels a side, so nothing is lost by it. The "
        "operator may raise the limit.",
    ),
    "not-acceptable": Explanation(
        "`Accept` allows none of the media types that this operation can answer with.",
        "Leave `Accept` out, or name one of the types that `detail` lists.",
    ),
    "unsupported-content": Explanation(
        "The `Content-Type` of the body is not one that this operation takes, or the body is compressed "
        "(`Content-Encoding`).",
        "Send what `detail` lists. A picture is compressed already: send it as it is.",
    ),
    "malformed-upload": Explanation(
        "The body is not what its `Content-Type` says: a form without its closing boundary, JSON or an archive that "
        "cannot be read.",
        "Let a library write the body and the `Content-Type` together; a boundary set by hand is the usual cause.",
    ),
    "missing-file": Explanation(
        "The form has no part named `file`, the archive no file, or a comparison fewer than two pictures.",
        "Name each picture's part `file`. `detail` lists what was found instead.",
    ),
    "too-many-files": Explanation(
        "There are more pictures in the request than one request may hold: `maximum`.",
        "Send them in several requests.",
    ),
    "bad-entry": Explanation(
        "Something in a form or an archive is no file with a picture in it: a symbolic link, a device, a file that is "
        "encrypted, another archive. The other pictures are not affected.",
        "Leave it out, or put the file itself there.",
    ),
    "invalid-parameter": Explanation(
        "A parameter of the query, a header, or a member of a JSON body is unknown or has a value that it cannot have. "
        "`invalid` lists each with what is wrong with it.",
        "Correct what `invalid` names. Names are exact: `heatmpa` is refused and not ignored.",
    ),
    "idempotency-key-reused": Explanation(
        "The `Idempotency-Key` came before with another picture, within the time that keys are remembered.",
        "Make a new key, such as a UUID, for each picture; use the old one again only to repeat the old request.",
    ),
    "url-input-disabled": Explanation(
        "The request names a picture by its URL, and this server does not fetch pictures.",
        "Send the picture itself. The operator can allow URLs with `CLICV2_URL_INPUT`.",
        "never",
    ),
    "upload-timeout": Explanation(
        "The body did not arrive within the deadline: the server's, or that of `X-Request-Timeout`.",
        "Send a smaller picture, allow more time, or look for what is slow between you and the server.",
    ),
    "unknown-model": Explanation(
        "No model of this name is served, or not this version of it.",
        "See at `/v1/models` what is served; leave `model` out for whatever that is.",
    ),
    "unknown-job": Explanation(
        "There is no job of this id: it never was, another caller made it, or it was deleted or has outlived the time "
        "for which results are kept.",
        "Look whether the id is whole, and whether the API key is the one that made the job. If its time is over, "
        "make the job anew.",
    ),
    "webhooks-disabled": Explanation(
        "The job asks for a webhook, and this server sends none.",
        "Leave the webhook out, and follow the job by `/v1/jobs/{id}` or its `/events`.",
        "never",
    ),
    "jobs-full": Explanation(
        "Jobs hold as much as the service lets them, or as many are uploaded or watched as it takes. `limit` names "
        "which limit it was; with `job-share` the jobs of this API key have their part of the limit in `share_of`, and "
        "`maximum` is that part.",
        "Delete jobs whose results you have, and try again after `Retry-After`.",
        "later",
    ),
    "invalid-url": Explanation(
        "The URL cannot be read, has another scheme than https or http, or holds a user and password.",
        "Correct the URL, or fetch the picture and send it itself.",
    ),
    "forbidden-url": Explanation(
        "The URL leads, or redirects, to an address that is not public, or to a port that is not allowed. What is "
        "there is not told.",
        "Send the picture itself. As a job's `webhook`, name a host that the internet reaches, on port 443 or 80.",
    ),
    "fetch-failed": Explanation(
        "The URL is in order, but its host could not be reached, or did not answer with a picture. "
        "`upstream_status` is the status it answered with, if it did.",
        "Open the URL from elsewhere. If it works there, its host may not answer programs: send the picture itself.",
        "once",
    ),
    "unauthorized": Explanation(
        "This server wants an API key, and there was none, or one that is unknown, mistyped or revoked.",
        "Send `Authorization: Bearer KEY` or `X-API-Key: KEY`. The operator makes keys with `clicv2 keys create`.",
    ),
    "forbidden": Explanation(
        "The API key is valid, but its scope does not suffice: `/metrics` wants `admin`.",
        "Ask the operator for a key with that scope.",
        "never",
    ),
    "rate-limited": Explanation(
        "Requests with this key, or from this address, come faster than is allowed: `maximum` in `window_s` seconds.",
        "Wait as long as `Retry-After` says. `RateLimit` tells in every answer how much is left, so that it need not "
        "come to this.",
        "later",
    ),
    "quota-exceeded": Explanation(
        "The key has had as many pictures as its quota allows: `maximum` in `window_s` seconds.",
        "Wait as long as `Retry-After` says, which may be hours, or ask the operator for a larger quota.",
        "later",
    ),
    "overloaded": Explanation(
        "As much is in flight as the service takes; to wait in line would only make everybody late. `limit` names "
        "which limit it was.",
        "Try again after `Retry-After`, with fewer requests at once. If it stays so, the service needs more workers.",
        "later",
    ),
    "unavailable": Explanation(
        "Something that the service needs is out of reach: Redis, the model, the worker.",
        "Try again after `Retry-After`. If it lasts, tell the operator the `instance`.",
        "later",
    ),
    "draining": Explanation(
        "The process is about to exit, as in every deployment: it finishes what it has and takes nothing new.",
        "Try again at once if several gateways answer behind one name, else after `Retry-After`.",
        "later",
    ),
    "not-ready": Explanation(
        "`/readyz` could not prove that a picture gets an answer. `detail` says what was in its way.",
        "Nothing, as a caller: load balancers ask this. As the operator, look at what `detail` names.",
        "later",
    ),
    "no-worker": Explanation(
        "No worker is there to score pictures: none runs, or what runs its model is down.",
        "Try again after `Retry-After`. As the operator, start a worker: `clicv2 worker`.",
        "later",
    ),
    "inference-failed": Explanation(
        "The model has no valid answer for this picture, several times over. Other pictures are not affected.",
        "Keep the picture, and tell the operator the `instance`: this should not happen.",
        "never",
    ),
    "deadline-exceeded": Explanation(
        "The answer was not there by the deadline: the server's, or that of `X-Request-Timeout`.",
        "Allow more time, or ask less at once. With the same `Idempotency-Key` a retry gets the answer that came late.",
        "later",
    ),
    "internal-error": Explanation(
        "A defect of the service. Nothing of it is told but the `instance`, under which the log has the rest.",
        "Tell the operator the `instance`.",
        "once",
    ),
    "not-found": Explanation(
        "There is nothing at this path.",
        "See at `/docs` what there is; paths are exact, and begin with `/v1`.",
    ),
    "malformed-request": Explanation(
        "What arrived is not HTTP/1.1: a control character or a blank within the path or a header, two different "
        "lengths, a body that goes on behind its `Content-Length`, or HTTPS where HTTP is spoken.",
        "Let a library write the request, and percent-encode what stands in the path and the query.",
    ),
    "headers-too-large": Explanation(
        "The path, the query and the headers are larger than 64 KiB together.",
        "Send what is large in the body. Often it is cookies, of which the service wants none.",
    ),
    "headers-timeout": Explanation(
        "A request was begun, and its headers were not complete in time.",
        "Look for what is slow between you and the server; then send the whole request again.",
        "once",
    ),
    "method-not-allowed": Explanation(
        "The path exists, but not with this method: `Allow` lists those that it has. Pictures are sent with POST.",
        "Use one of these.",
    ),
}
