"""How a client is set up: by arguments, or by the environment."""

import os
from dataclasses import dataclass, field
from importlib.metadata import version

import httpx

URL = "CLICV2_URL"
API_KEY = "CLICV2_API_KEY"
# Where `clicv2 serve` listens when nobody tells it otherwise, and how long it gives each request.
DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S = 10.0
# Of many pictures each may wait longer: nobody sits in front of it, and a busy service sends it away to come back.
DEFAULT_MANY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """Where the service is, and as whom to ask it."""

    base_url: httpx.URL
    headers: dict[str, str] = field(repr=False)  # they hold the key

    @classmethod
    def of(cls, base_url: str | None, api_key: str | None) -> "Options":
        """Raises ValueError for what is no URL of HTTP."""
        given = base_url or os.environ.get(URL) or DEFAULT_URL
        key = api_key or os.environ.get(API_KEY)
        try:
            url = httpx.URL(given)
        except httpx.InvalidURL as error:
            raise ValueError(f"not a URL: {given!r}: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"not a URL of a service: {given!r}; it begins with http:// or https://")
        headers = {"User-Agent": f"clicv2-client/{version('clicv2-client')}"}
        return cls(url, headers | ({"Authorization": f"Bearer {key}"} if key else {}))


# Of a job's upload, which may be long: as much as the service gives it.
DEFAULT_SUBMIT_TIMEOUT_S = 300.0

# As many connections as there are calls at once; httpx's own limit of 100 would make the others wait for nothing.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)
