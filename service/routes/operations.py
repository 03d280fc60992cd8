"""GET /livez, /readyz, /metrics: for whoever operates the service."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from service.errors import Draining, NotReady, ServiceError, Unavailable
from service.health import Readiness, Supervisor
from service.metrics import Metrics
from service.queue.protocol import Queue
from service.routes import examples
from service.routes.problems import responses
from service.schemas import Health

_ALIVE: Mapping[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": examples.HEALTH}}}}
_FIGURES: Mapping[int | str, dict[str, Any]] = {
    200: {
        "description": "The figures, in the newest of the formats that `Accept` names.",
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": examples.FIGURES},
            "application/openmetrics-text": {"schema": {"type": "string"}, "example": examples.OPENMETRICS},
        },
    }
}


def routes(supervisor: Supervisor, readiness: Readiness, queue: Queue, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get(
        "/livez",
        operation_id="livez",
        summary="Is the process alive?",
        responses={**_ALIVE, **responses(Unavailable)},
    )
    async def livez() -> Health:
        """Alive: the event loop answers, and the worker runs. If not, restart the process."""
        if not supervisor.alive:
            raise Unavailable("the worker has died and could not be restarted")
        return Health()

    @router.get(
        "/readyz",
        operation_id="readyz",
        summary="Can it score pictures?",
        responses={**_ALIVE, **responses(Draining, NotReady)},
    )
    async def readyz() -> Health:
        """Ready: within the last second a picture went through queue, worker and model; if none did, one does now."""
        await readiness.check()
        return Health()

    @router.get(
        "/metrics",
        operation_id="metrics",
        summary="Count what happens, for Prometheus",
        response_class=Response,
        responses={**_FIGURES},
    )
    async def scrape(request: Request) -> Response:
        """Requests, pictures, errors, times and the queue. Where keys are needed it wants one of the scope `admin`."""
        try:
            metrics.queue(asdict(await queue.census()))
        except ServiceError:  # a queue out of reach must not hide all the other figures
            metrics.queue({})
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"Content-Type": content_type})

    return router
