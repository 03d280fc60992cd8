"""TCP servers and proxies in the tests' own process, of which nothing is left when they end.

A connection that outlives its event loop is only closed when it is collected: that fails some other test, later. For
asyncio's own loop, not for uvloop's, which closes in its own time.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from threading import Thread
from typing import Self, TypeVar, cast

HOST = "127.0.0.1"
_READ_AHEAD = 1 << 16

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ResultT = TypeVar("ResultT")


class Streams:
    """Connections that are accepted and made in one event loop; all of them end with the block.

    Attributes:
        open: those that have a socket, whoever else has forgotten them.
    """

    def __init__(self) -> None:
        self.open: set[asyncio.WriteTransport] = set()
        self._listening: list[socket.socket] = []
        self._served: dict[asyncio.Task[None], socket.socket] = {}
        self._failures: list[BaseException] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def listen(self, serve: Serve, *, read_ahead: int = _READ_AHEAD) -> int:
        """Accept connections; the port.

        Args:
            serve: when it returns, the connection is closed; it may raise OSError and EOFError, as who has gone is none
                of its failures.
            read_ahead: bytes that are taken from a caller before anybody reads them.
        """
        listening = socket.create_server((HOST, 0))
        listening.setblocking(False)

        def accept() -> None:
            with suppress(BlockingIOError, ConnectionAbortedError):
                caller, _ = listening.accept()
                task = asyncio.create_task(self._serve(serve, caller, read_ahead))
                self._served[task] = caller
                task.add_done_callback(self._note)

        # Not `create_server`, which forgets who was accepted when it is closed before it has made a transport of him.
        asyncio.get_running_loop().add_reader(listening, accept)
        self._listening.append(listening)
        return int(listening.getsockname()[1])

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: _Stream(self.open, _READ_AHEAD), HOST, port)
        return stream.reader, stream.writer

    async def cut(self) -> None:
        """End the connections that there are; when it returns, their sockets are closed."""
        while self._served or self.open:
            for task in self._served:
                task.cancel()
            for transport in self.open:
                transport.abort()
            if self._served:
                await asyncio.wait(self._served, timeout=1)
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Listen no more, and end all connections. Raises what was raised where one was served."""
        for listening in self._listening:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        await self.cut()
        if self._failures:
            raise self._failures[0]

    async def _serve(self, serve: Serve, caller: socket.socket, read_ahead: int) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError, EOFError):
            _, stream = await loop.connect_accepted_socket(lambda: _Stream(self.open, read_ahead), caller)
            try:
                await serve(stream.reader, stream.writer)
            finally:
                stream.writer.close()

    def _note(self, task: asyncio.Task[None]) -> None:
        caller = self._served.pop(task)
        if task.cancelled():
            caller.close()  # nobody else does if it had not begun
        elif failure := task.exception():
            self._failures.append(failure)


class _Stream(asyncio.StreamReaderProtocol):
    """What is below asyncio's reader and writer; it knows when its connection begins and when its socket is closed."""

    writer: asyncio.StreamWriter

    def __init__(self, all_open: set[asyncio.WriteTransport], read_ahead: int) -> None:
        self.reader = asyncio.StreamReader(read_ahead)
        super().__init__(self.reader)
        self._all_open = all_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        writable = cast("asyncio.WriteTransport", transport)
        self.writer = asyncio.StreamWriter(writable, self, self.reader, asyncio.get_running_loop())
        self._all_open.add(writable)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._all_open.discard(self.writer.transport)


class StreamsInThread:
    """Streams with a thread and a loop of their own, so that they go on while a test blocks."""

    def __init__(self) -> None:
        self.streams = Streams()
        self._over = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="streams", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, work: Coroutine[None, None, ResultT]) -> ResultT:
        """Do it there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        try:
            self.do(self.streams.end())
        finally:
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._over.wait())
