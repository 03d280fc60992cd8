from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from clicv2_client.retry import NEVER, Retry, parse_retry_after
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


@given(
    failures=st.integers(1, 10_000),
    luck=st.floats(0, 1, exclude_max=True),
    asked_s=st.none() | st.floats(0, 1e4),
    base_s=st.floats(1e-3, 10),
    most_s=st.floats(0, 100),
)
def test_a_pause_is_what_is_asked_for_and_a_part_of_the_longest(
    failures: int, luck: float, asked_s: float | None, base_s: float, most_s: float
) -> None:
    found = Retry(base_s=base_s, most_s=most_s).pause_s(failures, asked_s, luck)
    longest = base_s
    for _ in range(min(failures, 100) - 1):
        longest = min(longest * 2, most_s)
    assert found == pytest.approx((asked_s or 0) + luck * min(longest, most_s))


def test_attempts_are_counted() -> None:
    assert [Retry(attempts=3).allows(failures) for failures in (1, 2, 3)] == [True, True, False]
    assert Retry().allows(10**9)
    assert not NEVER.allows(1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Fri, 20 Nov 2026 12:01:30 -0000", 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
        ("Fri, 99 Nov 2026 12:01:30 GMT", None),
    ],
)
def test_retry_after_is_read(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_raises(value: str) -> None:
    found = parse_retry_after(value, NOW)
    assert found is None or found >= 0
