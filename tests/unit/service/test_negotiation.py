import pytest

from service.errors import NotAcceptable
from service.routes.negotiation import OFFERS, negotiate


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "json"),
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("application/*", "json"),
        ("image/png", "png"),
        ("image/*", "png"),
        ("IMAGE/PNG", "png"),
        ("image/png, application/json", "json"),
        ("image/png, application/json;q=0.9", "png"),
        ("image/png;q=0.1, */*;q=0.01", "png"),
        ("application/json;q=0, */*", "png"),
        ("image/avif,image/webp,*/*;q=0.8", "webp"),
        ("text/html,application/xhtml+xml,image/png;q=0.9", "png"),
        ("application/json;q=broken, image/png;q=0.1", "png"),
    ],
)
def test_negotiate(accept: str | None, form: str) -> None:
    assert negotiate(accept, OFFERS) == form


@pytest.mark.parametrize("accept", ["text/html", "image/avif", "application/json;q=0", "*/*;q=0"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        negotiate(accept, OFFERS)
