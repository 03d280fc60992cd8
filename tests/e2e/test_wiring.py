"""What the settings wire together, in processes as they are run in production: gateways, a worker, Redis, Triton."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import tiny_model
from fleet import PICTURES, Fleet, ask, caller_of, fleet, scores_of, until_ready
from queues import eventually
from redis_server import RedisServer, redis_server
from serving import COMMAND, HOST, Server, serving
from triton_server import install_configs, triton_server
from web_host import WebHost, web_host

from service import keys

pytestmark = pytest.mark.anyio

# As long as any of these tests, so that a worker that is stopped stays in office.
LEASE_S = 120.0
FEW = range(4)
RESULTS = "{clicv2}:result:*"
SECRET = "whsec_" + "A" * 32


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def scores(repository: Path) -> list[float]:
    return scores_of(repository)


@pytest.fixture
def processes(repository: Path, redis: RedisServer) -> Iterator[Fleet]:
    with fleet(repository, redis, deadline_s=60, lease_s=LEASE_S) as processes:
        yield processes


def form(pictures: range) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"{picture}.png", PICTURES[picture])) for picture in pictures]


def problem(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, str(response.json()["type"]).removeprefix("urn:clicv2:problem:")


def computed(worker: Server) -> float:
    """Pictures so far."""
    return worker.metric("clicv2_batch_size_sum")


async def test_a_batch(processes: Fleet, scores: list[float]) -> None:
    gateway = processes.gateway()
    processes.worker()
    async with caller_of(gateway) as client:
        await until_ready(client)
        whole = await client.post("/v1/complexity/batch", files=form(FEW))
        lines = await client.post("/v1/complexity/batch", files=form(FEW), headers={"Accept": "application/x-ndjson"})
    items = whole.raise_for_status().json()["items"]
    streamed = [json.loads(line) for line in lines.raise_for_status().text.splitlines()]
    for found in items, sorted((item for item in streamed if "index" in item), key=lambda item: item["index"]):
        assert [item["name"] for item in found] == [f"{picture}.png" for picture in FEW]
        assert [item["result"]["score"] for item in found] == pytest.approx([scores[picture] for picture in FEW])
    assert gateway.metric("clicv2_jobs_finished_total", outcome="answered") >= 2 * len(FEW)


async def test_a_comparison(processes: Fleet, scores: list[float]) -> None:
    gateway = processes.gateway()
    processes.worker()
    async with caller_of(gateway) as client:
        await until_ready(client)
        compared = (await client.post("/v1/compare", files=form(FEW))).raise_for_status().json()
    found = compared["pictures"]
    assert [picture["score"] for picture in found] == pytest.approx([scores[picture] for picture in FEW])
    best_first = sorted(found, key=lambda picture: picture["score"], reverse=True)
    assert [picture["rank"] for picture in best_first] == list(range(1, 1 + len(FEW)))
    assert len(compared["differences"]) == len(FEW) * (len(FEW) - 1) / 2


async def test_what_one_gateway_kept_another_finds(repository: Path, redis: RedisServer) -> None:
    with fleet(repository, redis, cache_bytes=1 << 20) as processes:
        one, other, worker = processes.gateway(), processes.gateway(), processes.worker()
        async with caller_of(one) as first, caller_of(other) as second:
            await until_ready(first)
            await until_ready(second)
            made = (await ask(first, 0)).response.raise_for_status().json()
            await eventually(lambda: redis.client.keys("{clicv2}:cache:*"))  # nobody waits until it is kept
            before = computed(worker)
            found = (await ask(second, 0)).response.raise_for_status().json()
        assert (made["cache"], found["cache"]) == ("miss", "hit")
        assert [found[name] for name in ("score", "percentile", "entropy", "model", "image")] == [
            made[name] for name in ("score", "percentile", "entropy", "model", "image")
        ]
        assert computed(worker) == before


@pytest.mark.parametrize("when", ["it waits", "it is computed"])
async def test_a_retry_after_its_gateway_was_killed_is_the_same_job(
    processes: Fleet, redis: RedisServer, scores: list[float], when: str
) -> None:
    """Promise 5: one queue entry and one stored result for an Idempotency-Key, whichever gateways it comes to."""
    killed, other, worker = processes.gateway(), processes.gateway(), processes.worker()
    async with caller_of(killed) as client, caller_of(other) as another:
        await until_ready(client)
        await until_ready(another)
        before, probes = computed(worker), set(redis.client.keys(RESULTS))
        worker.pause()
        first = asyncio.create_task(ask(client, 0, key="abc"))
        await eventually(lambda: redis.client.xlen("{clicv2}:jobs") == 1)
        await asyncio.to_thread(killed.kill)
        with pytest.raises(httpx.TransportError):
            await first
        # The first that this gateway hears of the key; it knows by Redis what the other one was told.
        reused = (await ask(another, 1, key="abc")).response
        if when == "it is computed":
            worker.resume()
            await eventually(lambda: redis.client.xlen("{clicv2}:jobs") == 0)
        retry = asyncio.create_task(ask(another, 0, key="abc"))
        if when == "it waits":
            await asyncio.to_thread(other.wait_for, "clicv2_jobs_in_flight", 1)
            assert redis.client.xlen("{clicv2}:jobs") == 1
            worker.resume()
        answers = [(await reply).response.raise_for_status().json() for reply in (retry, ask(another, 0, key="abc"))]
    assert answers[0]["score"] == pytest.approx(scores[0], abs=1e-4)
    assert answers[0]["id"] == answers[1]["id"]
    assert set(redis.client.keys(RESULTS)) - probes == {RESULTS.replace("*", answers[0]["id"]).encode()}
    assert computed(worker) == before + 1
    assert problem(reused) == (422, "idempotency-key-reused")


async def test_a_job_is_one_for_all_gateways_and_its_limits_are_too(
    repository: Path, redis: RedisServer, scores: list[float], tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    made = [keys.make(name, "read") for name in ("ann", "bob")]
    for entry, _ in made:
        keys.add(path, entry)
    ann, bob = ({"Authorization": f"Bearer {full}"} for _, full in made)
    with fleet(
        repository, redis, auth="on", keys_file=path, jobs_open=3, jobs_share=0.67, jobs_held_bytes=450_000
    ) as processes:
        one, other = processes.gateway(), processes.gateway()
        async with caller_of(one) as first, caller_of(other) as second:
            refused = await second.post("/v1/jobs", files=form(range(20)), headers=ann)
            assert problem(refused) == (413, "image-too-large"), (
                "twenty with their results have no room in 301,500 bytes"
            )
            begun = (await first.post("/v1/jobs", files=form(FEW), headers=ann)).raise_for_status().json()
            assert begun["durable"] is True
            (await second.post("/v1/jobs", files=form(FEW), headers=ann)).raise_for_status()
            refused = await second.post("/v1/jobs", files=form(FEW), headers=ann)
            assert (problem(refused), refused.json()["maximum"]) == ((429, "jobs-full"), 2)
            assert refused.json()["share_of"] == "jobs"
            (await second.post("/v1/jobs", files=form(FEW), headers=bob)).raise_for_status()
            refused = await first.post("/v1/jobs", files=form(FEW), headers=bob)
            assert (problem(refused), refused.json()["limit"]) == ((429, "jobs-full"), "jobs")
            processes.worker()
            async with asyncio.timeout(120):
                where = f"/v1/jobs/{begun['id']}"
                while (done := (await second.get(where, headers=ann)).json())["status"] != "done":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # as callers ask
            assert problem(await second.get(where, headers=bob)) == (404, "unknown-job")
    found = sorted(done["results"], key=lambda item: item["index"])
    assert [item["result"]["score"] for item in found] == pytest.approx([scores[picture] for picture in FEW], abs=1e-4)


@pytest.mark.parametrize(
    ("webhook", "answered"),
    [
        ("https://93.184.215.14:8443/", (202, "")),
        ("https://93.184.216.34:8443/", (422, "forbidden-url")),
        ("https://127.0.0.1:8443/", (422, "forbidden-url")),
        ("https://93.184.215.14/", (422, "forbidden-url")),
    ],
    ids=["as the settings allow", "a network of one's own", "a private address", "another port"],
)
async def test_where_webhooks_may_go(
    repository: Path, redis: RedisServer, webhook: str, answered: tuple[int, str]
) -> None:
    """No worker is there, so no job ends and nothing is sent."""
    secrets = f"{SECRET} {SECRET}"  # a malformed one, the gateway would not start with
    with fleet(
        repository, redis, webhook_secret=secrets, url_ports=[8443], url_denied_networks='["93.184.216.0/24"]'
    ) as processes:
        async with caller_of(processes.gateway()) as client:
            response = await client.post("/v1/jobs", files=form(FEW), params={"webhook": webhook})
    assert (response.status_code, problem(response)[1] if response.is_error else "") == answered


@pytest.fixture
async def host() -> AsyncIterator[WebHost]:
    async with web_host() as running:
        yield running


@pytest.mark.parametrize(
    ("url_input", "answered"), [(True, (422, "forbidden-url")), (False, (403, "url-input-disabled"))]
)
async def test_pictures_by_url(repository: Path, host: WebHost, url_input: bool, answered: tuple[int, str]) -> None:
    """Where it is on, the guard is too: the only host that a test has is none that may be asked."""
    with serving(repository, url_input=url_input, url_ports=[host.port]) as gateway:
        async with caller_of(gateway) as client:
            url = f"http://{HOST}:{host.port}/a.png"
            response = await client.post("/v1/complexity", json={"url": url})
    assert problem(response) == answered
    assert not url_input or "no public host" in response.json()["detail"], "refused for its port: the setting is lost"
    assert not host.arrivals


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("worker", "service.worker.Worker.run"),
        ("serve", "service.queue.redis.RedisQueue.listen"),
        ("serve", "service.jobs.runner.Runner.run"),
    ],
)
def test_what_cannot_live_ends_its_process(repository: Path, redis: RedisServer, command: str, what: str) -> None:
    """Whichever process it is in: its orchestrator then starts a fresh one."""
    owner, _, method = what.rpartition(".")
    script = (
        f"import service.cli, {owner.rpartition('.')[0]}\n"
        "async def broken(self): raise RuntimeError('a defect')\n"
        f"{owner}.{method} = broken\n"
        "service.cli.main()\n"
    )
    settings = {"CLICV2_REDIS_URL": redis.url, "CLICV2_MODEL_REPOSITORY": str(repository), "PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", script, command],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert "giving up" in ended.stderr


def listed(**settings: str) -> list[str]:
    """The lines of `clicv2 models list`."""
    environment = os.environ | {f"CLICV2_{name.upper()}": value for name, value in settings.items()}
    command = [*COMMAND, "models", "list"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout.splitlines()


def test_models_are_listed_with_what_triton_serves_of_them(tmp_path: Path) -> None:
    repository = install_configs(tiny_model.write(tmp_path))
    (alone,) = listed(model_repository=str(repository))
    assert alone.startswith(f"clicv2    1  gradient, preprocessing {tiny_model.SPEC.fingerprint()}, sha256 ")
    with triton_server(repository) as triton:
        tiny_model.write(repository, version=2)
        settings = {"model_repository": str(repository), "triton_url": triton.url}
        first, second = listed(**settings)
        assert first == f"{alone}  READY"
        assert second.startswith("clicv2    2  gradient, ")
        assert "READY" not in second
