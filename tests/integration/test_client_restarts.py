"""Who waits for a job while the service restarts, is away, or is gone for good."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import tiny_model
from clicv2_client import Client, ConnectionFailed, calls, errors, exchange
from clicv2_client.results import Job
from pictures import encode, noise
from proxy import Fault, Proxy, proxy
from redis_server import RedisServer, redis_server
from serving import HOST, Server, serving

PICTURES = [encode(noise(64, 64, seed), "PNG") for seed in range(12)]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def slow_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 0.1 s a picture."""
    return tiny_model.write(tmp_path_factory.mktemp("slow"), work=40)


@contextmanager
def away(address: Proxy, first: Server, processes: ExitStack, seconds: float, **options: object) -> Iterator[None]:
    """A gateway is killed and, after a while in which nobody is there, replaced by another."""

    def replace() -> None:
        first.kill()
        time.sleep(seconds)
        address.target = processes.enter_context(serving(**options)).port  # type: ignore[arg-type]

    replacing = threading.Thread(target=replace)
    replacing.start()
    yield
    replacing.join()


def submitted(client: Client) -> Job:
    job = client.jobs.submit(PICTURES)
    while not client.jobs.get(job.id).counts.scored:
        time.sleep(0.02)
    return job


def test_a_job_in_redis_goes_on(slow_repository: Path, redis: RedisServer) -> None:
    """And every picture has one result, whichever gateway it was submitted to."""
    options = {"repository": slow_repository, "threads": 1, "redis_url": redis.url}
    with ExitStack() as processes:
        processes.enter_context(serving(command="worker", **options))
        first = processes.enter_context(serving(**options))
        address = processes.enter_context(proxy(first.port))
        client = processes.enter_context(Client(f"http://{HOST}:{address.port}"))
        job = submitted(client)
        events = client.jobs.events(job.id, timeout_s=60)
        next(events)
        with away(address, first, processes, 0.5, **options):
            ended = client.jobs.wait(job.id, timeout_s=60)
        assert (ended.status, ended.counts.scored) == ("done", len(PICTURES))
        assert sorted(item.index for item in client.jobs.results(job.id)) == list(range(len(PICTURES)))
        heard = [event for event in events if event.kind != "job"]
        assert sorted(event.index for event in heard[:-1] if event.index is not None) == list(range(len(PICTURES)))
        assert heard[-1].kind == "end"


def test_a_job_in_memory_is_gone_with_its_service(slow_repository: Path) -> None:
    options = {"repository": slow_repository, "threads": 1}
    with ExitStack() as processes:
        first = processes.enter_context(serving(**options))
        address = processes.enter_context(proxy(first.port))
        client = processes.enter_context(Client(f"http://{HOST}:{address.port}"))
        job = submitted(client)
        with away(address, first, processes, 0.5, **options), pytest.raises(errors.UnknownJob):
            client.jobs.wait(job.id, timeout_s=60)
        with pytest.raises(errors.UnknownJob):
            list(client.jobs.events(job.id, timeout_s=60))


def test_a_service_that_is_gone_for_good(slow_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has set an end waits until then, anybody else for as long as a restart takes."""
    monkeypatch.setattr(exchange, "PATIENCE_S", 1.0)
    with serving(slow_repository, threads=1) as server, Client(f"http://{HOST}:{server.port}") as client:
        job = submitted(client)
        server.kill()
        for wait in (client.jobs.wait, lambda *args, **kwargs: list(client.jobs.events(*args, **kwargs))):
            for timeout_s, at_least_s in ((None, 0.0), (3.5, 1.2)):
                started = time.monotonic()
                with pytest.raises(ConnectionFailed):
                    wait(job.id, timeout_s=timeout_s)
                assert at_least_s < time.monotonic() - started < 20


def test_a_connection_that_is_dead_is_given_up_for_another(
    slow_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes, and no reset either: as when the other machine has lost its power, or a firewall its memory."""
    monkeypatch.setattr(calls, "LOOK_S", 1.0)
    with (
        serving(slow_repository, threads=1) as server,
        proxy(server.port) as network,
        Client(f"http://{HOST}:{network.port}") as client,
    ):
        job = submitted(client)
        network.impose(Fault.BLACK_HOLE)
        threading.Timer(2.0, network.impose, [Fault.NONE]).start()
        started = time.monotonic()
        assert client.jobs.wait(job.id).status == "done"
        assert time.monotonic() - started < 30
