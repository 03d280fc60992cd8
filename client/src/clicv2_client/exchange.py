"""A call, from its first attempt to its answer or its error, without I/O.

`Exchange.of` is a generator: it says what to do next, and is sent what came of it. `Client` and `AsyncClient` do that,
each in its way; nothing else differs between them.

    Send     --> Reply, or the error that there was instead
    Wait     --> None
"""

import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import httpx

from clicv2_client.answers import Reply, problem_of
from clicv2_client.bodies import Body
from clicv2_client.errors import Clicv2Error, InvalidParameter, Problem, TimedOut
from clicv2_client.events import Listening
from clicv2_client.results import Job
from clicv2_client.retry import Retry

TIMEOUT = "X-Request-Timeout"
KEY = "Idempotency-Key"
# The service takes no less; an attempt with less time than this is none.
LEAST_S = 0.05
# Pauses between two looks at a job.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.1, 5.0
# How long a service that is out of reach is asked about a job again, when the caller has set no end: a restart is
# waited for, one that is gone for good is told of.
PATIENCE_S = 60.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """Something to ask of the service.

    Attributes:
        parse: from a good answer to the result. Raises InvalidAnswer.
        timeout_s: until the result, all attempts and pauses together.
        attempt_s: an attempt without an answer for so long is over, and is followed by another: what is asked for is
            there or not, so only a connection that is dead takes that long. None: each may take all the time.
        keyed: send an Idempotency-Key, so that a repetition is no second job.
        timed: tell the service how long the answer is waited for.
        done_by: after an attempt of which nobody knows how it ended, this says that it did what was asked.
    """

    method: str
    path: str
    parse: Callable[[Reply], T_co]
    timeout_s: float
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    keyed: bool = False
    timed: bool = False
    done_by: type[Problem] | None = None
    attempt_s: float | None = None

    @property
    def replayable(self) -> bool:
        return self.body is None or self.body.replayable


@dataclass(frozen=True, slots=True)
class Send:
    """Send this, and wait for the answer until an instant of the monotonic clock.

    Attributes:
        headers: all of them but the body's own.
    """

    call: Call[object]
    headers: Mapping[str, str]
    until: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for a while."""

    seconds: float


Step: TypeAlias = Send | Wait
Outcome: TypeAlias = Reply | Clicv2Error | None
Program: TypeAlias = Generator[Step, Outcome, T]


class Exchange:
    """How a client makes its calls, and what it has learnt of its service. Threads may share one.

    Args:
        luck: uniform in [0, 1).
    """

    def __init__(self, retry: Retry, clock: Callable[[], float], luck: Callable[[], float]) -> None:
        self._retry = retry
        self._clock = clock
        self._luck = luck
        # Of each path, up to where X-Request-Timeout is sent. The service does not say how much it allows: half of
        # what it has refused is tried next. Without the header it takes its own longest, and we leave when our time
        # is over.
        self._most_s: dict[str, float] = {}

    def of(self, call: Call[T]) -> Program[T]:
        """Returns the result. Raises Clicv2Error: the last attempt's."""
        until = self._clock() + call.timeout_s
        headers = dict(call.headers)
        if call.keyed:
            headers.setdefault(KEY, str(uuid.uuid4()))
        failures = 0
        error: Clicv2Error | None = None
        while True:
            left_s = until - self._clock()
            if left_s < LEAST_S:  # a busy machine wakes us later than we asked for
                raise error or TimedOut(f"no answer within {call.timeout_s:g} s")
            asked_s = self._asked_s(call, left_s)
            over = until if call.attempt_s is None else min(until, self._clock() + call.attempt_s)
            outcome = yield Send(call, headers if asked_s is None else headers | {TIMEOUT: f"{asked_s:.3f}"}, over)
            if isinstance(outcome, Reply) and outcome.ok:
                return call.parse(outcome)
            error = problem_of(outcome) if isinstance(outcome, Reply) else outcome
            if error is None:
                raise AssertionError("whoever sends a request says what came of it")
            if not call.replayable:
                raise error
            if asked_s is not None and isinstance(error, InvalidParameter) and TIMEOUT in error.parameters:
                self._most_s[call.path] = min(asked_s / 2, self._most_s.get(call.path, asked_s))
                continue
            if failures and call.done_by is not None and isinstance(error, call.done_by):
                return call.parse(Reply(204, httpx.Headers(), b""))
            failures += 1
            pause_s = self._retry.pause_s(failures, error.retry_after_s, self._luck())
            in_time = self._clock() + pause_s + LEAST_S <= until
            passing = error.retryable or (over < until and type(error) is TimedOut)
            if not (passing and in_time and self._retry.allows(failures)):
                raise error
            yield Wait(pause_s)

    def listening(self, after: int, timeout_s: float | None) -> Listening:
        """To the events of a job that come after one.

        Args:
            timeout_s: None: however long it takes, as long as the service is there.
        """
        patience_s = PATIENCE_S if timeout_s is None else float("inf")
        return Listening(after, self._retry, self._luck, self._clock, patience_s)

    def until_ended(self, ask: Callable[[float], Call[Job]], timeout_s: float | None) -> Program[Job]:
        """Ask how a job stands, ever more seldom, until it has ended. Raises TimedOut, and what a call raises.

        Args:
            ask: from the time that the call may take.
            timeout_s: None: however long it takes, as long as the service is there.
        """
        until = float("inf") if timeout_s is None else self._clock() + timeout_s
        pause_s = _FIRST_LOOK_S
        while True:
            job = yield from self.of(ask(PATIENCE_S if timeout_s is None else max(LEAST_S, until - self._clock())))
            if job.ended:
                return job
            left_s = until - self._clock()
            if left_s < LEAST_S:
                raise TimedOut(f"the job is still {job.status}: {job.counts.left} of {job.counts.items} are left")
            yield Wait(min(pause_s * (0.5 + self._luck() / 2), max(0.0, left_s - 2 * LEAST_S)))
            pause_s = min(_LAST_LOOK_S, pause_s * 1.5)

    def _asked_s(self, call: Call[object], left_s: float) -> float | None:
        """How long the service is told to take at most; None: nothing is said."""
        if not call.timed or left_s > self._most_s.get(call.path, left_s):
            return None
        # What cannot be sent again must not be refused for the sake of this header.
        return None if call.body is not None and call.body.once else left_s
