"""GET /livez, /readyz, /metrics: for whoever operates the service."""

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from service.errors import ServiceError, Unavailable
from service.health import Readiness, Supervisor
from service.metrics import Metrics
from service.queue.protocol import Queue
from service.routes.problems import responses
from service.schemas import Health


def routes(supervisor: Supervisor, readiness: Readiness, queue: Queue, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/livez", operation_id="livez", summary="Is the process alive?", responses=responses(503))
    async def livez() -> Health:
        """Alive: the event loop answers, and the worker runs. If not, restart the process."""
        if not supervisor.alive:
            raise Unavailable("the worker has died and could not be restarted")
        return Health()

    @router.get("/readyz", operation_id="readyz", summary="Can it score pictures?", responses=responses(503))
    async def readyz() -> Health:
        """Ready: within the last second a picture went through queue, worker and model; if none did, one does now."""
        await readiness.check()
        return Health()

    @router.get("/metrics", operation_id="metrics", summary="For Prometheus", response_class=Response)
    async def scrape(request: Request) -> Response:
        try:
            metrics.queue(asdict(await queue.census()))
        except ServiceError:  # a queue out of reach must not hide all the other figures
            metrics.queue({})
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"Content-Type": content_type})

    return router
