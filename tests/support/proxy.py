"""A TCP proxy between a server and its callers that treats their connections as bad networks do."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from streams import HOST as HOST
from streams import StreamsInThread

_PIECE = 1 << 16
_DRIP_BYTES, _DRIP_S = 64, 0.1
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER that makes a close an RST


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
        target: of the connections to come.
        port: where callers connect to.
    """

    def __init__(self, target: int, *, delay_s: float) -> None:
        self.fault = Fault.NONE
        self.delay_s = delay_s
        self.target = target
        self._thread = StreamsInThread()
        self.streams = self._thread.streams
        self.port = self._thread.do(self.streams.listen(self._accept))

    def impose(self, fault: Fault) -> None:
        self._thread.do(self._impose(fault))

    def close(self) -> None:
        self._thread.close()

    async def _impose(self, fault: Fault) -> None:
        self.fault = fault
        if fault is Fault.RESET:
            for connection in self.streams.open:
                _end_with_reset(connection)
        if fault in (Fault.CUT, Fault.RESET):
            await self.streams.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault is Fault.RESET:
            _end_with_reset(writer.transport)
        if self.fault not in (Fault.CUT, Fault.RESET):
            await _Connection(self).run(reader, writer)


def _end_with_reset(connection: asyncio.WriteTransport) -> None:
    connection.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class _Connection:
    """What a caller and the server say to each other, until either of them or the network ends it."""

    def __init__(self, network: Proxy) -> None:
        self._network = network
        self._lost = False

    async def run(self, from_caller: asyncio.StreamReader, to_caller: asyncio.StreamWriter) -> None:
        """Raises OSError when one of them has gone."""
        await self._arrive()
        from_server, to_server = await self._network.streams.connect(self._network.target)
        try:
            await self._carry_both(from_caller, to_server, from_server, to_caller)
        finally:
            to_server.close()  # once it has been sent what is under way

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


@contextmanager
def proxy(target: int, *, delay_s: float = 2.0) -> Iterator[Proxy]:
    running = Proxy(target, delay_s=delay_s)
    try:
        yield running
    finally:
        running.close()
