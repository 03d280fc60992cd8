from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings

ROOT = Path(__file__).parents[3]


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOST", raising=False)
    monkeypatch.delenv("PORT", raising=False)
    assert (Settings().host, Settings().port) == ("127.0.0.1", 8000)


def test_the_environment_and_what_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")  # noqa: S104  # nothing listens
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("CLICV2_DEADLINE_S", "2.5")
    monkeypatch.setenv("DEADLINE_S", "7")
    assert (Settings().host, Settings().port, Settings().deadline_s) == ("0.0.0.0", 9000, 2.5)  # noqa: S104
    assert Settings(port=1).port == 1


def test_models_are_those_of_the_folder_or_else_of_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CLICV2_MODEL_REPOSITORY", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Settings().model_repository == ROOT / "model_repository"
    (tmp_path / "model_repository").mkdir()
    assert Settings().model_repository == Path("model_repository")


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong", [{"port": 70_000}, {"deadline_s": 0}, {"deadline_s": "inf"}, {"threads": 0}, {"model": "../etc"}]
)
def test_invalid(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "/complexity", "/a/b", "/tools/complexity-2.0", "/v2"])
def test_a_path_of_another_host(path: str) -> None:
    assert Settings(root_path=path).root_path == path


@pytest.mark.parametrize(
    "path",
    ["/", "complexity", "/complexity/", "//a", "/a//b", "/..", "/a/..", "/a b", "/a?b", "/%61", "/ä", "/a\n", "/v1",
     "/v1/complexity", "/docs", "/static/a", "https://host/a"],
)  # fmt: skip
def test_what_is_no_such_path(path: str) -> None:
    with pytest.raises(ValidationError, match=r"root_path|CLICV2_ROOT_PATH"):
        Settings(root_path=path)


def test_proxies() -> None:
    assert Settings().proxies == ()
    given = " 127.0.0.1 ,10.2.0.0/16,::1,fd00::/8,"
    assert Settings(trusted_proxies=given).proxies == ("127.0.0.1", "10.2.0.0/16", "::1", "fd00::/8")


@pytest.mark.parametrize(
    "proxies", ["*", "nginx", "127.0.0.1 10.0.0.1", "10.2.0.1/16", "0.0.0.0/0", "::/0", "1.2.3.4:80"]
)
def test_what_is_no_proxy(proxies: str) -> None:
    """A misspelt one would be trusted by nobody and missed by everybody; all addresses are no proxy at all."""
    with pytest.raises(ValidationError):
        Settings(trusted_proxies=proxies)


def test_every_field_says_why() -> None:
    for name, field in Settings.model_fields.items():
        assert len(field.description or "") > 30, name


def test_nothing_else_reads_the_environment() -> None:
    for path in (ROOT / "service").rglob("*.py"):
        if path.name != "settings.py":
            text = path.read_text()
            assert "os.environ" not in text, path
            assert "getenv" not in text, path
