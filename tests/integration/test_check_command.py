"""`clicv2 check` against the real things: all in order, and each of them broken."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_model
from commands import app
from redis_server import RedisServer, redis_server
from serving import serving
from triton_server import install_configs, triton_server
from typer.testing import CliRunner

from clicv2 import contract


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path) -> None:
    for name, value in {"MODEL_REPOSITORY": repository, "THREADS": 1, "DEADLINE_S": 60, "REDIS_TIMEOUT_S": 5}.items():
        monkeypatch.setenv(f"CLICV2_{name}", str(value))
    monkeypatch.chdir(tmp_path)


def check() -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit status, and of each line its verdict and what it says."""
    result = CliRunner().invoke(app, ["check"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    lines = [re.fullmatch(r"(ok|problem) +(.{1,13}?)  +(\S.*)", line) for line in result.output.splitlines()]
    assert all(lines), result.output
    return result.exit_code, {line[2]: (line[1], line[3]) for line in lines if line}


def test_all_in_order() -> None:
    code, found = check()
    assert code == 0, found
    assert list(found) == ["settings", "access", "decoders", "model", "onnxruntime", "a picture"]
    assert {verdict for verdict, _ in found.values()} == {"ok"}
    assert "scored 0." in found["a picture"][1]


def test_settings_that_make_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICV2_DEADLINE_S", "-1")
    code, found = check()
    assert code == 1
    assert found["settings"][0] == "problem"
    assert "CLICV2_DEADLINE_S" in found["settings"][1]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("CLICV2_DEADLINE", "Is it CLICV2_DEADLINE_S?"),
        ("CLICV2_THREDS", "Is it CLICV2_THREADS?"),
        ("CLICV2_WHAT_IS_THIS", "Take it away"),
    ],
)
def test_what_looks_like_a_setting_and_is_none(monkeypatch: pytest.MonkeyPatch, name: str, remedy: str) -> None:
    """A misspelt name changes nothing, and nobody would notice."""
    monkeypatch.setenv("CLICV2_API_KEY", "the SDK's")
    for told in ("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT_8000_TCP_ADDR", "REDIS_SERVICE_PORT"):
        monkeypatch.setenv(f"CLICV2_{told}", "Kubernetes's")
    monkeypatch.setenv(name, "5")
    code, found = check()
    assert code == 1
    assert found["settings"][1] == f"{name} is no setting, and nobody reads it. {remedy}"
    assert found["a picture"][0] == "ok"
    monkeypatch.delenv(name)
    assert check()[0] == 0


