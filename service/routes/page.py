"""GET /: the page for people, and the files that it is made of. It has no more rights than any other client."""

import os
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import Scope

_WEB = Path(__file__).parents[1] / "web"
# Asked again each time, and answered with 304 while it is the same: a new version of the service shows at once.
_ASK_AGAIN = {"Cache-Control": "no-cache"}


class _Files(StaticFiles):
    """Under our own policy of caching."""

    def file_response(
        self, full_path: PathLike, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """See StaticFiles."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_ASK_AGAIN)
        return response


def install(app: FastAPI) -> None:
    """Not part of the schema: it is no API."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    def page() -> FileResponse:
        return FileResponse(_WEB / "index.html", headers=_ASK_AGAIN)

    app.include_router(router)
    app.mount("/static", _Files(directory=_WEB / "static"), name="static")
