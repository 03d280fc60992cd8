"""Requests to hosts that others name: only to public addresses, and exactly to the ones that were checked.

    target -> port allowed? -> resolve, once -> every address public? -> connect to those, no other

httpcore2 speaks the HTTP, and nothing more: it knows no proxies of the environment, no cookies, no
redirects and no decoding. A connection carries one exchange, so none is ever shared between hosts.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

import httpcore2
from httpcore2 import AsyncNetworkStream

from service.addresses import Address, IsPublic, is_public, is_public_name
from service.errors import FetchFailed, ForbiddenUrl
from service.urls import Target

PORTS = frozenset({80, 443})
_CONNECT_S = 3.0  # for one address, so that a host whose IPv6 is broken still answers in time over IPv4
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}  # not everywhere two things
_LOOKUPS = 8  # at once; a name server that never answers holds each for some 10 s


class Resolver(Protocol):
    """Asks the DNS."""

    async def resolve(self, name: str) -> Sequence[Address]:
        """All addresses of a name, none if there is no such name. Raises OSError when it cannot be known now."""
        ...

    async def close(self) -> None: ...


class SystemResolver:
    """The operating system's, in threads of its own: lookups that hang must not keep others from their threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="resolve")

    async def resolve(self, name: str) -> Sequence[Address]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, name)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(name: str) -> Sequence[Address]:
    try:
        # Absolute by its final dot: neither this host's search list nor its own short names are meant.
        found = socket.getaddrinfo(f"{name}.", None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            return []
        raise
    return [ip_address(str(sockaddr[0])) for *_, sockaddr in found]


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What a host answered; to be read inside `exchange` only.

    Attributes:
        body: as it arrives, at most 64 KiB at a time, not decoded.
    """

    status: int
    body: AsyncIterator[bytes]
    _headers: Sequence[tuple[bytes, bytes]]

    def header(self, name: str) -> str | None:
        """All values of a header, joined by commas; None if there is none."""
        values = [value.decode("utf-8", "replace") for key, value in self._headers if key.lower() == name.encode()]
        return ", ".join(values) if values else None


class Outbound:
    """Makes requests; holds no connection between them. Safe for many tasks at once."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        allowed: IsPublic = is_public,
        ports: frozenset[int] = PORTS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """What is `allowed` decides, for each address, whether to connect; `tls` None: the system's trusted roots."""
        self._resolver = resolver
        self._allowed = allowed
        self._ports = ports
        self._tls = tls or ssl.create_default_context()

    @asynccontextmanager
    async def exchange(
        self, method: str, target: Target, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncGenerator[Reply]:
        """Send one request; its connection ends with the block. No time limit of its own.

        Raises ForbiddenUrl, before anything is sent to anybody, and FetchFailed, also while the body is read.
        """
        addresses = await self._addresses(target)
        host = target.host.encode("ascii")
        origin = httpcore2.Origin(target.scheme.encode("ascii"), host, target.port)
        network = _Pinned(addresses)
        connection = httpcore2.AsyncHTTPConnection(origin, ssl_context=self._tls, network_backend=network)
        url = httpcore2.URL(scheme=target.scheme, host=host, port=target.port, target=target.path)
        sent = list({"Host": target.authority, "Connection": "close", **headers}.items())
        try:
            async with (
                connection.stream(method, url, headers=sent, content=content) as response,
                aclosing(response.aiter_stream()) as body,
            ):
                yield Reply(response.status, body, response.headers)
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            raise FetchFailed(f"{target.host!r} {_reason(error)}") from error
        finally:
            await network.aclose()  # the connection itself forgets one whose handshake was cancelled

    async def close(self) -> None:
        await self._resolver.close()

    def check(self, target: Target) -> None:
        """What is known of a target before anybody is asked: its port, its address, names that are local by standard.

        Raises ForbiddenUrl.
        """
        if target.port not in self._ports:
            ports = ", ".join(map(str, sorted(self._ports)))
            raise ForbiddenUrl(f"port {target.port} is not allowed; allowed: {ports}")
        if not (self._allowed(target.address) if target.address else is_public_name(target.host)):
            raise _no_public_host(target)

    async def _addresses(self, target: Target) -> Sequence[Address]:
        """Those of the target, all public. Raises ForbiddenUrl, FetchFailed."""
        self.check(target)
        addresses = [target.address] if target.address else await self._resolve(target.host)
        if not addresses or not all(map(self._allowed, addresses)):
            raise _no_public_host(target)
        return addresses

    async def _resolve(self, name: str) -> Sequence[Address]:
        try:
            return await self._resolver.resolve(name)
        except OSError as error:
            raise FetchFailed(f"the address of {name!r} cannot be found at the moment") from error


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked, in their order, whatever name it is asked for."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._network = httpcore2.AnyIOBackend()
        self._streams: list[AsyncNetworkStream] = []

    async def aclose(self) -> None:
        for stream in self._streams:
            await stream.aclose()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002  # to look it up again would be to connect to what was not checked
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109  # not ours: it is how httpcore2 calls it
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        failure: Exception = httpcore2.ConnectError("no address")
        for address in self._addresses:
            try:
                stream = await self._network.connect_tcp(str(address), port, _CONNECT_S, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                self._streams.append(stream)
                return stream
        raise failure


def _no_public_host(target: Target) -> ForbiddenUrl:
    """The same words for a name that does not exist: nobody learns which internal names there are."""
    return ForbiddenUrl(f"{target.host!r} is no public host: it has no address, or one that is not public")


def _reason(error: Exception) -> str:
    """In words that name no address and repeat nothing that the host said."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"has no valid certificate: {cause.verify_message}"
    match error:
        case httpcore2.ConnectError() | httpcore2.ConnectTimeout():
            return "cannot be reached" if not isinstance(cause, ssl.SSLError) else "does not speak TLS as we do"
        case httpcore2.ProtocolError():
            return "does not speak HTTP as it should"  # h11 would quote it: not every secret is on a private host
        case _:
            return "broke off the connection"
