"""Spans to a collector, by OTLP over HTTP: the only module that knows OpenTelemetry. Extra `otel`.

The provider is our own and not made the process's: a framework that finds one there adds spans of its own, with the
URL and what it is asked for.

They are sent from a thread, a batch each second. A collector that is away loses spans and delays nobody: 2,048 are
kept, and while it hangs the process ends 2 s later at most.
"""

import os
import socket
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.tracing import Facts, Kind, Span

_PATH = "/v1/traces"
_SEND_EVERY_MS = 1000
_TIMEOUT_S = 5.0
_CLOSE_S = 2.0
_LONGEST_WHY = 300
_LONGEST_PARENT = 200  # 55 as of now; a later version may add some. A longer one would be a line of the log for each
_KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
# Only this one, not `tracestate`, which is for systems beyond ours, nor `baggage`, which is anything.
_traceparents = TraceContextTextMapPropagator()


class OtlpTracer:
    """See `service.tracing.Tracer`.

    Args:
        endpoint: base URL of the collector, e.g. http://127.0.0.1:4318.
        service: what the spans are said to come from.
        ratio: of the traces that begin here, how many are recorded. Whoever sent a traceparent has decided already.
    """

    def __init__(self, endpoint: str, service: str, *, ratio: float = 1.0) -> None:
        resource = Resource.create(
            {
                "service.name": service,
                "service.version": version("clicv2-complexity"),
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            }
        )
        self._provider = TracerProvider(ParentBased(TraceIdRatioBased(ratio)), resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + _PATH, timeout=_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_SEND_EVERY_MS))
        self._tracer = self._provider.get_tracer("clicv2")

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
        begun = self._tracer.start_span(
            name,
            _context(parent),
            _KINDS[kind],
            facts,
            [Link(trace.get_current_span(_context(one)).get_span_context()) for one in links],
            time.time_ns() - round(began_s_ago * 1e9),
        )
        return _OtlpSpan(begun, self._tracer) if begun.is_recording() else None

    def close(self) -> None:
        # In a thread, which ends with the process if it must: the provider would wait for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


class _OtlpSpan:
    """See `service.tracing.Span`."""

    def __init__(self, span: trace.Span, tracer: trace.Tracer) -> None:
        self._span = span
        self._tracer = tracer
        self._context = span.get_span_context()

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._context.trace_id)

    @property
    def traceparent(self) -> str:
        one = self._context
        return f"00-{one.trace_id:032x}-{one.span_id:016x}-{one.trace_flags:02x}"

    def child(self, name: str, facts: Facts, kind: Kind) -> Span:
        above = trace.set_span_in_context(self._span, _NOWHERE)
        return _OtlpSpan(self._tracer.start_span(name, above, _KINDS[kind], facts), self._tracer)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, facts: Facts) -> None:
        self._span.set_attributes(facts)

    def fail(self, why: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, why[:_LONGEST_WHY]))

    def end(self) -> None:
        self._span.end()


_NOWHERE = Context()


def _context(traceparent: str) -> Context:
    """Of a traceparent; what is none leads nowhere."""
    if not 0 < len(traceparent) <= _LONGEST_PARENT:
        return _NOWHERE
    return _traceparents.extract({"traceparent": traceparent}, _NOWHERE)
