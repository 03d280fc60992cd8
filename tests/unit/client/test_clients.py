"""Both clients have one shape, and are set up as they say."""

import inspect
import pickle
import re
from importlib.metadata import version

import clicv2_client
import httpx
import pytest
from clicv2_client import AsyncClient, Clicv2Error, Client, InvalidAnswer, Problem, results
from clicv2_client.jobs import AsyncJobs, Jobs
from clicv2_client.testing import PNG, FakeService

pytestmark = pytest.mark.anyio
RENAMED = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


def shape(kind: type) -> dict[str, list[tuple[str, str]]]:
    """Parameters and defaults of every public method."""
    return {
        name: [(each.name, str(each.default)) for each in inspect.signature(method).parameters.values()]
        for name, method in vars(kind).items()
        if inspect.isfunction(method)
        and (not name.startswith("_") or name in ("__init__", *RENAMED, *RENAMED.values()))
    }


@pytest.mark.parametrize(("waiting", "awaited"), [(Client, AsyncClient), (Jobs, AsyncJobs)])
def test_both_have_one_shape(waiting: type, awaited: type) -> None:
    expected = {RENAMED.get(name, name): parameters for name, parameters in shape(waiting).items()}
    assert shape(awaited) == expected


def test_every_result_has_its_name_in_the_package() -> None:
    """So that who writes types need not know in which module they are."""
    made = {name for name, kind in vars(results).items() if inspect.isclass(kind) and issubclass(kind, results.Result)}
    ours_alone = {"Result", "Models", "JobPage", "PageFacts"}
    assert made - ours_alone <= set(clicv2_client.__all__)
    assert {"Jobs", "AsyncJobs", "Picture", "Scored", "JobOptions"} <= set(clicv2_client.__all__)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLICV2_URL", "CLICV2_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def asked(**settings: str) -> httpx.Request:
    service = FakeService()
    with Client(transport=service, **settings) as client:  # type: ignore[arg-type]
        client.models()
    return service.requests[0]


def test_by_default_it_asks_this_machine_without_a_key() -> None:
    request = asked()
    assert str(request.url) == "http://127.0.0.1:8000/v1/models"
    assert "authorization" not in request.headers
    assert request.headers["user-agent"] == f"clicv2-client/{version('clicv2-client')}"


def test_the_environment_is_asked_and_arguments_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICV2_URL", "https://pictures.example/complexity/")
    monkeypatch.setenv("CLICV2_API_KEY", "clicv2_secret")
    request = asked()
    assert str(request.url) == "https://pictures.example/complexity/v1/models"
    assert request.headers["authorization"] == "Bearer clicv2_secret"
    request = asked(base_url="http://other", api_key="mine")
    assert (str(request.url), request.headers["authorization"]) == ("http://other/v1/models", "Bearer mine")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", "/path", "http://a:b", "\0"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL"):
        Client(url)


def test_a_key_is_not_shown() -> None:
    with Client(api_key="clicv2_secret", transport=FakeService()) as client:
        assert "secret" not in repr(client)
        assert re.fullmatch(r"Client\('http://127.0.0.1:8000'\)", repr(client))


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_time_is_above_zero(timeout_s: float) -> None:
    with Client(transport=FakeService()) as client, pytest.raises(ValueError, match="above 0"):
        client.score(PNG, timeout_s=timeout_s)


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "text/html"}, b"<html>a portal</html>"),
        (200, {"Content-Type": "application/json"}, b'{"score": 0.5}'),
        (200, {"Content-Type": "application/json"}, b"[]"),
        (200, {}, b""),
        (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b broken"),
        (302, {"Location": "https://elsewhere"}, b""),
    ],
)
async def test_who_is_no_service_of_ours_is_told_apart(answer: tuple[int, dict[str, str], bytes]) -> None:
    status, headers, content = answer
    transport = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, stream=httpx.ByteStream(content)))
    with Client(transport=transport) as client:
        for call in (lambda: client.score(PNG), lambda: client.heatmap(PNG), client.models):
            with pytest.raises(InvalidAnswer if status == 200 else Problem, match=r"URL|read|elsewhere"):
                call()
        with pytest.raises(Clicv2Error):
            list(client.jobs.events("1", timeout_s=1))


async def test_options_arrive_as_the_service_reads_them() -> None:
    service = FakeService()
    with Client(transport=service) as client:
        client.score(PNG, heatmap="grid", embedding=True, opacity=0.25, heatmap_size=64, model="clicv2:1")
        client.heatmap(PNG, size=64, kind="png", file="webp")
        client.heatmap(PNG)
        client.score("https://example.com/ü?a=b")
    scored, first, second, by_url = service.requests
    assert dict(scored.url.params) == {
        "heatmap": "grid", "embedding": "true", "opacity": "0.25", "heatmap_size": "64", "model": "clicv2:1",
    }  # fmt: skip
    assert dict(first.url.params) == {"heatmap": "png", "heatmap_size": "64"}
    assert first.headers["accept"] == "image/webp"
    assert dict(second.url.params) == {"heatmap": "overlay"}
    assert by_url.content == '{"url":"https://example.com/ü?a=b"}'.encode()
    assert by_url.headers["content-type"] == "application/json"


def test_a_result_can_be_kept() -> None:
    with Client(transport=FakeService()) as client:
        found = client.score(PNG, heatmap="png")
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301  # our own
