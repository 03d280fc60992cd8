"""A collector of traces: takes OTLP over HTTP, and keeps the spans that it was sent."""

import asyncio
import gzip
import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Received:
    """A span. Ids are hexadecimal; times in seconds since 1970."""

    service: str
    name: str
    kind: int
    trace_id: str
    id: str
    parent: str
    links: tuple[str, ...]
    facts: dict[str, str | int | float | bool]
    status: int
    why: str
    began: float
    ended: float


@dataclass
class Collector:
    """Attributes:
    bodies: of the requests, as they came.
    status: what it answers.
    """

    port: int = 0
    spans: list[Received] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    status: int = 200

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def trace(self, trace_id: str) -> list[Received]:
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def wait_for(self, enough: Callable[[list[Received]], bool], timeout_s: float = 60) -> list[Received]:
        """All spans, once they are enough."""
        until = time.monotonic() + timeout_s
        while not enough(found := list(self.spans)):
            assert time.monotonic() < until, [(span.service, span.name) for span in found]
            time.sleep(0.05)
        return found

    async def take(self, request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.bodies.append(body)
        if self.status == 200:
            is_json = request.headers["content-type"] == "application/json"
            self.spans.extend(decode(_from_json(body) if is_json else ExportTraceServiceRequest.FromString(body)))
        return Response(status_code=self.status)


def _from_json(body: bytes) -> ExportTraceServiceRequest:
    """As Triton sends it. Protobuf's own JSON has ids in base64, OTLP's has them in hexadecimal."""
    content = json.loads(body)
    for resource in content["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    span[key] = b64encode(bytes.fromhex(span[key])).decode()
    return json_format.ParseDict(content, ExportTraceServiceRequest())


def decode(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource in request.resource_spans:
        service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    service=service,
                    name=span.name,
                    kind=span.kind,
                    trace_id=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=tuple(f"{link.trace_id.hex()}/{link.span_id.hex()}" for link in span.links),
                    facts={
                        one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value")
                        for one in span.attributes
                    },
                    status=span.status.code,
                    why=span.status.message,
                    began=span.start_time_unix_nano / 1e9,
                    ended=span.end_time_unix_nano / 1e9,
                )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector in a thread of this process."""
    collector = Collector()
    app = Starlette(routes=[Route("/v1/traces", collector.take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < until
            time.sleep(0.01)
        collector.port = server.servers[0].sockets[0].getsockname()[1]
        yield collector
    finally:
        server.should_exit = True
        thread.join(30)
