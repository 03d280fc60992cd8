"""API keys and limits in front of a real gateway."""

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from pictures import encode, noise
from redis_server import RedisServer, redis_server
from serving import COMMAND, Server, serving

from service import keys
from service.allowance import Allowance

PNG = encode(noise(64, 64), "PNG")
POST = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def guarded(repository: Path, path: Path) -> Iterator[Server]:
    with serving(repository, auth="on", keys_file=path) as running:
        yield running


def create(path: Path, *options: str) -> str:
    """By the command, as an operator does it; the key."""
    command = [*COMMAND, "keys", "create", "--name", "test", "--file", str(path), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def score(server: Server, key: str | None) -> httpx.Response:
    headers = POST | ({"Authorization": f"Bearer {key}"} if key else {})
    return server.client.post("/v1/complexity", content=PNG, headers=headers)


def wait_until(server: Server, key: str, status: int) -> None:
    """A change of the file is seen within a second, on a busy machine later."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if server.client.get("/v1/models", headers={"X-API-Key": key}).status_code == status:
            return
        time.sleep(0.02)
    raise AssertionError(f"the answer never became {status}")


def test_from_no_key_to_a_score_and_back(guarded: Server, path: Path) -> None:
    assert score(guarded, None).status_code == 401
    assert guarded.client.get("/readyz").status_code == 200
    key = create(path)
    wait_until(guarded, key, 200)
    answer = score(guarded, key)
    assert answer.status_code == 200, answer.text
    assert 0 <= answer.json()["score"] <= 1
    subprocess.run([*COMMAND, "keys", "revoke", key[7:15], "--file", str(path)], check=True, capture_output=True)
    wait_until(guarded, key, 401)


def test_a_stranger_with_a_large_body_sees_the_answer(guarded: Server) -> None:
    """It is refused before the body is read, and must not meet a reset instead of the answer."""
    answer = guarded.client.post("/v1/complexity", content=b"\0" * 8_000_000, headers=POST)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="clicv2"'


def test_metrics_want_the_scope_admin(guarded: Server, path: Path) -> None:
    reader, admin = create(path), create(path, "--scope", "admin")
    wait_until(guarded, admin, 200)
    assert guarded.client.get("/metrics").status_code == 401
    assert guarded.client.get("/metrics", headers={"X-API-Key": reader}).status_code == 403
    text = guarded.client.get("/metrics", headers={"Authorization": f"Bearer {admin}"}).text
    assert 'clicv2_requests_refused_total{reason="unauthorized"}' in text
    assert reader not in guarded.printed()
    assert admin not in guarded.printed()


def test_clients_with_other_limits_at_the_same_time(guarded: Server, path: Path) -> None:
    few = create(path, "--rate", "3/day")
    many = create(path, "--rate", "20/day", "--quota", "8/day")
    wait_until(guarded, create(path), 200)  # the last one, so the others are known, too, and still untouched
    with ThreadPoolExecutor(4) as pool:
        asked = [(key, pool.submit(score, guarded, key)) for _ in range(12) for key in (few, many)]
        statuses = [(key, answer.result().status_code) for key, answer in asked]
    assert statuses.count((few, 200)) == 3
    assert statuses.count((many, 200)) == 8
    refused = score(guarded, few)
    assert refused.json()["type"] == "urn:clicv2:problem:rate-limited"
    assert refused.headers["ratelimit"] == f'"rate";r=0;t={refused.headers["retry-after"]}'
    assert score(guarded, many).json()["type"] == "urn:clicv2:problem:quota-exceeded"


def test_gateways_that_share_a_redis_count_together(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key, full = keys.make("both", "read", Allowance(10, 86_400))
    keys.add(path, key)

    def statuses(*servers: Server) -> list[int]:
        header = {"X-API-Key": full}
        return [each.client.get("/v1/models", headers=header).status_code for _ in range(8) for each in servers]

    with redis_server() as redis, _gateway(repository, redis, path) as one, _gateway(repository, redis, path) as two:
        assert statuses(one, two).count(200) == 10
        redis.kill()
        assert statuses(one).count(200) == 8  # counted by itself, and nobody is refused for Redis' sake
        assert one.client.get("/v1/models").status_code == 401


def _gateway(repository: Path, redis: RedisServer, path: Path) -> AbstractContextManager[Server]:
    return serving(repository, redis_url=redis.url, redis_timeout_s=5, auth="on", keys_file=path)


def test_every_answer_has_the_security_headers(server: Server) -> None:
    for path in ("/livez", "/v1/models", "/nothing", "/docs"):
        headers = server.client.get(path, headers={"Origin": "https://page.example"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_without_a_decision_nothing_listens_to_the_world(repository: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLICV2_")}
    environment |= {"HOST": "0.0.0.0", "PORT": "0", "CLICV2_MODEL_REPOSITORY": str(repository)}  # noqa: S104
    ended = subprocess.run([*COMMAND, "serve"], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "CLICV2_AUTH=on" in ended.stderr
    assert "Traceback" not in ended.stderr
