"""Who may enter, and how often: an API key, its scope, its rate and its quota, before a byte of the body is read.

Pure ASGI inside of `service.routes.edge`, not a dependency of each route: so no route can forget it, a path that does
not exist answers a stranger as one that does, and every answer says how the caller stands, be it an error or not.
Only the answer to a defect of ours, which `Edge` gives, does not.

Open to everybody: /livez and /readyz, for balancers have no keys; /docs with its schema, /errors and the page at /,
which hold nothing that is not public, and without which nobody learns how to use a key. /metrics tells how much is
asked and wants the scope admin; Prometheus sends a key by `authorization: {credentials_file: ...}`.

RateLimit and RateLimit-Policy are those of draft-ietf-httpapi-ratelimit-headers-11 (May 2026):

    RateLimit-Policy: "rate";q=10;w=1, "quota";q=10000;w=86400
    RateLimit: "rate";r=9;t=1, "quota";r=8431;t=30512
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from service.allowance import Allowance
from service.errors import Forbidden, QuotaExceeded, RateLimited, ServiceError, Unauthorized
from service.keys import KeyFile, Scope
from service.limits import Limiter, Meter
from service.routes.problems import problem_response, responses
from service.routes.under_path import own_path

Refusal = Literal["unauthorized", "forbidden"]

OPEN = frozenset({"/", "/livez", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/errors"})
OPEN_BELOW = ("/static-offline-docs/", "/static/", "/errors/")
ADMIN = frozenset({"/metrics"})

_CHALLENGE = 'Bearer realm="clicv2"'
_Headers = list[tuple[bytes, bytes]]
_VARY = (b"vary", b"Authorization, X-API-Key")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        id: of the key, or the address if nobody needs one; never the key itself.
        meter: for a route that finds more than one picture in a request: `await caller.meter.pictures(n - 1)`.
    """

    id: str
    name: str
    scope: Scope
    meter: Meter


