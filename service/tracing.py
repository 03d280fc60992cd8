"""Traces: what one request took where, from the upload over queue and worker to Triton.

    request                     the gateway's, from the first byte to the last
      decode
      job                       from the admission to the answer; its context goes with the job
        queue                   the worker's, from the admission to the lease
        infer                   of a batch: in the trace of its first job, and to it those of the others lead
          triton
      render

A span is begun where the one above it is known: within a process by the context of the task, from process to process
by a traceparent (W3C Trace Context, level 1). Where nothing is recorded there is no span above, and `span` costs
0.3 us. What records is a `Tracer`: see `service.otlp`. Nothing here knows of it, and where it is not wanted, which is
the default, nothing of it is imported.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from typing import Literal, Protocol

Fact = str | int | float | bool
Facts = Mapping[str, Fact]
Kind = Literal["internal", "server", "client", "producer", "consumer"]


class Span(Protocol):
    """Something that takes time, and is recorded.

    Attributes:
        trace_id: 32 hexadecimal digits.
        traceparent: what makes another span its child, in whatever process.
    """

    @property
    def trace_id(self) -> str: ...

    @property
    def traceparent(self) -> str: ...

    def child(self, name: str, facts: Facts, kind: Kind) -> "Span": ...

    def rename(self, name: str) -> None: ...

    def note(self, facts: Facts) -> None: ...

    def fail(self, why: str) -> None:
        """It did not do what it should."""
        ...

    def end(self) -> None: ...


class Tracer(Protocol):
    """Records spans."""

    def begin(
        self,
        name: str,
        facts: Facts,
        kind: Kind,
        *,
        parent: str = "",
        links: Sequence[str] = (),
        began_s_ago: float = 0.0,
    ) -> Span | None:
        """A span at the top of what this process does; None if this trace is not recorded.

        Args:
            parent: traceparent of the span above; "", or what is none: it begins a trace of its own.
            links: traceparents of others that it has to do with.
        """
        ...

    def close(self) -> None:
        """Send what there is, within a short time."""
        ...


_now: ContextVar[Span | None] = ContextVar("span", default=None)


def trace_id() -> str | None:
    """Of what is being worked on; None if that is not recorded."""
    span = _now.get()
    return span.trace_id if span else None


def traceparent() -> str:
    """What goes with a message to another process; "" if nothing is recorded."""
    span = _now.get()
    return span.traceparent if span else ""


def span(name: str, facts: Facts | None = None, kind: Kind = "internal") -> AbstractContextManager[None]:
    """A part of what is being worked on; nothing if that is not recorded."""
    above = _now.get()
    return _Within(above.child(name, facts or {}, kind)) if above else _NOTHING


def within(begun: Span | None) -> AbstractContextManager[None]:
    """Until the end of the block, which is the end of the span, this is what is being worked on."""
    return _Within(begun) if begun else _NOTHING


def over(tracer: Tracer | None, name: str, facts: Facts, *, parent: str, took_s: float) -> None:
    """Something that ends now and of which this process learns only now."""
    if tracer and parent:
        ended = tracer.begin(name, facts, "consumer", parent=parent, began_s_ago=took_s)
        if ended:
            ended.end()


def shared(tracer: Tracer | None, name: str, facts: Facts, parents: Sequence[str]) -> AbstractContextManager[None]:
    """One piece of work for several traces: the first has what happens within, the others a span that leads there.

    Args:
        parents: of each, or "" where nothing is recorded.
    """
    recorded = [parent for parent in parents if parent] if tracer else []
    if tracer is None or not recorded:
        return _NOTHING
    first, *others = recorded
    lead = tracer.begin(name, facts, "internal", parent=first, links=others)
    if lead is None:
        return _NOTHING
    spans = [tracer.begin(name, facts, "internal", parent=one, links=(lead.traceparent,)) for one in others]
    return _Within(lead, [span for span in spans if span])


class _Within:
    """Makes a span the one that is worked on, and ends it and those beside it, which is their end too."""

    def __init__(self, begun: Span, beside: Sequence[Span] = ()) -> None:
        self._span = begun
        self._all = (begun, *beside)
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> None:
        self._token = _now.set(self._span)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._token:
            _now.reset(self._token)
        for each in self._all:
            if kind:
                each.note({"error.type": kind.__name__})
            if isinstance(error, Exception):  # else it was cancelled: nobody wants it any more
                each.fail(str(error))
            each.end()


_NOTHING: AbstractContextManager[None] = nullcontext()
