"""What a server says of one picture, and what it says of itself."""

from functools import partial
from pathlib import Path

import clicv2_client
import httpx
import pytest
from clicv2_client.testing import PNG, FakeService

from clicv2.sources import ImageSource
from service.files.errors import ServerFailed
from service.files.finding import Picture
from service.files.pipeline import PictureError
from service.files.remote import _HOPELESS, RemoteScorer


class Behind(FakeService):
    """A service behind a proxy that has a limit of its own."""

    LIMIT = 1000

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if len(request.read()) > self.LIMIT:
            return httpx.Response(413, text="<h1>413 Request Entity Too Large</h1>")
        return super().handle_request(request)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    found = Behind()
    monkeypatch.setattr(clicv2_client, "Client", partial(clicv2_client.Client, transport=found))
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Picture]:
    contents = {"good.png": PNG, "text.png": b"text", "large.png": PNG + bytes(Behind.LIMIT)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: Picture(name, ImageSource(name, tmp_path / name)) for name in contents}


def scorer() -> RemoteScorer:
    return RemoteScorer("http://service.example", 10, "clicv2", 1 << 20)


def test_what_is_wrong_with_one_picture_is_its_own(service: FakeService, pictures: dict[str, Picture]) -> None:
    with scorer() as asked:
        assert asked.row(pictures["good.png"]).score is not None
        with pytest.raises(PictureError, match="not a picture"):
            asked.row(pictures["text.png"])
        with pytest.raises(PictureError, match="413"):  # of a proxy, in no words of the service
            asked.row(pictures["large.png"])


@pytest.mark.parametrize("slug", ["internal-error", "unauthorized", "quota-exceeded", "not-found"])
def test_what_no_picture_would_change_ends_it(service: FakeService, pictures: dict[str, Picture], slug: str) -> None:
    with scorer() as asked:
        service.fail(slug, times=2, retry_after_s=3600)
        with pytest.raises(ServerFailed, match=slug.replace("-", " ")):
            asked.row(pictures["good.png"])


@pytest.mark.parametrize("between", ["good.png", "text.png", "large.png"])
def test_a_server_that_fails_with_every_picture_has_failed(
    service: FakeService, pictures: dict[str, Picture], between: str
) -> None:
    """One that answers in between has not, even if it says that a picture is none."""

    def fail(times: int) -> None:
        service.fail("inference-failed", times=times)
        for _ in range(times):
            with pytest.raises(PictureError, match="inference failed"):
                asked.row(pictures["good.png"])

    with scorer() as asked:
        fail(_HOPELESS - 1)
        if between == "good.png":
            asked.row(pictures[between])
        else:
            with pytest.raises(PictureError):
                asked.row(pictures[between])
        fail(_HOPELESS - 1)
        service.fail("inference-failed")
        with pytest.raises(ServerFailed, match=f"for {_HOPELESS} pictures, one after the other: inference failed"):
            asked.row(pictures["good.png"])
