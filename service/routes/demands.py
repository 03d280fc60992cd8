"""What callers ask for in headers: how long they wait, and that a retry be no second time."""

import re
from typing import Any

from starlette.requests import Request

from service.errors import InvalidParameter
from service.idempotency import Idempotency, Naming

TIMEOUT = "X-Request-Timeout"
KEY = "Idempotency-Key"

# Less than a decode and an inference take on an idle machine: no answer could come.
MIN_TIMEOUT_S = 0.05

# As it is, or in quotes as the draft's structured field is written.
_VALID_KEY = re.compile(r"[!-~]{1,255}")


def timeout_s(request: Request, most_s: float) -> float:
    """How long the caller waits for the answer; without a word as long as the server does. Raises InvalidParameter."""
    given = request.headers.get(TIMEOUT)
    if given is None:
        return most_s
    try:
        wanted_s = float(given)
    except ValueError:
        raise InvalidParameter(TIMEOUT, f"a number of seconds, such as 2.5, not {given[:40]!r}") from None
    if not MIN_TIMEOUT_S <= wanted_s <= most_s:  # NaN is not between them either
        raise InvalidParameter(TIMEOUT, f"{wanted_s:g} s is not between {MIN_TIMEOUT_S:g} and {most_s:g} s")
    return wanted_s


def idempotency_key(request: Request) -> str | None:
    """Raises InvalidParameter."""
    given = request.headers.get(KEY)
    if given is None:
        return None
    key = given[1:-1] if len(given) > 2 and given[0] == given[-1] == '"' else given
    if not _VALID_KEY.fullmatch(key):
        raise InvalidParameter(KEY, "1 to 255 visible ASCII characters, such as a UUID")
    return key


class Names:
    """Names the jobs of one request, if it came with a key. Raises InvalidParameter."""

    def __init__(self, request: Request, idempotency: Idempotency) -> None:
        self._key = idempotency_key(request)
        self._caller = caller_id(request)
        self._idempotency = idempotency

    def at(self, place: int = 0) -> Naming | None:
        """For the picture at this place of the request."""
        if self._key is None:
            return None
        return self._idempotency.naming(self._caller, self._key, place)


def caller_id(request: Request) -> str:
    """Whoever `service.routes.access` found; empty where nobody is asked."""
    caller = request.scope["state"].get("caller")
    return "" if caller is None else str(caller.id)


async def take_pictures(request: Request, count: int) -> None:
    """Count pictures beyond a request's first against the caller's quota. Raises QuotaExceeded."""
    caller = request.scope["state"].get("caller")
    if caller is not None:
        await caller.meter.pictures(count)


def parameters(most_s: float) -> list[dict[str, Any]]:
    """For OpenAPI; read by hand here, for the bound differs from route to route."""
    return [
        {
            "name": TIMEOUT,
            "in": "header",
            "required": False,
            "description": "How long the answer is waited for, in seconds. What is too late is not computed.",
            "schema": {"type": "number", "minimum": MIN_TIMEOUT_S, "maximum": most_s, "default": most_s},
            "example": min(2.5, most_s),
        },
        {
            "name": KEY,
            "in": "header",
            "required": False,
            "description": "Makes a retry safe: with the same key and the same picture it joins the first, or gets "
            "its answer, whichever gateway it comes to. With another picture it is `idempotency-key-reused`.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
        },
        {
            "name": "X-Request-ID",
            "in": "header",
            "required": False,
            "description": "Comes back in the answer and names the request in the log; made here if there is none.",
            "schema": {"type": "string"},
            "example": "holiday-2024-0017",
        },
    ]
