import json
import multiprocessing
import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from service import keys
from service.allowance import Allowance
from service.commands.keys import app
from service.keys import FORMAT, Key, KeyFile, KeysError


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def opened(path: Path, clock: Clock | None = None, failures: list[None] | None = None) -> KeyFile:
    return KeyFile(path, clock or Clock(), lambda: failures.append(None) if failures is not None else None)


def make_and_add(path: Path, name: str = "someone") -> tuple[Key, str]:
    key, full = keys.make(name, "read")
    keys.add(path, key)
    return key, full


def test_what_a_key_looks_like() -> None:
    key, full = keys.make("someone", "read")
    match = FORMAT.fullmatch(full)
    assert match
    assert match["id"] == key.id
    assert 62 ** len(match["secret"]) > 2**128
    assert len({keys.make("someone", "read")[1] for _ in range(100)}) == 100


def test_at_rest_there_is_no_key(path: Path) -> None:
    _, full = make_and_add(path)
    text = path.read_text()
    match = FORMAT.fullmatch(full)
    assert match
    assert full not in text
    assert match["secret"] not in text
    assert not FORMAT.search(text)


def test_a_key_is_found(path: Path) -> None:
    key, full = make_and_add(path)
    make_and_add(path, "another")
    assert opened(path).find(full) == key


def test_what_is_no_key_is_not_found(path: Path) -> None:
    key, full = make_and_add(path)
    known = opened(path)
    other = keys.make("other", "read")[1]
    same_id = f"clicv2_{key.id}_{'x' * 32}"
    forged = same_id + keys._checksum(key.id, "x" * 32)
    assert FORMAT.fullmatch(forged)
    swapped = full[:-8] + full[-7] + full[-8] + full[-6:]
    for presented in (
        "",
        "clicv2_",
        full + "x",
        full[:-1],
        full.upper(),
        other,
        forged,
        same_id,
        "\xe4" * 54,
        f" {full}",
    ):
        assert known.find(presented) is None, presented
    assert swapped == full or known.find(swapped) is None


def test_a_revoked_key_is_refused_within_a_second_and_a_new_one_is_known(path: Path) -> None:
    clock = Clock()
    key, full = make_and_add(path)
    known = opened(path, clock)
    keys.remove(path, key.id)
    _, newer = make_and_add(path)
    assert known.find(full)  # it has just looked
    clock.now += keys.RELOAD_S
    assert known.find(full) is None
    assert known.find(newer)


def test_a_link_on_the_way_is_replaced(tmp_path: Path) -> None:
    """So Kubernetes changes a secret: keys.json -> ..data/keys.json, ..data -> a folder with a date for a name."""
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    _, old = make_and_add(tmp_path / "first" / "keys.json")
    _, new = make_and_add(tmp_path / "second" / "keys.json")
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    clock = Clock()
    known = opened(tmp_path / "keys.json", clock)
    assert known.find(old)
    (tmp_path / "..next").symlink_to("second")
    (tmp_path / "..next").replace(tmp_path / "..data")
    clock.now += keys.RELOAD_S
    assert known.find(old) is None
    assert known.find(new)


@pytest.mark.parametrize("damage", ["", "{", '{"keys": [{"id": "x"}]}', None])
def test_a_file_that_is_damaged_while_we_run_changes_nothing(path: Path, damage: str | None) -> None:
    clock, failures = Clock(), list[None]()
    _, full = make_and_add(path)
    known = opened(path, clock, failures)
    path.unlink() if damage is None else path.write_text(damage)
    for _ in range(3):
        clock.now += keys.RELOAD_S
        assert known.find(full)
    assert len(failures) == 1  # once for each damage, not for each request
    path.write_text('{"keys": []}')
    clock.now += keys.RELOAD_S
    assert known.find(full) is None
    assert len(failures) == 1


def test_a_damaged_file_is_no_start_and_its_content_is_not_repeated(path: Path) -> None:
    path.write_text('{"keys": [{"id": "UPPER", "secret": "hunter2"}]}')
    with pytest.raises(KeysError, match=r"keys\.0\.id") as caught:
        opened(path)
    assert "hunter2" not in str(caught.value)


def test_two_keys_with_one_id(path: Path) -> None:
    key, _ = make_and_add(path)
    entry = json.loads(path.read_text())["keys"][0]
    path.write_text(json.dumps({"keys": [entry, entry]}))
    with pytest.raises(KeysError, match="two keys with one id"):
        keys.read(path)
    path.write_text(json.dumps({"keys": [entry]}))
    with pytest.raises(KeysError, match="already"):
        keys.add(path, key)


def test_no_file_holds_no_keys(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    known = opened(path, clock)
    assert len(known) == 0
    assert "clicv2 keys create" in caplog.text
    _, full = make_and_add(path)
    clock.now += keys.RELOAD_S
    assert known.find(full)


def _add_some(path: Path) -> None:
    for _ in range(10):
        make_and_add(path)


def test_commands_at_the_same_time_lose_no_key(path: Path) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=_add_some, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(keys.read(path)) == 30
    assert sorted(each.name for each in path.parent.iterdir()) == [".keys.json.lock", "keys.json"]


def test_another_user_may_read_the_file(path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_and_add(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_scopes() -> None:
    reader, admin = keys.make("reader", "read")[0], keys.make("admin", "admin")[0]
    assert [reader.allows("read"), reader.allows("admin")] == [True, False]
    assert [admin.allows("read"), admin.allows("admin")] == [True, True]
    with pytest.raises(ValidationError):
        keys.make("", "read")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_the_loopback_nobody_needs_a_key(host: str) -> None:
    assert not keys.wanted(None, host)
    assert keys.wanted("on", host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "gateway.example"])  # noqa: S104  # nothing listens
def test_elsewhere_somebody_has_to_decide(host: str) -> None:
    with pytest.raises(ValueError, match=r"CLICV2_AUTH=on.*CLICV2_AUTH=off"):
        keys.wanted(None, host)
    assert keys.wanted("on", host)
    assert not keys.wanted("off", host)


def command(path: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*arguments, "--file", str(path)])
    return result.exit_code, result.stdout, result.stderr


def test_the_commands(path: Path) -> None:
    status, printed, said = command(path, "create", "--name", "a team", "--rate", "10/second", "--quota", "5000/day")
    assert status == 0
    full = printed.strip()
    assert FORMAT.fullmatch(full)  # nothing else, so that a shell can take it
    assert full not in said
    key = opened(path).find(full)
    assert key
    assert (key.name, key.scope, key.rate, key.quota) == ("a team", "read", Allowance(10, 1), Allowance(5000, 86_400))
    command(path, "create", "--name", "prometheus", "--scope", "admin")

    status, printed, _ = command(path, "list")
    assert status == 0
    assert re.search(rf"{key.id} +read +10/second +5000/day +\d{{4}}-\d\d-\d\d +a team\n\w{{8}} +admin +- +- ", printed)
    assert key.sha256 not in printed

    assert command(path, "revoke", key.id)[0] == 0
    assert opened(path).find(full) is None
    assert [each.name for each in keys.read(path)] == ["prometheus"]


def test_commands_that_cannot_be_done(path: Path) -> None:
    assert command(path, "revoke", "nobodyis")[0] == 2
    status, _, said = command(path, "create", "--name", "x", "--rate", "fast")
    assert status == 2
    assert "10/second" in said
    status, _, said = command(path.parent / "missing" / "keys.json", "create", "--name", "x")
    assert status == 2
    assert "cannot be written" in said
    assert not path.exists()
