import itertools

import pytest

from service.resilience import Breaker, BreakerLimits, Progress

LIMITS = BreakerLimits(failures=10, window=20, probe_every_s=0.25)


def closed_breaker() -> Breaker:
    breaker = Breaker(LIMITS, "not asked yet")
    breaker.proved()
    return breaker


def test_open_until_proved() -> None:
    breaker = Breaker(LIMITS, "not asked yet")
    assert (breaker.closed, breaker.why, breaker.opened) == (False, "not asked yet", 0)
    assert breaker.probe_at <= 0  # at once
    breaker.succeeded()
    assert not breaker.closed  # only a probe proves anything
    breaker.proved()
    assert breaker.closed


def test_a_fatal_failure_opens_it_and_a_probe_follows_at_once() -> None:
    breaker = closed_breaker()
    breaker.failed("connection refused", 7.0, fatal=True)
    assert (breaker.closed, breaker.why, breaker.opened, breaker.probe_at) == (False, "connection refused", 1, 7.0)


def test_probes_keep_their_distance() -> None:
    breaker = closed_breaker()
    breaker.failed("gone", 7.0, fatal=True)
    breaker.disproved("still gone", 7.5)
    assert (breaker.closed, breaker.why, breaker.probe_at) == (False, "still gone", 7.75)


def test_what_fails_while_open_changes_nothing() -> None:
    breaker = closed_breaker()
    breaker.failed("first", 7.0, fatal=True)
    breaker.failed("second", 8.0, fatal=True)
    assert (breaker.why, breaker.opened, breaker.probe_at) == ("first", 1, 7.0)


def test_one_bad_picture_in_a_batch_of_32_does_not_open_it() -> None:
    """The worker halves the batch: 6 calls fail and 5 do not, in an order that depends on the picture's place."""
    for position in range(32):
        breaker = closed_breaker()

        def search(low: int, high: int, breaker: Breaker = breaker, position: int = position) -> None:
            if not low <= position < high:
                breaker.succeeded()
                return
            breaker.failed("indigestible", 0.0, fatal=False)
            if high - low > 1:
                search(low, (low + high) // 2)
                search((low + high) // 2, high)

        search(0, 32)
        assert breaker.closed


@pytest.mark.parametrize("pattern", [(True,), (True, False), (False, True), (True, True, False)])
def test_half_of_the_last_calls_open_it(pattern: tuple[bool, ...]) -> None:
    """Against the rule said slowly: open as soon as 10 of the last 20 calls have failed."""
    breaker = closed_breaker()
    history: list[bool] = []
    for failed in itertools.islice(itertools.cycle(pattern), 40):
        history.append(failed)
        if failed:
            breaker.failed("500", 1.0, fatal=False)
        else:
            breaker.succeeded()
        if sum(history[-20:]) >= 10:
            break
        assert breaker.closed
    assert not breaker.closed
    breaker.proved()
    breaker.failed("500", 2.0, fatal=False)
    assert breaker.closed  # what was before is forgotten


def test_a_third_of_failures_is_borne() -> None:
    breaker = closed_breaker()
    for failed in itertools.islice(itertools.cycle((True, False, False)), 100):
        if failed:
            breaker.failed("500", 1.0, fatal=False)
        else:
            breaker.succeeded()
    assert breaker.closed


def test_progress() -> None:
    progress = Progress()
    assert not progress.waiting
    assert progress.quiet_s(5.0) == 0
    progress.began(10.0)
    progress.began(10.4)  # joins one that waits already
    assert progress.waiting
    assert progress.quiet_s(10.5) == pytest.approx(0.5)
    progress.ended(10.6, answered=True)
    assert progress.quiet_s(10.7) == pytest.approx(0.1)
    progress.began(10.8)
    progress.ended(11.0, answered=False)  # gave up: that is no sign of life
    assert progress.quiet_s(11.0) == pytest.approx(0.4)
    progress.ended(11.1, answered=True)
    assert progress.quiet_s(20.0) == 0
    progress.began(20.0)  # silence counts from when somebody waits
    assert progress.quiet_s(20.5) == pytest.approx(0.5)
