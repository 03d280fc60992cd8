"""Which attempts are made, when, and with which headers; by a clock of the test's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import cycle
from typing import TypeVar

import httpx
import pytest
from clicv2_client.answers import Reply
from clicv2_client.bodies import Body, Bytes, OneShot
from clicv2_client.errors import (
    Clicv2Error,
    ConnectionFailed,
    InvalidParameter,
    Overloaded,
    Problem,
    ProblemDocument,
    TimedOut,
    UnknownJob,
)
from clicv2_client.exchange import LEAST_S, Call, Exchange, Program, Send
from clicv2_client.results import Job, JobCounts
from clicv2_client.retry import Retry
from clicv2_client.testing import STATUSES
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

GOOD = Reply(200, httpx.Headers(), b"good")
T = TypeVar("T")
BROKEN = ConnectionFailed("no answer")


def refusal(slug: str, retry_after: str | None = None, **facts: object) -> Reply:
    document = {"type": f"urn:clicv2:problem:{slug}", "status": STATUSES[slug], "detail": slug, **facts}
    headers = {"Content-Type": "application/problem+json"} | ({"Retry-After": retry_after} if retry_after else {})
    return Reply(STATUSES[slug], httpx.Headers(headers), to_json(document))


@dataclass
class World:
    """Answers what is sent, and lets time pass only when somebody waits.

    Attributes:
        outcomes: of the attempts, in order; the last one for all the others.
        took_s: of each attempt.
    """

    outcomes: Sequence[Reply | Clicv2Error]
    took_s: float = 0.01
    retry: Retry = field(default_factory=Retry)
    luck: Callable[[], float] = lambda: 0.5
    now: float = 1000.0
    sent: list[Send] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.retry, lambda: self.now, self.luck)

    def run(self, call: Call[bytes]) -> bytes:
        return self.drive(self.exchange.of(call))

    def drive(self, program: Program[T]) -> T:
        outcome: Reply | Clicv2Error | None = None
        while True:
            try:
                step = program.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Send):
                self.sent.append(step)
                self.sent_at.append(self.now)
                outcome = self.outcomes[min(len(self.sent), len(self.outcomes)) - 1]
                if isinstance(outcome, Clicv2Error):
                    outcome.__traceback__ = None
                if isinstance(step.call.body, OneShot):
                    list(step.call.body.open().pieces)
                self.now += min(self.took_s, step.until - self.now)
            else:
                outcome = None
                self.now += step.seconds

    @property
    def asked_s(self) -> list[float | None]:
        """X-Request-Timeout of each attempt."""
        found = [step.headers.get("X-Request-Timeout") for step in self.sent]
        return [None if each is None else float(each) for each in found]


def call(timeout_s: float = 10, body: Body | None = None, **facts: object) -> Call[bytes]:
    settings: dict[str, object] = {"keyed": True, "timed": True, "body": body or Bytes(b"x"), **facts}
    return Call("POST", "/v1/complexity", lambda reply: reply.content, timeout_s, **settings)  # type: ignore[arg-type]


def test_what_succeeds_is_asked_once() -> None:
    world = World([GOOD])
    assert world.run(call()) == b"good"
    assert world.asked_s == [10.0]


@pytest.mark.parametrize(
    "passing", [BROKEN, *map(refusal, sorted({s for s, n in STATUSES.items() if n in (429, 503)}))]
)
def test_what_passes_is_repeated_with_one_key_and_the_time_that_is_left(passing: Reply | Clicv2Error) -> None:
    world = World([passing, passing, GOOD])
    assert world.run(call()) == b"good"
    assert len({step.headers["Idempotency-Key"] for step in world.sent}) == 1
    assert len(world.sent) == 3
    # Half of 0.1 s, then half of 0.2 s.
    assert world.sent_at == pytest.approx([1000.0, 1000.06, 1000.17])
    assert world.asked_s == pytest.approx([10.0, 9.94, 9.83])


def test_each_call_has_a_key_of_its_own_unless_it_is_given_one() -> None:
    world = World([GOOD])
    world.run(call())
    world.run(call())
    world.run(call(headers={"Idempotency-Key": "mine"}))
    keys = [step.headers["Idempotency-Key"] for step in world.sent]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


@pytest.mark.parametrize(
    "slug", sorted(slug for slug, status in STATUSES.items() if status not in (429, 502, 503, 504))
)
def test_what_does_not_pass_is_never_repeated(slug: str) -> None:
    world = World([refusal(slug, retry_after="1"), GOOD])
    with pytest.raises(Problem) as caught:
        world.run(call())
    assert caught.value.type.endswith(slug)
    assert len(world.sent) == 1


@pytest.mark.parametrize("retryable", [True, False])
def test_a_certificate_that_is_refused_is_not_shown_again(retryable: bool) -> None:
    world = World([ConnectionFailed("certificate", retryable=retryable), GOOD])
    if retryable:
        assert world.run(call()) == b"good"
    else:
        with pytest.raises(ConnectionFailed):
            world.run(call())
    assert len(world.sent) == 1 + retryable


def test_retry_after_is_honoured() -> None:
    world = World([refusal("overloaded", "3"), GOOD])
    assert world.run(call()) == b"good"
    assert world.sent_at[1] - world.sent_at[0] == pytest.approx(3 + 0.01 + 0.05)


def test_who_is_to_come_back_too_late_is_told_at_once() -> None:
    world = World([refusal("quota-exceeded", "30000"), GOOD])
    with pytest.raises(Problem, match="quota"):
        world.run(call())
    assert world.now < 1001


def test_at_the_end_the_last_error_is_raised_and_not_that_time_is_over() -> None:
    world = World([BROKEN, refusal("overloaded", "1")])
    with pytest.raises(Overloaded):
        world.run(call(timeout_s=5))
    assert world.now <= 1005
    assert len(world.sent) >= 5


def test_also_when_the_machine_slept_for_too_long() -> None:
    world = World([BROKEN])
    program = world.exchange.of(call())
    program.send(None)
    program.send(BROKEN)
    world.now += 60
    with pytest.raises(ConnectionFailed):
        program.send(None)


def test_attempts_may_be_limited() -> None:
    world = World([BROKEN], retry=Retry(attempts=3))
    with pytest.raises(ConnectionFailed):
        world.run(call())
    assert len(world.sent) == 3


def test_a_stream_is_not_sent_twice() -> None:
    world = World([BROKEN, GOOD])
    with pytest.raises(ConnectionFailed):
        world.run(call(body=OneShot(BytesIO(b"x"))))
    assert len(world.sent) == 1
    assert world.asked_s == [None], "nor refused for the sake of a header"


def test_a_stream_of_which_nothing_was_taken_is_sent() -> None:
    body = OneShot(BytesIO(b"x"))
    assert body.replayable
    next(body.open().pieces)
    assert not body.replayable


@given(
    outcomes=st.lists(
        st.sampled_from(
            [BROKEN, refusal("overloaded", "1"), refusal("draining"), refusal("deadline-exceeded", "2"), GOOD]
        ),
        min_size=1,
        max_size=30,
    ),
    took_s=st.floats(0, 20),
    timeout_s=st.floats(0.1, 60),
    lucks=st.lists(st.floats(0.05, 1, exclude_max=True), min_size=1, max_size=30),
)
def test_time_is_never_exceeded_whatever_happens(
    outcomes: list[Reply | Clicv2Error], took_s: float, timeout_s: float, lucks: list[float]
) -> None:
    luck = cycle(lucks)
    world = World([*outcomes], took_s=took_s, luck=lambda: next(luck))
    try:
        assert world.run(call(timeout_s)) == b"good"
    except Clicv2Error as error:
        assert error.retryable or isinstance(error, TimedOut)  # noqa: PT017  # it may also succeed
    assert world.now <= 1000 + timeout_s + 1e-6
    for at, step, asked_s in zip(world.sent_at, world.sent, world.asked_s, strict=True):
        assert step.until == 1000 + timeout_s
        assert asked_s == pytest.approx(step.until - at, abs=1e-3)
        assert asked_s >= LEAST_S - 1e-3


class Strict(World):
    """A service that allows `most_s`, and says no more than that the header is wrong."""

    most_s = 10.0

    def run(self, call: Call[bytes]) -> bytes:
        too_long = refusal("invalid-parameter", invalid=[{"parameter": "X-Request-Timeout", "detail": "no"}])
        world = self

        class Outcomes(list[Reply | Clicv2Error]):
            def __getitem__(self, at: object) -> Reply:  # type: ignore[override]
                asked_s = world.asked_s[-1]
                return too_long if asked_s is not None and asked_s > world.most_s else GOOD

        self.outcomes = Outcomes([GOOD])
        return super().run(call)


def test_a_service_that_allows_less_time_is_learnt_of() -> None:
    """And soon: of a hundred calls one is refused, for which its picture was sent in vain."""
    world = Strict([])
    for _ in range(100):
        assert world.run(call(timeout_s=60)) == b"good"
    assert len(world.sent) == 101
    assert world.asked_s[0] == 60
    assert set(world.asked_s[1:]) == {None}
    assert world.run(call(timeout_s=25)) == b"good"
    assert world.run(call(timeout_s=12)) == b"good"
    assert world.run(call(timeout_s=5)) == b"good"
    assert world.asked_s[101:] == [25.0, None, 12.0, None, 5.0]


def test_another_parameter_that_is_wrong_is_the_callers() -> None:
    world = World([refusal("invalid-parameter", invalid=[{"parameter": "opacity", "detail": "no"}]), GOOD])
    with pytest.raises(InvalidParameter) as caught:
        world.run(call())
    assert caught.value.parameters == ("opacity",)
    assert len(world.sent) == 1


def test_what_an_attempt_without_an_answer_has_done_is_done() -> None:
    delete = Call("DELETE", "/v1/jobs/1", lambda reply: reply.content, 10, done_by=UnknownJob)
    assert World([BROKEN, refusal("unknown-job")]).run(delete) == b""
    with pytest.raises(UnknownJob):
        World([refusal("unknown-job")]).run(delete)


def test_an_attempt_that_hangs_is_no_end_where_it_is_bounded() -> None:
    """But what the service says it had no time for, or a certificate, is."""
    hangs = TimedOut("no answer in time")
    world = World([hangs, hangs, GOOD], took_s=1e9)
    look = Call("GET", "/v1/jobs/1", lambda reply: reply.content, 60, attempt_s=10)
    assert world.run(look) == b"good"
    assert [round(step.until - at, 6) for step, at in zip(world.sent, world.sent_at, strict=True)] == [10, 10, 10]
    world = World([hangs], took_s=1e9)
    with pytest.raises(TimedOut):
        world.run(look)
    assert 1050 < world.now <= 1060
    assert len(world.sent) == 6
    world = World([hangs], took_s=1e9)
    with pytest.raises(TimedOut):
        world.run(call())
    assert len(world.sent) == 1


@pytest.mark.parametrize(("timeout_s", "expected_s"), [(300.0, 300.0), (None, 60.0)])
def test_a_service_that_is_away_is_asked_about_a_job_until_the_callers_own_time_is_over(
    timeout_s: float | None, expected_s: float
) -> None:
    world = World([BROKEN])

    def ask(left_s: float) -> Call[Job]:
        return Call("GET", "/v1/jobs/1", lambda _: job(ended=True), left_s)

    with pytest.raises(ConnectionFailed):
        world.drive(world.exchange.until_ended(ask, timeout_s))
    assert expected_s - 3 < world.now - 1000 <= expected_s


def job(*, ended: bool) -> Job:
    document = {
        "id": "1",
        "status": "done" if ended else "running",
        "counts": JobCounts(items=2, scored=1, failed=0, left=1),
        "created_at": 0,
        "expires_at": 1,
        "ended_at": 1 if ended else None,
        "durable": False,
    }
    return Job.model_validate(document)


@given(looks=st.integers(0, 40), timeout_s=st.none() | st.floats(0.1, 100), luck=st.floats(0, 1, exclude_max=True))
def test_a_job_is_waited_for_as_long_as_it_is_worth(looks: int, timeout_s: float | None, luck: float) -> None:
    world = World([GOOD], luck=lambda: luck)
    answers = iter([job(ended=False)] * looks + [job(ended=True)] * 2)
    pauses = []
    program = world.exchange.until_ended(
        lambda left_s: Call("GET", "/v1/jobs/1", lambda _: next(answers), left_s), timeout_s
    )
    outcome: Reply | None = None
    try:
        while True:
            step = program.send(outcome)
            if isinstance(step, Send):
                outcome = GOOD
                world.now += 0.01
            else:
                outcome = None
                pauses.append(step.seconds)
                world.now += step.seconds
    except StopIteration as end:
        found: Job = end.value
        assert found.ended  # it may also be too late
    except TimedOut:
        assert timeout_s is not None
    assert max(pauses, default=0) <= 5
    if timeout_s is not None:
        assert world.now <= 1000 + timeout_s + LEAST_S


def test_a_document_says_no_more_than_its_status() -> None:
    assert ProblemDocument(status=503).type == "about:blank"