def test_access(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")  # noqa: S104  # nothing listens
    _, found = check()
    assert found["access"][0] == "problem"
    assert "CLICV2_AUTH" in found["access"][1]
    monkeypatch.setenv("CLICV2_AUTH", "on")
    _, found = check()
    assert "clicv2 keys create" in found["access"][1]
    (tmp_path / "keys.json").write_text("{")
    _, found = check()
    assert found["access"][0] == "problem"


def test_a_model_that_was_altered(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(repository, tmp_path / "copy")
    with (copy / "clicv2/1/model.onnx").open("ab") as file:
        file.write(b"\0")
    monkeypatch.setenv("CLICV2_MODEL_REPOSITORY", str(copy))
    code, found = check()
    assert code == 1
    assert "not the file that its manifest describes" in found["model"][1]
    assert {found[name][0] for name in ("onnxruntime", "a picture")} == {"problem"}
    assert found["decoders"][0] == "ok"


def test_a_runtime_that_computes_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    real = contract.local_score
    monkeypatch.setattr(contract, "local_score", lambda heatmap: real(heatmap) + 0.01)
    code, found = check()
    assert code == 1
    assert "should be the same" in found["onnxruntime"][1]
    assert found["a picture"][0] == "problem"


def test_redis_and_a_worker(redis: RedisServer, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICV2_REDIS_URL", redis.url.replace("127.0.0.1", "u:hunter2@127.0.0.1"))
    redis.client.execute_command("ACL", "SETUSER", "u", "on", ">hunter2", "~*", "&*", "+@all")
    redis.client.flushdb()
    monkeypatch.setenv("CLICV2_DEADLINE_S", "1")
    code, found = check()
    assert code == 1
    assert found["redis"][0] == "ok", found
    assert "hunter2" not in str(found)
    assert "clicv2 worker" in found["a picture"][1]
    with serving(repository, "worker", redis_url=redis.url, redis_timeout_s=5):
        monkeypatch.setenv("CLICV2_DEADLINE_S", "60")
        code, found = check()
    assert code == 0, found
    assert "1 workers ready" in found["a picture"][1]


@pytest.mark.parametrize(
    ("name", "bad", "good", "says"),
    [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "throws jobs away when it is full (allkeys-lru)"),
        ("appendonly", "no", "yes", "keeps nothing when it is killed"),
    ],
)
def test_a_redis_that_would_lose_jobs(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, name: str, bad: str, good: str, says: str
) -> None:
    monkeypatch.setenv("CLICV2_REDIS_URL", redis.url)
    monkeypatch.setenv("CLICV2_DEADLINE_S", "1")
    redis.client.config_set(name, bad)
    try:
        _, found = check()
    finally:
        redis.client.config_set(name, good)
    assert found["redis"][0] == "problem"
    assert says in found["redis"][1]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "http://127.0.0.1:1"])
def test_no_redis(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CLICV2_REDIS_URL", url)
    code, found = check()
    assert code == 1
    assert found["redis"][0] == "problem"


def test_all_that_is_wrong_with_a_redis_is_told_at_once(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICV2_REDIS_URL", redis.url)
    monkeypatch.setenv("CLICV2_DEADLINE_S", "1")
    redis.client.config_set("maxmemory-policy", "allkeys-lru")
    redis.client.config_set("appendonly", "no")
    try:
        _, found = check()
    finally:
        redis.client.config_set("appendonly", "yes")
        redis.client.config_set("maxmemory-policy", "noeviction")
    assert "--appendonly yes --maxmemory-policy noeviction" in found["redis"][1]


@pytest.mark.parametrize("given", ["", "u:wrong@"])
def test_a_redis_that_wants_a_password(redis: RedisServer, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CLICV2_REDIS_URL", redis.url.replace("127.0.0.1", f"{given}127.0.0.1"))
    monkeypatch.setenv("CLICV2_DEADLINE_S", "1")
    redis.client.execute_command("ACL", "SETUSER", "default", "resetpass", ">hunter2")
    try:
        code, found = check()
    finally:
        redis.client.execute_command("ACL", "SETUSER", "default", "nopass")
    assert code == 1
    assert "password, into CLICV2_REDIS_URL" in found["redis"][1]
    assert found["a picture"][0] == "problem"
    assert "not tried, for it needs: redis" in found["a picture"][1]


def test_what_nobody_foresaw_is_a_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the floor is lava")

    monkeypatch.setattr(contract, "open_version", fail)
    code, found = check()
    assert code == 1
    assert found["model"] == ("problem", "RuntimeError, which nobody foresaw: the floor is lava")
    assert "not tried, for it needs: model" in found["a picture"][1]


def test_triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = install_configs(tiny_model.write(tmp_path / "models"))
    monkeypatch.setenv("CLICV2_MODEL_REPOSITORY", str(models))
    with triton_server(models) as server:
        monkeypatch.setenv("CLICV2_TRITON_URL", server.url)
        monkeypatch.setenv("CLICV2_BACKEND_STALL_S", "5")
        code, found = check()
        assert code == 0, str(found)[-900:]
        assert "golden picture" in found["triton"][1]
        server.kill()
        code, found = check()
    assert code == 1
    assert found["triton"][0] == "problem"
