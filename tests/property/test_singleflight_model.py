"""Single flight in every order of steps that hypothesis thinks of, on an event loop that moves only when it is told.

`CLICV2_MODEL_RUNS` is how many runs there are.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from clicv2.errors import Corrupt
from service.errors import DeadlineExceeded, Overloaded
from service.singleflight import SingleFlight, Wanted

RUNS = int(os.environ.get("CLICV2_MODEL_RUNS", "200"))
PICTURES = 2

pictures = st.sampled_from([0, 0, 0, 1])  # mostly one, so that callers meet


class Steps(asyncio.SelectorEventLoop):
    """Does nothing by itself and has a clock that is set."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def step(self) -> None:
        """What is ready now, once."""
        self.call_soon(self.stop)
        self.run_forever()

    def settle(self) -> None:
        for _ in range(20):
            self.step()


@dataclass(eq=False)
class Run:
    """One run of the work for a picture.

    Attributes:
        expires: the latest deadline of those who waited when it began.
        ending: what ends it.
        unwinding: what ends it once it has been cancelled; None before, or if nothing is to be waited for.
    """

    expires: float
    ending: asyncio.Future[str]
    unwinding: asyncio.Future[None] | None = None


@dataclass(eq=False)
class Caller:
    """Somebody who asked; `left`: and does not want to know any more."""

    picture: int
    deadline: float
    task: asyncio.Task[tuple[str, bool]]
    left: bool = False


class Interleavings(RuleBasedStateMachine):
    """Any order of arrivals, disconnects, ends and passing time, also between two turns of the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Steps()
        self.flights: SingleFlight[str] = SingleFlight(lambda error: isinstance(error, Corrupt), self.loop.time)
        self.runs: dict[int, Run] = {}
        self.callers: list[Caller] = []
        self.tardy = False
        self.crossed: list[str] = []

    @initialize(tardy=st.booleans())
    def be_tardy(self, tardy: bool) -> None:
        """Whether work that is cancelled takes its time to end."""
        self.tardy = tardy

    def work(self, picture: int) -> Callable[[Wanted], Coroutine[Any, Any, str]]:
        async def work(wanted: Wanted) -> str:
            if picture in self.runs:
                self.crossed.append(f"picture {picture} runs twice at once")
            run = self.runs[picture] = Run(wanted.until, self.loop.create_future())
            try:
                return await run.ending
            except asyncio.CancelledError:
                if self.tardy:
                    run.unwinding = self.loop.create_future()
                    await run.unwinding
                raise
            finally:
                del self.runs[picture]

        return work

    @rule(picture=pictures, within_s=st.integers(0, 3))
    def arrive(self, picture: int, within_s: int) -> None:
        deadline = self.loop.now + within_s + 0.5
        coroutine = self.flights.share(picture, deadline, self.work(picture))
        self.callers.append(Caller(picture, deadline, self.loop.create_task(coroutine)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), alone=st.booleans())
    def disconnect(self, data: st.DataObject, alone: bool) -> None:
        first = data.draw(st.sampled_from(self.waiting))
        for caller in self.waiting:
            if caller is first or (not alone and caller.picture == first.picture):
                caller.left = True
                caller.task.cancel()

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), ending=st.sampled_from(["answer", "corrupt", "of the moment"]))
    def end(self, data: st.DataObject, ending: str) -> None:
        self.end_one(data.draw(st.sampled_from(sorted(self.runs))), ending)

    def end_one(self, picture: int, ending: str) -> None:
        run = self.runs[picture]
        if run.unwinding:
            if not run.unwinding.done():
                run.unwinding.set_result(None)
            return
        if run.ending.done():
            return
        if ending == "answer":
            run.ending.set_result(f"{picture}")
        elif ending == "corrupt":
            run.ending.set_exception(Corrupt(f"{picture}"))
        elif self.loop.now < run.expires:
            run.ending.set_exception(Overloaded("queue", 1))
        else:  # as a job does that has the deadline of those who waited when it began
            run.ending.set_exception(DeadlineExceeded("too late"))

    @rule(seconds=st.integers(0, 2))
    def pass_time(self, seconds: int) -> None:
        """By 0 s: one turn of the event loop."""
        if seconds == 0:
            self.loop.step()
            return
        self.loop.now += seconds
        self.loop.settle()
        late = [caller for caller in self.waiting if caller.deadline < self.loop.now]
        assert not late, "somebody waits past his deadline"
        awaited = {caller.picture for caller in self.waiting}
        assert all(picture in awaited or run.unwinding for picture, run in self.runs.items()), "work for nobody"

    @property
    def waiting(self) -> list[Caller]:
        return [caller for caller in self.callers if not caller.task.done() and not caller.left]

    @invariant()
    def never_twice_at_once(self) -> None:
        assert not self.crossed
        assert len(self.flights) <= PICTURES

    @invariant()
    def everybody_has_his_own_answer(self) -> None:
        for caller in self.callers:
            if not caller.task.done() or caller.task.cancelled():
                continue
            error = caller.task.exception()
            if error is None:
                assert caller.task.result()[0] == f"{caller.picture}"
            elif isinstance(error, DeadlineExceeded):
                assert caller.deadline <= self.loop.now, "another's deadline became his"
            elif isinstance(error, Corrupt):
                assert str(error) == f"{caller.picture}"
            else:
                assert isinstance(error, Overloaded)

    def teardown(self) -> None:
        """Nobody is lost: once all work is done everybody has been told, and nothing is left."""
        try:
            self.tardy = False
            for _ in range(100):
                self.loop.settle()
                for picture in list(self.runs):
                    self.end_one(picture, "answer")
                if not self.runs and all(caller.task.done() for caller in self.callers):
                    break
            assert all(caller.task.done() for caller in self.callers), "a caller is lost"
            assert all(caller.left for caller in self.callers if caller.task.cancelled())
            self.loop.settle()
            assert len(self.flights) == 0, "a flight is left behind"
            assert not asyncio.all_tasks(self.loop), "a task is left behind"
            self.everybody_has_his_own_answer()
            self.never_twice_at_once()
        finally:
            self.loop.close()


def test_single_flight_in_any_order() -> None:
    run_state_machine_as_test(
        Interleavings,
        settings=settings(
            max_examples=RUNS, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
