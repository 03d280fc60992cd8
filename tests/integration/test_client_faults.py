"""The SDK against servers that are killed, overloaded and slow, and networks that are bad."""

import asyncio
import itertools
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
import tiny_model
import trustme
from clicv2_client import AsyncClient, Client, ConnectionFailed, Scored, TimedOut, errors, sending
from clicv2_client.retry import NEVER, Retry
from fleet import PICTURES
from pictures import encode, noise
from ports import free_port
from proxy import Fault, Proxy, proxy
from serving import HOST, Server, serving

PICTURE = encode(noise(64, 64), "PNG")
# Beyond a deadline, on a machine that has much else to do.
SLACK_S = 5.0


@pytest.fixture(scope="module")
def slow_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 0.4 s a picture."""
    return tiny_model.write(tmp_path_factory.mktemp("slow"), work=150)


@pytest.fixture(scope="module")
def scores(server: Server) -> list[float]:
    return [server.score(picture).json()["score"] for picture in PICTURES]


def url(port: int) -> str:
    return f"http://{HOST}:{port}"


@contextmanager
def replaceable(repository: Path) -> Iterator[tuple[Proxy, Server, ExitStack]]:
    """A server that keeps its address when another one takes its place."""
    with ExitStack() as processes:
        first = processes.enter_context(serving(repository, threads=1))
        with proxy(first.port) as address:
            yield address, first, processes


def test_a_server_that_is_killed_in_the_middle_costs_nothing(repository: Path, scores: list[float]) -> None:
    """Also the pictures that were on their way; with nobody there for a while."""
    with replaceable(repository) as (address, first, processes), Client(url(address.port)) as client:
        found: list[Scored] = []
        killed = threading.Event()

        def replace() -> None:
            killed.wait()
            first.kill()
            time.sleep(1)
            address.target = processes.enter_context(serving(repository, threads=1)).port

        replacing = threading.Thread(target=replace)
        replacing.start()
        for each in client.score_many(itertools.islice(itertools.cycle(PICTURES), 240), concurrency=6):
            found.append(each)
            if len(found) == 60:
                killed.set()
        replacing.join()
    assert [each.index for each in found] == list(range(240))
    assert [each.error for each in found] == [None] * 240
    assert [each.unwrap().score for each in found] == pytest.approx(scores * 10, abs=1e-4)


def test_a_server_that_stays_dead_is_an_error_of_each(repository: Path) -> None:
    with serving(repository, threads=1) as server, Client(url(server.port)) as client:
        results = client.score_many([PICTURE] * 8, concurrency=2, timeout_s=2)
        first = next(results)
        server.kill()
        started = time.monotonic()
        rest = list(results)
        assert time.monotonic() - started < 4 * 2 + SLACK_S
    assert first.unwrap().score > 0
    assert isinstance(rest[-1].error, ConnectionFailed)
    assert rest[-1].error.__cause__ is not None


def test_a_server_that_is_overloaded_is_waited_for(slow_repository: Path) -> None:
    """It lets in two, and gets twelve at once."""
    with serving(slow_repository, threads=1, max_in_flight=2, deadline_s=30) as server:
        with Client(url(server.port)) as client:
            found = list(client.score_many([PICTURE] * 12, concurrency=12, timeout_s=120))
            assert Counter(type(each.error) for each in found) == {type(None): 12}
            assert server.metric("clicv2_requests_shed_total") > 0
            assert server.metric("clicv2_batch_size_sum") == 12, "none is computed twice"
        with Client(url(server.port), retry=NEVER) as impatient:
            refused = [each.error for each in impatient.score_many([PICTURE] * 8, concurrency=8)]
            overloaded = [each for each in refused if each is not None]
            assert overloaded
            assert all(isinstance(each, errors.Overloaded) and each.retry_after_s for each in overloaded)
        server.assert_metrics_add_up()


def test_who_has_no_time_leaves_and_nothing_is_computed_for_him(slow_repository: Path) -> None:
    with serving(slow_repository, threads=1, max_batch_size=1) as server, Client(url(server.port)) as client:
        client.score(PICTURE)
        started = time.monotonic()
        found = list(client.score_many([PICTURE] * 12, concurrency=12, timeout_s=1))
        assert time.monotonic() - started < 1 + SLACK_S
        late = [each.error for each in found if each.error is not None]
        assert late
        assert all(isinstance(each, TimedOut) for each in late), "told by the service or by the clock"
        done = server.metric("clicv2_batch_size_sum")
        assert done <= 1 + 12 - len(late) + 2, "what nobody waits for never reaches the model"
        assert client.score(PICTURE).score > 0


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.RESET])
def test_connections_that_break_are_made_again(server: Server, fault: Fault) -> None:
    with proxy(server.port) as network, Client(url(network.port)) as client:
        score = client.score(PICTURE).score
        network.impose(fault)
        restored = threading.Timer(1, network.impose, [Fault.NONE])
        restored.start()
        assert client.score(PICTURE).score == score
        restored.join()


def assert_leaves_in_time(port: int, picture: bytes) -> None:
    with Client(url(port), timeout_s=1.5) as client:
        started = time.monotonic()
        with pytest.raises(TimedOut):
            client.score(picture)
        assert time.monotonic() - started < 2 * 1.5 + SLACK_S

    async def ask() -> float:
        async with AsyncClient(url(port), timeout_s=1.5) as other:
            started = time.monotonic()
            with pytest.raises(TimedOut):
                await other.score(picture)
            return time.monotonic() - started

    assert asyncio.run(ask()) < 1.5 + SLACK_S


@pytest.mark.parametrize("fault", [Fault.BLACK_HOLE, Fault.DRIP])
def test_a_network_that_says_nothing_does_not_hold_us(server: Server, fault: Fault) -> None:
    with proxy(server.port) as network:
        network.impose(fault)
        assert_leaves_in_time(network.port, PICTURE)


async def answers_in_drops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 600\r\n\r\n")
    for _ in range(600):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.1)


async def listens_in_drops(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1 << 16):  # noqa: ASYNC110  # there is no event: it is slow, that is all
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("host", "picture"), [(answers_in_drops, PICTURE), (listens_in_drops, bytes(60 << 20))], ids=["answers", "listens"]
)
def test_a_host_that_keeps_just_awake_does_not_hold_us(
    host: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], picture: bytes
) -> None:
    """No single wait is long, but together they would take twenty seconds and more."""

    async def serve() -> None:
        connections: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(cast("asyncio.Task[None]", asyncio.current_task()))
            with suppress(OSError, EOFError, asyncio.CancelledError):
                await host(reader, writer)
            writer.transport.abort()

        listener = socket.create_server((HOST, 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # else it takes megabytes before it is slow
        server = await asyncio.start_server(accept, sock=listener, limit=1 << 16)
        async with server:
            await asyncio.to_thread(assert_leaves_in_time, server.sockets[0].getsockname()[1], picture)
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            await asyncio.sleep(0)  # the loop closes their sockets in its next round

    asyncio.run(serve())


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with Client(url(port), timeout_s=1) as client:
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match="refused"):
            client.models()
        assert time.monotonic() - started < 1 + SLACK_S
    with Client(url(port), retry=Retry(attempts=2)) as client, pytest.raises(ConnectionFailed):
        client.models()


def test_a_host_that_takes_no_connections_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its packets are lost, as of a machine without power, whose address another one has by the next attempt."""
    monkeypatch.setattr(sending, "CONNECT_S", 0.2)
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server((HOST, 0), backlog=1))
        port = listener.getsockname()[1]
        for _ in range(3):  # and then the kernel lets nobody else in
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect((HOST, port))
        with (
            Client(url(port), timeout_s=60, retry=Retry(attempts=2)) as client,
            pytest.raises(ConnectionFailed, match="no connection in time"),
        ):
            client.models()

        async def ask() -> None:
            async with AsyncClient(url(port), timeout_s=60, retry=Retry(attempts=2)) as other:
                with pytest.raises(ConnectionFailed, match="no connection in time"):
                    await other.models()

        started = time.monotonic()
        asyncio.run(ask())
        assert time.monotonic() - started < 20


