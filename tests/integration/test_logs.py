"""What a process writes to its standard error while it is used, and abused: lines of JSON, and nobody's secrets."""

import json
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import tiny_model
from pictures import encode, noise
from redis_server import RedisServer, redis_server
from serving import COMMAND, Server, serving

PICTURE = encode(noise(64, 64, 7), "PNG")
BLACK = encode(noise(64, 64) * 0, "PNG")  # the model has no answer for it
FORGED = '{"level":"critical","event":"forged"}'
HOSTILE = f"a\n{FORGED}\r\n\x1b[2J\x1b]0;owned\x07\x9b31m\u2028{FORGED}.png"
WEBHOOK_SECRET = "whsec_" + b64encode(bytes(range(32))).decode()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def key_of(folder: Path) -> str:
    command = [*COMMAND, "keys", "create", "--name", "test", "--file", str(folder / "keys.json")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def lines_of(server: Server) -> list[dict[str, object]]:
    """Of the log, each of which is JSON, and plain ASCII, so that nothing in it moves a terminal's cursor."""
    printed = server.printed()
    assert re.fullmatch(r"[\x20-\x7e\n]*", printed)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert all({"timestamp", "level", "logger", "event"} <= line.keys() for line in lines)
    assert not any(line["event"] == "forged" for line in lines)
    return lines


def requests_of(lines: list[dict[str, object]]) -> list[dict[str, object]]:
    return [line for line in lines if line["event"] == "request"]


def use(server: Server, key: str) -> None:
    """Requests of all kinds, good and bad."""
    client, secret = server.client, {"Authorization": f"Bearer {key}"}
    posted = secret | {"content-type": "image/png", "x-request-id": "mine-1"}
    client.post("/v1/complexity?heatmap=overlay", content=PICTURE, headers=posted).raise_for_status()
    client.post("/v1/complexity", files={"file": (HOSTILE, PICTURE)}, headers=secret).raise_for_status()
    client.post("/v1/complexity", json={"image": b64encode(PICTURE).decode()}, headers=secret).raise_for_status()
    batch = [("file", (f"{HOSTILE}{n}", PICTURE)) for n in range(3)]
    client.post("/v1/complexity/batch", files=batch, headers=secret).raise_for_status()
    hook = {"webhook": "https://me:hunter2@hooks.example/done?token=t0ps3cret"}
    assert client.post("/v1/jobs", files=batch, params=hook, headers=secret).status_code in (202, 422)
    done = {"webhook": "https://hooks.example/done?token=t0ps3cret"}
    assert client.post("/v1/jobs", files=batch, params=done, headers=secret).status_code == 202
    assert client.post("/v1/complexity", content=BLACK, headers=posted).status_code == 500
    assert client.post("/v1/complexity", content=PICTURE[:-20], headers=posted).status_code == 422
    assert client.post("/v1/complexity", json={"image": "!" + PICTURE.hex()}, headers=secret).status_code == 422
    client.post("/v1/complexity", content=PICTURE, headers={"content-type": "multipart/form-data; boundary=x"} | secret)
    assert client.post("/v1/complexity", content=PICTURE, headers={"x-api-key": key[:-1]}).status_code == 401
    assert client.get(f"/v1/{key}", headers=secret).status_code == 404
    assert client.delete("/v1/complexity", headers=secret).status_code == 405
    assert client.head("/livez").status_code == 200
    assert client.get("/v1/models", params={"key": key}, headers={"x-request-id": f"a b{key}"}).status_code == 401
    for head in (
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: " + HOSTILE.encode() + b"\r\n\r\n",
        b"FORGE" + FORGED.encode() + b" / HTTP/1.1\r\n\r\n",
        b"POST /v1/complexity HTTP/1.1\r\nContent-Length: 100\r\nAuthorization: Bearer " + key.encode() + b"\r\n\r\n1",
    ):
        with server.connect() as connection:
            connection.sendall(head)
            connection.settimeout(5)
            with suppress(TimeoutError):  # one waits for the rest of a body
                connection.recv(1000)


def test_every_line_is_json_and_nobodys_secret(tmp_path: Path) -> None:
    repository = tiny_model.write(tmp_path / "model", poison=True)
    key = key_of(tmp_path)
    with serving(
        repository,
        auth="on",
        keys_file=tmp_path / "keys.json",
        access_log=True,
        drain_notice_s=0,
        webhook_secret=WEBHOOK_SECRET,
        log_level="debug",
    ) as server:
        use(server, key)
        assert server.end() == 0
        lines = lines_of(server)
        printed = server.printed()
    for secret in (key, key.split("_")[2][:32], "hunter2", "t0ps3cret", WEBHOOK_SECRET, WEBHOOK_SECRET[6:30]):
        assert secret not in printed
    for picture in (PICTURE, PICTURE[:-20]):
        for written in (b64encode(picture[:48]).decode(), picture[:24].hex(), repr(picture[:8])[2:-1], "IHDR"):
            assert written not in printed
    first = next(line for line in requests_of(lines) if line.get("request_id") == "mine-1")
    assert (first["method"], first["route"], first["status"]) == ("POST", "/v1/complexity", 200)
    assert first["received_bytes"] == len(PICTURE)
    assert first["sent_bytes"] > 1000
    assert 0 < float(str(first["duration_s"])) < 60
    assert {line["route"] for line in requests_of(lines)} >= {"/v1/complexity/batch", "/v1/jobs", "unmatched"}
    assert all(line["request_id"] for line in requests_of(lines))
    poisoned = next(line for line in lines if "no answer" in str(line["event"]))
    assert (poisoned["level"], poisoned["logger"]) == ("warning", "service.worker")
    assert re.fullmatch("[0-9a-f]{32}", str(poisoned["job_id"]))


def test_a_workers_lines_too(tmp_path: Path, redis: RedisServer) -> None:
    repository = tiny_model.write(tmp_path / "model", poison=True)
    settings = {"redis_url": redis.url, "redis_timeout_s": 5, "access_log": True, "drain_notice_s": 0}
    with serving(repository, **settings) as gateway, serving(repository, "worker", **settings) as worker:
        worker.client.get("/readyz").raise_for_status()
        gateway.wait_for("clicv2_queue_workers_ready", 1)
        assert gateway.score(BLACK).status_code == 500
        assert gateway.end() == worker.end() == 0
        assert {"POST"} <= {line["method"] for line in requests_of(lines_of(gateway))}
        assert any(line.get("job_id") and line["level"] == "warning" for line in lines_of(worker))
        assert {line["route"] for line in requests_of(lines_of(worker))} <= {"/livez", "/readyz", "/metrics"}


def test_who_asks_for_no_lines_gets_none(repository: Path) -> None:
    with serving(repository, log_level="warning") as server:
        server.score(PICTURE).raise_for_status()
        assert server.client.get("/nowhere").status_code == 404
        assert server.printed() == ""


def test_people_get_columns(repository: Path) -> None:
    """By setting, too."""
    with serving(repository, log_format="console", access_log=True) as server:
        assert server.client.get("/nowhere", headers={"x-request-id": "mine-2"}).status_code == 404
        assert server.end() == 0
        line = next(line for line in server.printed().splitlines() if "mine-2" in line)
    assert "route=unmatched" in line
    assert "status=404" in line
    assert "\x1b" not in line  # a file is no terminal
