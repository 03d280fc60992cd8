"""Accept -> JSON or PNG (RFC 9110, section 12.5.1). Pure."""

from typing import Literal

from service.errors import NotAcceptable

Form = Literal["json", "png"]
# In the order of preference among equals.
_OFFERS: tuple[tuple[Form, str], ...] = (("json", "application/json"), ("png", "image/png"))


def negotiate(accept: str | None) -> Form:
    """The offer of highest quality. Raises NotAcceptable when every offer has quality 0."""
    if accept is None or accept == "*/*" or not accept.strip():
        return "json"
    ranges = [_parse(item) for item in accept.split(",") if item.strip()]
    qualities = {form: _quality(media_type, ranges) for form, media_type in _OFFERS}
    form = max(qualities, key=lambda form: qualities[form])  # the first of equals
    if qualities[form] == 0:
        offers = " or ".join(media_type for _, media_type in _OFFERS)
        raise NotAcceptable(f"the answer can be {offers}; Accept allows neither: {accept}")
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
