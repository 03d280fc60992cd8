"""The service under a path of another host, https://host/complexity/, as ASGI's `root_path` names it.

uvicorn puts that path before every other, for a proxy that has cut it off. Of one that has not, nginx and ingresses as
a rule, a request comes with it, and so twice; here that becomes once. No path of the service's own begins with it
(`service.settings` sees to that), so both kinds are told apart, and who asks without it, as probes do, is a third.

Inside nobody knows of it but whoever writes a path into a body. In headers it is added here, as nginx would do it.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class UnderPath:
    """Pure ASGI, around everything else, for nobody else is to see a path that has it twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        root = root_path(scope)
        if root and f"{scope['path']}/".startswith(f"{root}{root}/"):
            raw_path: bytes | None = scope.get("raw_path")
            scope = {**scope, "path": scope["path"].removeprefix(root)}
            if raw_path is not None:  # as sent, so its letters may be escaped
                scope["raw_path"] = raw_path.removeprefix(root.encode())
        host = dict(scope["headers"]).get(b"host", b"")
        here = scope.get("scheme", "http").encode() + b"://" + host + b"/"

        async def send_with_path(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(name, _told(name, value, root, here)) for name, value in message["headers"]]
            await send(message)

        await self._app(scope, receive, send_with_path)


def root_path(scope: Scope) -> str:
    """The path under which the whole service is; "" where it has a host of its own."""
    # A mount adds its own path to `root_path`, in this same scope, and keeps the whole service's as `app_root_path`.
    return str(scope.get("app_root_path", scope.get("root_path", "")))


def own_path(scope: Scope) -> str:
    """What is asked for, without the path under which the service is: what the router looks at, whose "" is "/"."""
    root, path = root_path(scope), str(scope["path"])
    return (path.removeprefix(root) or "/") if f"{path}/".startswith(f"{root}/") else path


def _told(name: bytes, value: bytes, root: str, here: bytes) -> bytes:
    if name == b"location":
        # The framework names scheme and host, by headers that not every proxy sets and nobody has to believe.
        if value.startswith(here):
            return b"/" + value.removeprefix(here).lstrip(b"/")  # with two of them it would be another host
        return _under(root, value)
    return b"<" + _under(root, value[1:]) if name == b"link" and value.startswith(b"</") else value


def _under(root: str, path: bytes) -> bytes:
    return root.encode() + path if path.startswith(b"/") else path
