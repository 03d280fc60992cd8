"""The servers and proxies of the tests themselves: nothing of them is left for whoever collects it."""

import asyncio
import gc
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from proxy import Fault, proxy
from streams import HOST, Serve, Streams, StreamsInThread

CALLERS = 6


@contextmanager
def nothing_left() -> Iterator[None]:
    """What is collected after the block has been closed before."""
    gc.collect()
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(each.message) for each in left] == []


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def talkative(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(1 << 24))  # more than anybody takes


async def unwilling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await silent(reader, writer)
    finally:
        await talkative(reader, writer)
        await writer.drain()


def called(port: int, sockets: ExitStack) -> list[socket.socket]:
    return [sockets.enter_context(socket.create_connection((HOST, port), timeout=20)) for _ in range(CALLERS)]


def assert_over(callers: list[socket.socket]) -> None:
    for caller in callers:
        with suppress(ConnectionError):
            while caller.recv(1 << 20):
                pass


@pytest.mark.parametrize("pause_s", [0, 0.1], ids=["just accepted", "served"])
@pytest.mark.parametrize("serve", [silent, talkative, unwilling])
def test_a_server_that_ends_takes_its_connections_along(serve: Serve, pause_s: float) -> None:
    with ExitStack() as sockets, nothing_left():
        with StreamsInThread() as server:
            callers = called(server.do(server.streams.listen(serve)), sockets)
            time.sleep(pause_s)
        assert_over(callers)
        assert not server.streams.open


@pytest.mark.parametrize("pause_s", [0, 0.1], ids=["just accepted", "served"])
@pytest.mark.parametrize("fault", Fault)
def test_so_does_a_proxy(fault: Fault, pause_s: float) -> None:
    """Callers of before the fault and of while it lasts, and what it has opened for them."""
    with nothing_left(), StreamsInThread() as server, ExitStack() as sockets:
        with proxy(server.do(server.streams.listen(silent))) as network:
            callers = called(network.port, sockets)
            time.sleep(pause_s)
            network.impose(fault)
            with suppress(ConnectionError):  # as soon as they are made
                callers += called(network.port, sockets)
            time.sleep(pause_s)
        assert_over(callers)
        assert not network.streams.open


def test_so_does_one_in_the_loop_of_the_test() -> None:
    async def run() -> None:
        async with Streams() as callers:
            async with Streams() as streams:
                port = await streams.listen(silent)
                for _ in range(CALLERS):
                    reader, _writer = await callers.connect(port)
                async with asyncio.timeout(20):
                    while len(streams.open) < CALLERS:  # noqa: ASYNC110  # of transports
                        await asyncio.sleep(0.01)
            assert not streams.open
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 20) == b""

    with nothing_left():
        asyncio.run(run())


def test_a_server_that_fails_is_a_test_that_fails() -> None:
    async def fails(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        raise ZeroDivisionError

    server = StreamsInThread()
    with ExitStack() as sockets:
        assert_over(called(server.do(server.streams.listen(fails)), sockets))
    with pytest.raises(ZeroDivisionError):
        server.close()
