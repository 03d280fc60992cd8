"""The URLs that are fetched: one strict reading of them, for a second one would be a way around the first. Pure."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal
from urllib.parse import quote, urljoin

import idna

from service.errors import InvalidUrl

Scheme = Literal["http", "https"]

MAX_LENGTH = 2048  # characters; what CDNs sign is below it, and no common browser or proxy promises more
_DEFAULT_PORTS: dict[Scheme, int] = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[^\[\]/?#@:%]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?",
    re.ASCII | re.IGNORECASE,  # without ASCII a long s would end "https" as well
)
_CREDENTIALS = re.compile(r"[^/?#]*//[^/?#]*@")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# What RFC 3986 lets stand in a path or a query; all else is sent percent-encoded.
_AS_IT_IS = "/?:@!$&'()*+,;=-._~%[]"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and what to ask for there.

    Attributes:
        host: a name in ASCII, in lower case and without a final dot; or an address, IPv6 without brackets.
        path: with the query; ASCII without spaces.
    """

    scheme: Scheme
    host: str
    port: int
    path: str

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The host if it is an address; None if it is a name."""
        if ":" in self.host:
            return IPv6Address(self.host)
        return IPv4Address(self.host) if _NUMBER.fullmatch(self.host.rpartition(".")[2]) else None

    @property
    def authority(self) -> str:
        """As the Host header states it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    def join(self, reference: str) -> "Target":
        """Where a redirect from here leads. Raises InvalidUrl."""
        _check_text(reference)  # before `urljoin`, which drops some characters
        try:
            return parse(urljoin(str(self), reference))
        except ValueError as error:  # of `urljoin`, for brackets that do not match
            raise InvalidUrl("the URL cannot be parsed") from error


def parse(text: str) -> Target:
    """Read an absolute http or https URL. Raises InvalidUrl, whose message never repeats the URL: it may hold secrets.

    Hosts in one spelling only: an IPv4 address as four decimal numbers without leading zeros, no percent
    signs, so no zones either; other scripts by UTS 46. A fragment is dropped.
    """
    _check_text(text)
    if not text[:8].lower().startswith(("http://", "https://")):
        raise InvalidUrl("the URL must begin with http:// or https://")
    if _CREDENTIALS.match(text):
        raise InvalidUrl("the URL holds a user name or a password; requests are sent without")
    match = _URL.fullmatch(text)
    if not match:
        raise InvalidUrl("the URL cannot be parsed")
    scheme: Scheme = "https" if match["scheme"].lower() == "https" else "http"
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[scheme]
    if not 0 < port < 1 << 16:
        raise InvalidUrl("the URL's port is not between 1 and 65535")
    path = quote((match["path"] or "/") + (match["query"] or ""), safe=_AS_IT_IS)
    return Target(scheme, _host(match["host"]), port, path)


def _check_text(text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise InvalidUrl(f"the URL is longer than {MAX_LENGTH} characters")
    if not text.isprintable() or " " in text or "\\" in text:
        raise InvalidUrl("the URL holds a space, a backslash or an unprintable character: percent-encode them")


def _host(text: str) -> str:
    try:
        if text.startswith("["):
            return str(IPv6Address(text[1:-1]))
        # Full-width digits and dots become plain ones first, so that an address is seen to be one.
        name = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode("ascii")
        name = name.removesuffix(".")
        labels = name.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return str(IPv4Address(name))
    except ValueError as error:  # of `ipaddress`; idna's is a UnicodeError, which is one
        raise InvalidUrl(_BAD_HOST) from error
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidUrl(_BAD_HOST)
    return name


_BAD_HOST = "the URL's host is neither a valid name nor an address in its usual spelling"
