"""Accept -> what the answer is made of (RFC 9110, section 12.5.1). Pure."""

from collections.abc import Mapping
from typing import Literal, TypeVar

from service.errors import NotAcceptable

Form = Literal["json", "png", "webp"]
FormT = TypeVar("FormT", bound=str)

# In the order of preference among equals.
OFFERS: Mapping[Form, str] = {"json": "application/json", "png": "image/png", "webp": "image/webp"}


def negotiate(accept: str | None, offers: Mapping[FormT, str]) -> FormT:
    """The offer of highest quality. Raises NotAcceptable when every offer has quality 0."""
    if accept is None or accept == "*/*" or not accept.strip():
        return next(iter(offers))
    ranges = [_parse(item) for item in accept.split(",") if item.strip()]
    qualities = {form: _quality(media_type, ranges) for form, media_type in offers.items()}
    form = max(qualities, key=lambda form: qualities[form])  # the first of equals
    if qualities[form] == 0:
        raise NotAcceptable(f"the answer can be {' or '.join(offers.values())}; Accept allows none of it: {accept}")
    return form


def _parse(item: str) -> tuple[str, float]:
    media_range, *parameters = item.split(";")
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return media_range.strip().lower(), quality


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """That of the most specific range which the type is in."""
    family = media_type.partition("/")[0]
    for wanted in (media_type, f"{family}/*", "*/*"):
        found = [quality for media_range, quality in ranges if media_range == wanted]
        if found:
            return max(found)
    return 0.0
