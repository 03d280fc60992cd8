import pytest
from starlette.requests import Request

from service.errors import InvalidParameter
from service.routes.demands import idempotency_key, timeout_s


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "state": {}})


@pytest.mark.parametrize(("given", "wanted_s"), [("2", 2.0), ("0.05", 0.05), (" 1e1 ", 10.0), ("10", 10.0)])
def test_a_timeout(given: str, wanted_s: float) -> None:
    assert timeout_s(request(x_request_timeout=given), 10.0) == wanted_s


def test_without_a_timeout_it_is_the_servers() -> None:
    assert timeout_s(request(), 10.0) == 10.0


@pytest.mark.parametrize("given", ["", "soon", "0", "-1", "0.049", "10.01", "nan", "inf", "1,5"])
def test_a_timeout_that_is_none(given: str) -> None:
    with pytest.raises(InvalidParameter, match="X-Request-Timeout"):
        timeout_s(request(x_request_timeout=given), 10.0)


@pytest.mark.parametrize(
    ("given", "key"), [("abc", "abc"), ('"abc"', "abc"), ('"', '"'), ('""', '""'), ("x" * 255, "x" * 255)]
)
def test_a_key(given: str, key: str) -> None:
    assert idempotency_key(request(idempotency_key=given)) == key


def test_without_a_key() -> None:
    assert idempotency_key(request()) is None


@pytest.mark.parametrize("given", ["", "a b", "ä", "x" * 256, "\t"])
def test_a_key_that_is_none(given: str) -> None:
    with pytest.raises(InvalidParameter, match="Idempotency-Key"):
        idempotency_key(request(idempotency_key=given))
