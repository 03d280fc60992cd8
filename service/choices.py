"""What the settings choose: each part of a service, made as they say.

Only here is a concrete queue, backend or store named; whatever uses one knows its protocol alone. What is imported
within a function is installed only where it is used: see the extras in pyproject.toml.
"""

import time
from typing import TYPE_CHECKING

from clicv2 import contract
from service.backend.protocol import Backend
from service.batcher import BatchLimits
from service.cache.memory import MemoryStore
from service.cache.protocol import Store
from service.cache.results import ResultCache, entry_bytes
from service.catalog import Catalog
from service.jobs.memory import MemoryStore as MemoryJobs
from service.jobs.protocol import JobLimits
from service.jobs.protocol import Store as JobStore
from service.jobs.webhook import Signer, WebhookLimits, Webhooks
from service.ledger.memory import MemoryLedger
from service.ledger.protocol import Ledger
from service.limits import Limiter, RedisCounts
from service.metrics import Metrics
from service.queue.memory import MemoryQueue
from service.queue.protocol import Queue
from service.settings import Settings
from service.worker import Worker

if TYPE_CHECKING:
    from service.fetch import Fetcher
    from service.tracing import Tracer


def worker(
    settings: Settings, queue: Queue, backend: Backend, metrics: Metrics, tracer: "Tracer | None" = None
) -> Worker:
    limits = BatchLimits(settings.max_batch_size, settings.max_batch_delay_s, backend.slots)
    return Worker(queue, backend, metrics, limits, renew_every_s=settings.lease_s / 3, tracer=tracer)


def tracer(settings: Settings, process: str) -> "Tracer | None":
    """Raises ValueError when traces are wanted and what makes them is not installed."""
    if not settings.otlp_endpoint:
        return None
    try:
        from service.otlp import OtlpTracer
    except ImportError as error:
        raise ValueError(f"CLICV2_OTLP_ENDPOINT needs the extra `otel`: {error}") from None

    return OtlpTracer(settings.otlp_endpoint, f"clicv2-{process}", ratio=settings.otlp_ratio)


def catalog(settings: Settings) -> Catalog:
    return Catalog(settings.model_repository / settings.model, settings.model_version)


def results(settings: Settings, catalog: Catalog, metrics: Metrics) -> ResultCache | None:
    if not settings.cache_bytes:
        return None
    if settings.redis_url:
        return ResultCache(redis_store(settings, settings.redis_url, catalog, metrics))
    return ResultCache(MemoryStore(max_bytes=settings.cache_bytes, ttl_s=settings.cache_ttl_s))


def backend(settings: Settings) -> Backend:
    model = settings.model_repository / settings.model
    if settings.triton_url:
        from service.backend.triton import TritonBackend

        return TritonBackend(
            settings.triton_url,
            model,
            version=settings.model_version,
            calls=settings.triton_calls,
            timeout_s=settings.backend_timeout_s,
            stall_s=settings.backend_stall_s,
            sharing=settings.triton_shared_memory,
        )
    from service.backend.onnx import OnnxBackend

    return OnnxBackend(contract.open_version(model, settings.model_version), settings.threads)


def memory_queue(settings: Settings) -> MemoryQueue:
    return MemoryQueue(
        capacity=settings.max_in_flight,
        lease_s=settings.lease_s,
        max_attempts=settings.max_attempts,
        clock=time.monotonic,
    )


def job_limits(settings: Settings) -> JobLimits:
    return JobLimits(
        open_at_once=settings.jobs_open,
        held_bytes=settings.jobs_held_bytes,
        share=settings.jobs_share,
        ttl_s=settings.job_ttl_s,
        lease_s=settings.job_lease_s,
        max_items=settings.job_max_items,
        max_bytes=settings.job_max_bytes,
        upload_s=settings.job_upload_s,
        uploads=settings.job_uploads,
        driven=settings.jobs_driven,
        lanes=settings.job_lanes,
        slice_s=settings.job_slice_s,
        max_attempts=settings.max_attempts,
        max_page=settings.job_max_page,
        streams=settings.event_streams,
        heartbeat_s=settings.event_heartbeat_s,
    )


def job_store(settings: Settings, limits: JobLimits) -> JobStore:
    if not settings.redis_url:
        return MemoryJobs(limits)
    from service.jobs.redis import RedisStore

    return RedisStore(settings.redis_url, limits, prefix=settings.queue_name, timeout_s=settings.redis_timeout_s)


def webhooks(settings: Settings, secret: str) -> Webhooks:
    from service.addresses import public_except
    from service.outbound import Outbound, SystemResolver  # takes 0.3 s to import

    allowed = public_except(settings.url_denied_networks)
    outbound = Outbound(SystemResolver(), allowed=allowed, ports=frozenset(settings.url_ports))
    limits = WebhookLimits(timeout_s=settings.webhook_timeout_s, attempts=settings.webhook_attempts)
    return Webhooks(Signer(secret), outbound, limits)


def limiter(settings: Settings, metrics: Metrics) -> Limiter:
    return Limiter(
        RedisCounts(settings.redis_url, settings.redis_timeout_s) if settings.redis_url else None,
        prefix=settings.queue_name,
        timeout_s=settings.redis_timeout_s,
        on_lost=metrics.counted_alone,
        on_exceeded=metrics.refused,
    )


def ledger(settings: Settings) -> Ledger:
    if not settings.redis_url:
        return MemoryLedger(capacity=100_000, ttl_s=settings.idempotency_ttl_s, clock=time.monotonic)
    from service.ledger.redis import RedisLedger

    return RedisLedger(
        settings.redis_url,
        prefix=f"{{{settings.queue_name}}}:key:",
        ttl_s=settings.idempotency_ttl_s,
        timeout_s=settings.redis_timeout_s,
    )


def redis_store(settings: Settings, url: str, catalog: Catalog, metrics: Metrics) -> Store:
    from service.cache.redis import OVERHEAD_BYTES, RedisStore

    return RedisStore(
        url,
        prefix=settings.queue_name,
        slots=max(1, settings.cache_bytes // (entry_bytes(catalog.current) + OVERHEAD_BYTES)),
        ttl_s=settings.cache_ttl_s,
        timeout_s=settings.redis_timeout_s,
        on_failure=metrics.cache_failed,
    )


def redis_queue(settings: Settings, url: str) -> Queue:
    from service.queue.redis import RedisQueue

    return RedisQueue(
        url,
        prefix=settings.queue_name,
        capacity=settings.queue_capacity,
        lease_s=settings.lease_s,
        max_attempts=settings.max_attempts,
        result_ttl_s=settings.result_ttl_s,
        dead_letters=settings.dead_letters,
        timeout_s=settings.redis_timeout_s,
    )


def fetcher(settings: Settings, metrics: Metrics) -> "Fetcher":
    from service.addresses import public_except
    from service.fetch import Fetcher
    from service.outbound import Outbound, SystemResolver  # takes 0.3 s to import

    allowed = public_except(settings.url_denied_networks)
    outbound = Outbound(SystemResolver(), allowed=allowed, ports=frozenset(settings.url_ports))
    return Fetcher(outbound, limit=settings.max_upload_bytes, capacity=settings.max_fetches, observe=metrics.fetched)
