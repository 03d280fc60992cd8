"""The batching rules of ARCHITECTURE.md, one decision at a time and over whole simulated loads."""

from collections import deque
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from service.batcher import BatchLimits, decide

# A busy machine is not a defect.
no_deadline = settings(deadline=None)


@dataclass(frozen=True)
class Job:
    number: int
    admitted_at: float
    deadline: float


instants = st.integers(0, 60).map(float)
limits = st.builds(
    BatchLimits, max_size=st.integers(1, 8), max_delay_s=st.integers(0, 5).map(float), slots=st.integers(1, 4)
)


@st.composite
def jobs(draw: st.DrawFn, at_most: int = 40) -> list[Job]:
    """In order of admission."""
    admitted = sorted(draw(st.lists(instants, max_size=at_most)))
    return [Job(number, at, at + draw(st.integers(1, 40))) for number, at in enumerate(admitted)]


@no_deadline
@given(jobs(8), instants, st.integers(0, 100), st.integers(0, 3), limits)
def test_one_decision(held: list[Job], now: float, depth: int, busy: int, limits: BatchLimits) -> None:
    held = held[: limits.max_size]
    decision = decide(held, now, depth=depth, busy=busy, limits=limits)
    live = [job for job in held if job.deadline > now]

    assert list(decision.expired) == [job for job in held if job.deadline <= now]
    assert list(decision.batch) in ([], live), "a batch is all that is held, in order"
    if decision.batch:
        assert decision.lease == 0
    else:
        assert 1 <= decision.lease <= limits.max_size - len(live)
    if live and busy == 0:
        assert decision.batch, "with an idle backend nobody waits"
    if len(live) == limits.max_size or (live and now - live[0].admitted_at >= limits.max_delay_s):
        assert decision.batch, "the size and the delay are bounded"
    if live and not decision.batch:
        assert decision.until is not None
        assert now < decision.until <= live[0].admitted_at + limits.max_delay_s
        assert all(decision.until < job.deadline for job in live)
    if not held:
        assert decision.until is None
        assert decision.lease <= max(1, -(-depth // limits.slots)), "what waits is shared out over the slots"


@dataclass
class Run:
    started_at: float
    batch: tuple[Job, ...]


def simulate(arrivals: list[Job], limits: BatchLimits, call_s: int) -> tuple[list[Run], list[Job]]:
    """What `service.worker` does, in steps of one second: the calls it makes, and the jobs that expired."""
    coming, queue, held = deque(arrivals), deque[Job](), list[Job]()
    busy_until: list[float] = []  # of the slots in a call
    runs: list[Run] = []
    expired: list[Job] = []
    for now in range(400):
        while coming and coming[0].admitted_at <= now:
            queue.append(coming.popleft())
        busy_until = [until for until in busy_until if until > now]
        while len(busy_until) < limits.slots:  # one idle slot at a time gathers
            decision = decide(held, now, depth=len(queue), busy=len(busy_until), limits=limits)
            expired += decision.expired
            held = [job for job in held if job not in decision.expired]
            if decision.batch:
                runs.append(Run(now, decision.batch))
                busy_until.append(now + call_s)
                held = []
            elif not queue:
                break
            room = len(held) + decision.lease
            while queue and len(held) < room:
                job = queue.popleft()  # as a queue does, it drops the expired
                (held if job.deadline > now else expired).append(job)
    assert not coming
    assert not queue
    assert not held
    return runs, expired


@no_deadline
@given(jobs(), limits, st.integers(1, 7))
def test_over_a_whole_load(arrivals: list[Job], limits: BatchLimits, call_s: int) -> None:
    runs, expired = simulate(arrivals, limits, call_s)
    dispatched = [job for run in runs for job in run.batch]

    assert sorted(job.number for job in dispatched + expired) == list(range(len(arrivals))), "none lost or doubled"
    assert [job.number for job in dispatched] == sorted(job.number for job in dispatched), "none reordered"
    for run in runs:
        assert 1 <= len(run.batch) <= limits.max_size
        assert all(job.deadline > run.started_at for job in run.batch), "none dispatched after its deadline"


@no_deadline
@given(instants, limits, st.integers(1, 7))
def test_a_lone_job_never_waits(at: float, limits: BatchLimits, call_s: int) -> None:
    runs, _ = simulate([Job(0, at, at + 10)], limits, call_s)
    assert [run.started_at for run in runs] == [at]


@no_deadline
@given(st.integers(1, 4), st.integers(2, 20))
def test_jobs_that_wait_together_use_every_slot(slots: int, waiting: int) -> None:
    arrivals = [Job(number, 0.0, 100.0) for number in range(waiting)]
    runs, _ = simulate(arrivals, BatchLimits(max_size=32, max_delay_s=0.0, slots=slots), call_s=3)
    assert sum(run.started_at == 0 for run in runs) == min(slots, waiting)
