"""A host on the internet, as far as a test has one: it listens on every address of this machine."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from service.addresses import Address

Page = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]

# Answers that are none, or not ones of which it is clear where they end.
NOT_HTTP: tuple[bytes, ...] = (
    b"",
    b"not HTTP at all\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://a\x00.example/\r\nContent-Length: 0\r\n\r\n",
)  # fmt: skip


@dataclass
class WebHost:
    """Answers GET with what `pages` has for the path, exactly as it is there.

    Attributes:
        arrivals: the address at which each connection arrived.
        heads: what each request said before its empty line.
        ended: how many connections are over.
    """

    port: int = 0
    pages: dict[str, Page] = field(default_factory=dict)
    arrivals: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    ended: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrivals.append(writer.get_extra_info("sockname")[0])
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            page = self.pages.get(head.split(" ")[1], answer(b"no such page", status="404 Not Found"))
            if isinstance(page, bytes):
                writer.write(page)
                await writer.drain()
            else:
                await page(writer)
        except (asyncio.IncompleteReadError, OSError, RuntimeError):
            pass  # the caller has gone; RuntimeError is how uvloop may say so
        finally:
            self.ended += 1
            writer.close()

    def header(self, name: str) -> list[str]:
        """A header of each request."""
        lines = [line.partition(": ") for head in self.heads for line in head.split("\r\n")[1:]]
        return [value for key, _, value in lines if key.lower() == name]


def answer(body: bytes, *, status: str = "200 OK", **headers: str) -> bytes:
    """A response with these headers, and with Content-Length unless one is given."""
    stated = {"content_length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in stated.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    head = b"HTTP/1.1 " + status.encode() + b"\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\n"
    return head + b"Location: " + location.encode("utf-8", "surrogatepass") + b"\r\n\r\n"


@asynccontextmanager
async def web_host(tls: ssl.SSLContext | None = None) -> AsyncIterator[WebHost]:
    host = WebHost()
    server = await asyncio.start_server(host.serve, ["0.0.0.0"], 0, ssl=tls)  # noqa: S104  # so that every trap is set
    host.port = server.sockets[0].getsockname()[1]
    six = await asyncio.start_server(host.serve, ["::1"], host.port, ssl=tls)
    try:
        yield host
    finally:
        server.close()
        six.close()


class FakeDns:
    """Answers from a table, for each lookup of a name the next answer.

    Attributes:
        asked: the names, in order.
    """

    def __init__(self, names: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._names = names
        self.asked: list[str] = []
        self.closed = False

    async def resolve(self, name: str) -> Sequence[Address]:
        answers = self._names.get(name, [[]])
        answer = answers[min(self.asked.count(name), len(answers) - 1)]
        self.asked.append(name)
        if "failure" in answer:
            raise OSError("server failure")
        return [ip_address(text) for text in answer]

    async def close(self) -> None:
        self.closed = True