def test_a_certificate_that_nobody_trusts_is_no_reason_to_wait() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(HOST).configure_cert(context)
    connections = 0

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def run() -> None:
        nonlocal connections
        server = await asyncio.start_server(accept, HOST, 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        async with server, AsyncClient(f"https://{HOST}:{port}", timeout_s=60) as client:
            started = time.monotonic()
            with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await client.models()
            assert time.monotonic() - started < 20

    asyncio.run(run())


async def many_async(repository: Path, scores: list[float]) -> None:
    with replaceable(repository) as (address, first, processes):
        async with AsyncClient(url(address.port)) as client:
            found = []

            async def replace() -> None:
                await asyncio.to_thread(first.kill)
                second = await asyncio.to_thread(processes.enter_context, serving(repository, threads=1))
                address.target = second.port

            pictures = itertools.islice(itertools.cycle(PICTURES), 240)
            async with aclosing(client.score_many(pictures, concurrency=6)) as results:
                async for each in results:
                    found.append(each.unwrap().score)
                    if len(found) == 60:
                        replacing = asyncio.create_task(replace())
            await replacing
            assert found == pytest.approx(scores * 10, abs=1e-4)


def test_the_same_from_asyncio(repository: Path, scores: list[float]) -> None:
    asyncio.run(many_async(repository, scores))


def test_an_endless_stream_of_pictures_is_scored_as_long_as_somebody_looks(server: Server) -> None:
    taken = 0

    def camera() -> Iterator[bytes]:
        nonlocal taken
        for picture in itertools.cycle(PICTURES):
            taken += 1
            yield picture

    with Client(url(server.port)) as client:
        for each in client.score_many(camera(), concurrency=4):
            assert each.unwrap().score >= 0
            if each.index == 49:
                break
    assert 50 <= taken <= 50 + 2 * 4
    requests = server.metric("clicv2_requests_total")
    time.sleep(0.5)
    assert server.metric("clicv2_requests_total") - requests <= 2, "but these two looks at it"


def test_a_server_that_stands_still_is_waited_for(repository: Path, scores: list[float]) -> None:
    """SIGSTOP: its connections stay open and nothing comes, for longer than a look at a clock."""
    with serving(repository, threads=1) as server, Client(url(server.port)) as client:
        results = client.score_many(itertools.islice(itertools.cycle(PICTURES), 96), concurrency=6)
        found = [next(results).unwrap().score for _ in range(12)]
        server.pause()
        threading.Timer(2, server.resume).start()
        found += [each.unwrap().score for each in results]
    assert found == pytest.approx(scores * 4, abs=1e-4)


def test_sixteen_threads_share_a_client(server: Server, scores: list[float]) -> None:
    with Client(url(server.port), timeout_s=60) as client, ThreadPoolExecutor(16) as threads:

        def several(start: int) -> list[float]:
            turned = [*PICTURES[start:], *PICTURES[:start]]
            mixed = [client.score(turned[0])] + [each.unwrap() for each in client.score_many(turned[1:], concurrency=2)]
            return [each.score for each in mixed]

        for number, found in enumerate(threads.map(several, [n % len(PICTURES) for n in range(16)])):
            start = number % len(PICTURES)
            assert found == pytest.approx([*scores[start:], *scores[:start]], abs=1e-4)


class Cutting:
    """Gives the real answers of a server, of which it cuts the first few in the middle."""

    def __init__(self, target: int, cuts: int) -> None:
        self._target = target
        self.left = cuts
        self.tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        there, back = await asyncio.open_connection(HOST, self._target)
        request = asyncio.create_task(self._carry(reader, back))
        try:
            while piece := await there.read(1 << 16):
                if self.left:
                    self.left -= 1
                    writer.write(piece[: len(piece) - 40])
                    await writer.drain()
                    break
                writer.write(piece)
                await writer.drain()
        finally:
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            for end in (back, writer):
                end.close()
                with suppress(ConnectionError):
                    await end.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
        writer.close()  # else the service waits for another request


def test_an_answer_that_is_cut_in_the_middle_is_asked_for_again(server: Server, scores: list[float]) -> None:
    async def run() -> None:
        cutting = Cutting(server.port, 3)
        network = await asyncio.start_server(cutting, HOST, 0)
        port = network.sockets[0].getsockname()[1]
        async with network:
            with Client(url(port)) as client:
                assert (await asyncio.to_thread(client.score, PICTURES[0])).score == pytest.approx(scores[0], abs=1e-4)
            assert cutting.left == 0
            cutting.left = 2
            async with AsyncClient(url(port)) as other:
                assert (await other.score(PICTURES[1])).score == pytest.approx(scores[1], abs=1e-4)
                assert cutting.left == 0
                cutting.left = 1 << 20
                with pytest.raises(ConnectionFailed, match=r"closed|disconnected"):
                    await other.score(PICTURES[1], timeout_s=1)
        await asyncio.wait(cutting.tasks)

    asyncio.run(run())


def test_who_is_cancelled_leaves_nothing_behind(slow_repository: Path) -> None:
    """No task goes on, no connection stays, and the service computes nothing more."""

    async def all_of_them(client: AsyncClient, found: list[Scored], begun: asyncio.Event) -> None:
        async with aclosing(client.score_many([PICTURE] * 40, concurrency=8)) as results:
            async for each in results:
                found.append(each)
                if len(found) == 2:
                    begun.set()

    async def run(server: Server) -> None:
        found: list[Scored] = []
        client = AsyncClient(url(server.port))
        begun = asyncio.Event()
        working = asyncio.create_task(all_of_them(client, found, begun))
        await begun.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not client._asking._http._transport._pool.connections, "those that were in use are no good any more"
        assert (await client.score(PICTURE, timeout_s=60)).score == found[0].unwrap().score
        await client.close()

    with serving(slow_repository, threads=1, max_batch_size=1) as server:
        asyncio.run(run(server))
        assert server.metric("clicv2_batch_size_sum") <= 8


def test_overload_that_lasts_is_waited_for_as_long_as_the_server_says(slow_repository: Path) -> None:
    with serving(slow_repository, threads=1, max_in_flight=1) as server, Client(url(server.port)) as busy:
        done = threading.Event()

        def others() -> None:
            for each in busy.score_many(itertools.repeat(PICTURE), concurrency=6):
                assert each.error is None
                if done.is_set():
                    break

        crowd = threading.Thread(target=others)
        crowd.start()
        server.wait_for("clicv2_requests_shed_total", 3)
        threading.Timer(3, done.set).start()
        with Client(url(server.port), timeout_s=60) as client:
            assert client.score(PICTURE).score >= 0
        done.set()
        crowd.join(60)
        assert not crowd.is_alive()
