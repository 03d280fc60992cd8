"""What HTTP's caches are told, and what callers tell of what they have (RFC 9110, 9111, 9211).

    ETag               what was asked for: the picture, the model's version, every option. Always weak: two answers
                       mean the same, but each has an id and timings of its own, and another build of zlib packs a
                       PNG otherwise.
    If-None-Match      the caller has this answer. 304 then: without decoding, and without asking the model, for the
                       tag names all that an answer depends on.
    Cache-Control      of an answer: "private, no-cache". It speaks of somebody's picture, and what was once so has to
                       be asked again, since the model may have changed.
    Cache-Control      of a request: "no-cache" does not want what was kept, "no-store" nothing of his kept either.
    Cache-Status       where the answer came from, also for pictures, which have no room for a `cache` member.

RFC 9110, section 13.1.2, has 304 for GET and HEAD and 412 for all other methods, since these change something and a
precondition keeps them from it. To score a picture changes nothing: POST is used only because a picture does not
fit into a URL. So the answer is what a safe method's is (as QUERY's), and not an error.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version

from fastapi import Response
from pydantic import BaseModel

from clicv2.contract import Manifest
from service.cache.results import CacheState, CacheUse

_VARY = "Accept"
_CACHE_CONTROL = "private, no-cache"
# A tag may hold commas, so the list cannot be split at them. Which of them are weak does not matter to the weak
# comparison, which If-None-Match asks for (section 8.8.3.2).
_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_RELEASE = version("clicv2-complexity")
_STATUS: dict[CacheState, str] = {
    "hit": "clicv2;hit",
    "miss": "clicv2;fwd=miss",
    "shared": "clicv2;fwd=miss;collapsed",
}


def etag(content: str, manifest: Manifest, form: str, options: BaseModel) -> str:
    """Of the answer to `options` for the picture whose SHA-256 is `content`; `form` is what was negotiated."""
    parts = (
        _RELEASE,  # whose answers may have other members
        content,
        manifest.fingerprint,
        manifest.name,
        str(manifest.version),
        manifest.sha256,
        form,
        options.model_dump_json(),
    )
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f'W/"{digest[:32]}"'


def has_it(if_none_match: Iterable[str], tag: str) -> bool:
    """Whether one of the field's lines names the answer.

    "*" names none: it asks whether there is any answer at all, and there is none before it was asked for.
    """
    wanted = _TAG.fullmatch(tag)
    return wanted is not None and any(wanted[1] in _TAG.findall(line) for line in if_none_match)


def not_modified(tag: str) -> Response:
    """304 with those of the headers of a 200 that section 15.4.5 asks for."""
    return Response(status_code=304, headers=validators(tag))


def validators(tag: str) -> dict[str, str]:
    """Headers of a 200."""
    return {"ETag": tag, "Cache-Control": _CACHE_CONTROL, "Vary": _VARY}


def cache_status(state: CacheState | None) -> dict[str, str]:
    """Header of an answer (RFC 9211); none where nothing is kept."""
    return {"Cache-Status": _STATUS[state]} if state else {}


def cache_use(cache_control: Iterable[str]) -> CacheUse:
    """What the lines of a request's Cache-Control allow (RFC 9111, section 5.2.1); other directives say nothing."""
    directives = {part.strip().lower() for line in cache_control for part in line.split(",")}
    names = {directive.partition("=")[0] for directive in directives}
    keep = "no-store" not in names
    # Browsers that reload say max-age=0. How old a result is, is not known: other ages are not looked at.
    return CacheUse(find=keep and "no-cache" not in names and "max-age=0" not in directives, keep=keep)


# For OpenAPI: of a 200 and a 304, of a 200 alone, and of a request.
VALIDATORS: Mapping[str, object] = {
    "ETag": {
        "description": "Names the answer: the picture, the model's version and every option.",
        "required": True,
        "schema": {"type": "string"},
        "example": 'W/"6b5f6c8e0d6b4f0f9a4e3c2b1a098765"',
    },
    "Cache-Control": {
        "description": "A cache may keep the answer, for this caller alone, and asks before it gives it again.",
        "required": True,
        "schema": {"type": "string"},
        "example": _CACHE_CONTROL,
    },
    "Vary": {
        "description": "What else the answer depends on.",
        "required": True,
        "schema": {"type": "string"},
        "example": _VARY,
    },
}
CACHE_STATUS: Mapping[str, object] = {
    "Cache-Status": {
        "description": "Whether the result was kept from before (RFC 9211). Absent where nothing is kept.",
        "schema": {"type": "string"},
        "example": _STATUS["hit"],
    }
}
CONDITIONS: Sequence[Mapping[str, object]] = (
    {
        "name": "If-None-Match",
        "in": "header",
        "required": False,
        "description": "The `ETag` of an answer that is there already: 304 if it is still the answer.",
        "schema": {"type": "string"},
        "example": 'W/"6b5f6c8e0d6b4f0f9a4e3c2b1a098765"',
    },
    {
        "name": "Cache-Control",
        "in": "header",
        "required": False,
        "description": "`no-cache`: as if nothing had been kept; `no-store`: nor keep this result.",
        "schema": {"type": "string"},
        "example": "no-cache",
    },
)
