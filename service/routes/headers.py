"""What every answer tells a browser not to do, and which other pages may read it: none, unless the settings name some.

The policy is made by the library `secure`, once; here it is appended to answers. Its own middleware would make it anew
for each of them, and overwrite what a route has said itself.

No Strict-Transport-Security: the service speaks plain HTTP, in which browsers ignore it. The proxy that speaks TLS
knows its host and its subdomains, and says it for them.
"""

from collections.abc import Mapping, Sequence

from secure import Secure
from secure.headers import (
    ContentSecurityPolicy,
    CrossOriginOpenerPolicy,
    CrossOriginResourcePolicy,
    PermissionsPolicy,
    ReferrerPolicy,
    XContentTypeOptions,
    XFrameOptions,
)
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.routes.under_path import own_path

# Swagger UI starts itself by a script inside the page, which no caller has any influence on.
_SWAGGER = frozenset({"/docs", "/docs/oauth2-redirect"})

_EXPOSED = (
    "X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy", "WWW-Authenticate", "ETag", "Link", "Location",
    "Cache-Status", "X-Complexity-Score", "X-Complexity-Percentile", "X-Complexity-Entropy",
)  # fmt: skip
_ACCEPTED = (
    "Authorization", "X-API-Key", "Content-Type", "Idempotency-Key", "If-None-Match", "Cache-Control", "X-Request-ID",
    "X-Request-Timeout", "Last-Event-ID",
)  # fmt: skip

_Headers = list[tuple[bytes, bytes]]


class SecurityHeaders:
    """Pure ASGI, around all that can fail: also what nobody foresaw is answered with them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answer = _encoded(_policy(_nothing()))
        self._page = _encoded(_policy(_page()))
        self._swagger = _encoded(_policy(_page().script_src("'self'", "'unsafe-inline'")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for_page = self._swagger if own_path(scope) in _SWAGGER else self._page

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Mapping[bytes, bytes] = dict(message["headers"])
                is_page = headers.get(b"content-type", b"").startswith(b"text/html")
                policy = for_page if is_page else self._answer
                # What a route says itself holds.
                message["headers"] = [*message["headers"], *(each for each in policy if each[0] not in headers)]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Let pages of these origins ask and read the answers; with none nothing is added, and browsers let nobody.

    Without credentials: an API key is sent by a page's script, never by the browser on its own as a cookie is.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=_ACCEPTED,
        expose_headers=_EXPOSED,
        max_age=600,
    )


def _policy(content: ContentSecurityPolicy) -> Secure:
    return Secure(
        csp=content,
        coop=CrossOriginOpenerPolicy().same_origin(),
        corp=CrossOriginResourcePolicy().same_origin(),
        permissions=PermissionsPolicy().camera().geolocation().microphone(),
        referrer=ReferrerPolicy().no_referrer(),
        xcto=XContentTypeOptions().nosniff(),
        xfo=XFrameOptions().deny(),
    )


def _nothing() -> ContentSecurityPolicy:
    """For JSON and pictures: should a browser ever show one as a page, it loads and runs nothing."""
    return ContentSecurityPolicy().default_src("'none'").frame_ancestors("'none'")


def _page() -> ContentSecurityPolicy:
    """For our own pages: their own files, pictures that they have made themselves, and our own API."""
    return (
        ContentSecurityPolicy()
        .default_src("'self'")
        .img_src("'self'", "data:", "blob:")
        .style_src("'self'", "'unsafe-inline'")
        .object_src("'none'")
        .base_uri("'none'")
        .form_action("'self'")
        .frame_ancestors("'none'")
    )


def _encoded(policy: Secure) -> _Headers:
    return [(name.lower().encode(), value.encode()) for name, value in policy.headers.items()]
