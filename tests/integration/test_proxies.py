"""Whose word is taken for a caller's address: real connections, from addresses that do or do not belong to proxies.

All of 127.0.0.0/8 is this machine; a connection from 127.0.0.2 stands for one from a container's network.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from serving import Server, serving

FORGED = "203.0.113.7"
PROXIES = "127.0.0.1, 127.0.8.0/24"


@pytest.fixture
def believing(repository: Path) -> Iterator[Server]:
    with limited(repository, trusted_proxies=PROXIES) as server:
        yield server


def limited(repository: Path, **settings: str) -> AbstractContextManager[Server]:
    return serving(repository, auth="off", anonymous_rate="2/day", access_log="true", log_format="json", **settings)


def ask(server: Server, peer: str, *forwarded: str, **headers: str) -> httpx.Response:
    """From this address of the machine; each `forwarded` is a header of its own."""
    said = [*(("X-Forwarded-For", each) for each in forwarded), *headers.items()]
    with httpx.Client(transport=httpx.HTTPTransport(local_address=peer), timeout=30) as client:
        return client.get(f"http://127.0.0.1:{server.port}/v1/models", headers=said)


def left(server: Server, peer: str, *forwarded: str) -> int:
    """How many requests this caller has left, after this one; -1: it was refused."""
    answer = ask(server, peer, *forwarded)
    assert answer.status_code in (200, 429)
    return -1 if answer.status_code == 429 else int(answer.headers["ratelimit"].split(";r=")[1].partition(";")[0])


@pytest.mark.parametrize("allowed", [{}, {"FORWARDED_ALLOW_IPS": "*"}], ids=["", "whatever uvicorn's variable says"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.2"])
def test_by_default_nobody_is_believed(
    repository: Path, peer: str, allowed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even who comes from this machine: a tunnel, a proxy that passes on what it was sent."""
    for name, value in allowed.items():
        monkeypatch.setenv(name, value)
    with limited(repository) as server:
        names = (FORGED, "203.0.113.8", "203.0.113.9", "203.0.113.10")
        assert [left(server, peer, name) for name in names] == [1, 0, -1, -1]
        assert ask(server, peer, FORGED, Forwarded=f"for={FORGED}", **{"X-Real-IP": FORGED}).status_code == 429
        assert left(server, "127.0.0.3", FORGED) == 1, "another caller"
        assert "203.0.113." not in server.printed()
        assert server.printed().count('"request"') >= 6, "the log has them, without addresses"


def test_who_is_no_proxy_is_not_believed(believing: Server) -> None:
    assert [left(believing, "127.0.0.2", name) for name in (FORGED, "203.0.113.8", "127.0.0.1")] == [1, 0, -1]
    assert left(believing, "127.0.0.1", FORGED) == 1, "and the address that was forged has lost nothing"
    assert FORGED not in believing.printed()


@pytest.mark.parametrize("proxy", ["127.0.0.1", "127.0.8.9"], ids=["an address", "one of a network"])
def test_what_a_proxy_says_counts(believing: Server, proxy: str) -> None:
    assert [left(believing, proxy, FORGED) for _ in range(3)] == [1, 0, -1]
    assert left(believing, proxy, "203.0.113.8") == 1
    assert left(believing, proxy, f"{FORGED}:4711") == -1, "with a port, as some write it"
    assert left(believing, proxy, f"::ffff:{FORGED}") == -1, "in IPv6, as some write it"
    assert [left(believing, proxy, name) for name in ("2001:db8::1", "[2001:db8::2]:80")] == [1, 0]
    assert left(believing, proxy) == 1, "without the header it is the proxy itself"
    assert FORGED not in believing.printed()


def test_of_several_hops_the_last_that_is_no_proxy_counts(believing: Server) -> None:
    """Proxies append; what comes before the first of ours may be anybody's invention."""
    assert left(believing, "127.0.0.1", f"198.51.100.1, {FORGED}, 127.0.8.1") == 1
    assert left(believing, "127.0.0.1", f"198.51.100.2,{FORGED}") == 0
    assert left(believing, "127.0.8.3", "198.51.100.3", f"{FORGED}, 127.0.8.1, 127.0.8.2") == -1, "in two headers"
    assert left(believing, "127.0.0.1", f"{FORGED}, 198.51.100.4") == 1


def test_what_is_no_address_is_nobodys(believing: Server) -> None:
    """A proxy that passes on what it was sent makes no new callers of it."""
    invented = ("unknown", "_hidden", "a" * 5000, "' OR 1=1")
    assert [left(believing, "127.0.0.1", name) for name in invented] == [1, 0, -1, -1]
