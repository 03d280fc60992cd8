"""A TCP proxy between a server and its callers that treats their connections as bad networks do."""

import asyncio
import socket
import struct
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from enum import StrEnum
from threading import Thread
from typing import TypeVar

HOST = "127.0.0.1"
_PIECE = 1 << 16
_DRIP_BYTES, _DRIP_S = 64, 0.1
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER that makes a close an RST

ResultT = TypeVar("ResultT")


class Fault(StrEnum):
    """What the network does.

    NONE: everything arrives.
    DELAY: each piece arrives late, even if by then nobody waits for its answer.
    CUT: connections end, and new ones as soon as they are made.
    RESET: the same with an RST instead of a goodbye.
    BLACK_HOLE: nothing arrives and nothing ends. A connection that was used meanwhile never comes back,
        as behind a firewall that has forgotten it.
    DRIP: a few bytes at a time, so that nobody who waits for the next ones waits long.
    """

    NONE = "none"
    DELAY = "delay"
    CUT = "cut"
    RESET = "reset"
    BLACK_HOLE = "black hole"
    DRIP = "drip"


class Proxy:
    """Runs in a thread of its own, so that it goes on while a test blocks.

    Args:
        target: port of the server.
        delay_s: how late each piece is, in each direction.

    Attributes:
        fault: how connections are treated, those that there are and those to come.
        port: where callers connect to.
    """

    def __init__(self, target: int, *, delay_s: float) -> None:
        self.fault = Fault.NONE
        self.delay_s = delay_s
        self._target = target
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, HOST, 0))
        self.port = int(self._server.sockets[0].getsockname()[1])

    def impose(self, fault: Fault) -> None:
        self._do(self._impose(fault))

    def close(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[None, None, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _impose(self, fault: Fault) -> None:
        self.fault = fault
        if fault in (Fault.CUT, Fault.RESET):
            ended = list(self._connections)
            for connection in ended:
                connection.cancel()
            await asyncio.gather(*ended, return_exceptions=True)
            await asyncio.sleep(0)  # the loop closes their sockets in its next round

    async def _close(self) -> None:
        self._server.close()  # here, because a server that two threads end at once tells its waiters twice
        self.fault = Fault.CUT
        # Those who were accepted a moment ago, too: a stream that outlives its loop fails some other test.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for connection in self._connections:
                connection.cancel()
            await asyncio.wait(others, timeout=1)
        await asyncio.sleep(0)  # the loop closes their sockets in its next round

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(_Connection(self).run(reader, writer, self._target))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)


class _Connection:
    """What a caller and the server say to each other, until either of them or the network ends it."""

    def __init__(self, network: Proxy) -> None:
        self._network = network
        self._lost = False

    async def run(self, from_caller: asyncio.StreamReader, to_caller: asyncio.StreamWriter, target: int) -> None:
        ends = [to_caller]
        try:
            if self._network.fault in (Fault.CUT, Fault.RESET):
                return
            await self._arrive()
            from_server, to_server = await asyncio.open_connection(HOST, target)
            ends.append(to_server)
            await self._carry_both(from_caller, to_server, from_server, to_caller)
        except OSError:
            pass  # one of them has gone, and the other is told below
        finally:
            for end in ends:
                self._end(end)

    async def _carry_both(
        self,
        from_caller: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_caller: asyncio.StreamWriter,
    ) -> None:
        directions = [
            asyncio.create_task(self._carry(from_caller, to_server)),
            asyncio.create_task(self._carry(from_server, to_caller)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while piece := await source.read(_PIECE):
            await self._arrive()
            while piece and self._network.fault is Fault.DRIP:
                sink.write(piece[:_DRIP_BYTES])
                piece = piece[_DRIP_BYTES:]
                await sink.drain()
                await asyncio.sleep(_DRIP_S)
            sink.write(piece)
            await sink.drain()
        await self._arrive()  # the goodbye

    async def _arrive(self) -> None:
        """Return when, and if, what was sent arrives."""
        if self._network.fault is Fault.DELAY:
            await asyncio.sleep(self._network.delay_s)
        self._lost |= self._network.fault is Fault.BLACK_HOLE
        if self._lost:
            await asyncio.Event().wait()

    def _end(self, end: asyncio.StreamWriter) -> None:
        match self._network.fault:
            case Fault.CUT:
                end.transport.abort()
            case Fault.RESET:
                connection: socket.socket = end.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.transport.abort()
            case _:
                end.close()  # once it has been sent what is under way


@contextmanager
def proxy(target: int, *, delay_s: float = 2.0) -> Iterator[Proxy]:
    running = Proxy(target, delay_s=delay_s)
    try:
        yield running
    finally:
        running.close()