class Access:
    """Pure ASGI, inside `Edge`, around everything else.

    Args:
        keys: None: nobody needs a key, and everybody may do everything.
        anonymous: rate of each address when nobody needs a key; None: as fast as they come. Callers behind a proxy
            have one address, that of the proxy, unless the server has been told to believe its X-Forwarded-For.
        on_refused: called for each stranger; the limiter itself tells of the others.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyFile | None,
        limiter: Limiter,
        *,
        anonymous: Allowance | None = None,
        on_refused: Callable[[Refusal], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._keys = keys
        self._limiter = limiter
        self._anonymous = anonymous
        self._on_refused = on_refused

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_open(own_path(scope)):
            await self._app(scope, receive, send)
            return
        try:
            caller = self._identify(scope)
        except (Unauthorized, Forbidden) as error:
            self._on_refused("unauthorized" if isinstance(error, Unauthorized) else "forbidden")
            await _refuse(error, scope, receive, send)
            return
        scope["state"]["caller"] = caller

        async def send_with_standing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *standing_headers(caller.meter)]
                message["headers"] = [*headers, _VARY] if self._keys else headers
            await send(message)

        try:
            await caller.meter.request()
            if scope["method"] == "POST":  # nothing else scores pictures
                await caller.meter.pictures(1)
        except RateLimited as error:
            await _refuse(error, scope, receive, send_with_standing)
            return
        await self._app(scope, receive, send_with_standing)

    def _identify(self, scope: AsgiScope) -> Caller:
        if self._keys is None:
            address = _address(scope)
            return Caller(address, "anonymous", "admin", Meter(self._limiter, address, self._anonymous, None))
        presented = _presented(scope["headers"])
        if presented is None:
            raise Unauthorized("send an API key: `Authorization: Bearer KEY`, or `X-API-Key: KEY`", _CHALLENGE)
        key = self._keys.find(presented)
        if key is None:
            raise Unauthorized("the API key is not valid: unknown, mistyped or revoked", _challenge("invalid_token"))
        wanted: Scope = "admin" if own_path(scope) in ADMIN else "read"
        if not key.allows(wanted):
            challenge = _challenge("insufficient_scope") + f', scope="{wanted}"'
            raise Forbidden(f"this needs an API key with the scope {wanted!r}; this one has {key.scope!r}", challenge)
        return Caller(key.id, key.name, key.scope, Meter(self._limiter, key.id, key.rate, key.quota))


def caller_of(request: Request) -> Caller:
    """Who sent a request to a path that is not open."""
    return cast("Caller", request.scope["state"]["caller"])


def standing_headers(meter: Meter) -> _Headers:
    """RateLimit-Policy and RateLimit; none when nothing is limited."""
    if not meter.allowances:
        return []
    policies = ", ".join(f'"{name}";q={each.amount};w={each.window_s}' for name, each in meter.allowances.items())
    standings = ", ".join(f'"{name}";r={each.remaining};t={each.until_s}' for name, each in meter.standings.items())
    fields: _Headers = [(b"ratelimit-policy", policies.encode())]
    return [*fields, (b"ratelimit", standings.encode())] if standings else fields


def describe(schema: dict[str, Any], *, guarded: bool = False) -> dict[str, Any]:
    """Put into an OpenAPI document how to send a key, and what is answered without one.

    Args:
        guarded: whether this server wants keys. If not, an empty requirement says that none is needed, while the
            document still tells how a server that does is asked.
    """
    schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["bearer"] = {"type": "http", "scheme": "bearer", "description": "An API key: `clicv2_...`."}
    schemes["apiKey"] = {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."}
    with_key: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if _is_open(path):
                operation["security"] = []
                continue
            operation["security"] = with_key if guarded else [{}, *with_key]
            for status, response in _refusals(path, method).items():
                operation["responses"].setdefault(str(status), response)
            for response in operation["responses"].values():
                response.setdefault("headers", {}).update(_STANDING)
            for status in ("401", "403") if path in ADMIN else ("401",):
                operation["responses"][status]["headers"]["WWW-Authenticate"] = _CHALLENGED
    return schema


def _refusals(path: str, method: str) -> dict[int | str, dict[str, Any]]:
    scope = (Forbidden,) if path in ADMIN else ()
    quota = (QuotaExceeded,) if method == "post" else ()
    return responses(Unauthorized, *scope, RateLimited, *quota)


_CHALLENGED: Mapping[str, object] = {
    "description": "How to identify oneself (RFC 6750), and what was wrong with the key.",
    "schema": {"type": "string"},
    "example": _CHALLENGE,
}
_STANDING: Mapping[str, object] = {
    "RateLimit-Policy": {
        "description": "What the key allows: `q` in `w` seconds. Absent where nothing is limited.",
        "schema": {"type": "string"},
        "example": '"rate";q=10;w=1, "quota";q=10000;w=86400',
    },
    "RateLimit": {
        "description": "What is left of it: `r` for the next `t` seconds.",
        "schema": {"type": "string"},
        "example": '"rate";r=9;t=1, "quota";r=8431;t=30512',
    },
}


async def _refuse(error: ServiceError, scope: AsgiScope, receive: Receive, send: Send) -> None:
    response = problem_response(str(scope["state"]["request_id"]), error)
    if isinstance(error, Unauthorized | Forbidden):
        response.headers["WWW-Authenticate"] = error.challenge
    await response(scope, receive, send)


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW)


def _presented(headers: _Headers) -> str | None:
    """The key in a request. An Authorization of another kind may be meant for a proxy on the way."""
    given = dict(headers)
    scheme, _, token = given.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip().decode("latin-1")
    key = given.get(b"x-api-key")
    return None if key is None else key.strip().decode("latin-1")


def _challenge(error: str) -> str:
    return f'{_CHALLENGE}, error="{error}"'


def _address(scope: AsgiScope) -> str:
    """Of IPv6 the first 64 bits: who has one such address has 2^64 of them.

    "unknown" for what is none, be it a name of anybody's invention that a proxy has passed on: those count as one.
    """
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return "unknown"
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:  # as proxies write it that listen to both kinds at once; all are in one network of 64 bits
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
