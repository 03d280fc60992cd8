"""What /metrics tells: every name and label of it is here, and every label has few values.

admitted = answered + failed + expired + cancelled + dead + in flight      (exactly, at every instant)
"""

import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from clicv2.contract import Manifest

Stage = Literal["upload", "decode", "queue", "inference", "render"]
CacheState = Literal["hit", "miss", "shared"]
Ending = Literal["answered", "failed", "expired", "cancelled", "dead"]
Refusal = Literal["unauthorized", "forbidden", "rate", "quota"]

# From below a lone inference to the deadline, a factor of about two apart.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64)


def _version_or_none(package: str) -> str:
    """A gateway that leaves the model to workers has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


class Metrics:
    """The counters of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.requests = Counter(
            "clicv2_requests", "HTTP requests answered.", ("route", "method", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "clicv2_request_duration_seconds",
            "From a request's first byte to its answer's last.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._stages = Histogram(
            "clicv2_stage_duration_seconds", "Time in each stage.", ("stage",), buckets=_SECONDS, registry=registry
        )
        self._admitted = Counter("clicv2_jobs_admitted", "Jobs that the queue took.", registry=registry)
        self._finished = Counter("clicv2_jobs_finished", "Admitted jobs by their end.", ("outcome",), registry=registry)
        self._in_flight = Gauge("clicv2_jobs_in_flight", "Jobs admitted and not finished.", registry=registry)
        self._queue = {
            "waiting": Gauge("clicv2_queue_depth", "Jobs that wait for a worker.", registry=registry),
            "leased": Gauge("clicv2_queue_leased", "Jobs that a worker has.", registry=registry),
            "dead": Gauge("clicv2_queue_dead_letters", "Jobs that were set aside.", registry=registry),
            "oldest_s": Gauge(
                "clicv2_queue_oldest_age_seconds", "Age of the oldest unfinished job.", registry=registry
            ),
            "workers": Gauge("clicv2_queue_workers_ready", "Workers that are ready.", registry=registry),
        }
        self._shed = Counter("clicv2_requests_shed", "Refused for overload, by limit.", ("reason",), registry=registry)
        self._refused = Counter(
            "clicv2_requests_refused", "Refused for who asks, or how much he asks.", ("reason",), registry=registry
        )
        self._counted_alone = Counter(
            "clicv2_limits_counted_alone", "Limits counted by this process alone: Redis was away.", registry=registry
        )
        self._keys_unusable = Counter(
            "clicv2_keys_unusable", "Changes of the file of keys that could not be read.", registry=registry
        )
        self._fetched = Histogram(
            "clicv2_fetch_duration_seconds",
            "Pictures by URL, by how it ended.",
            ("outcome",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._undecodable = Counter("clicv2_decode_failures", "Pictures refused.", ("kind",), registry=registry)
        self._batch_size = Histogram("clicv2_batch_size", "Jobs in a backend call.", buckets=_BATCH, registry=registry)
        self._looked_up = Counter(
            "clicv2_cache_lookups",
            "Pictures by where their result came from: kept, a job of their own, another request's job.",
            ("result",),
            registry=registry,
        )
        self._cache_failures = Counter(
            "clicv2_cache_failures", "Calls that Redis did not serve: nothing is kept then.", registry=registry
        )
        self._fenced = Counter(
            "clicv2_finishes_fenced", "Outcomes refused: lease lost or job no longer wanted.", registry=registry
        )
        self._jobs_driven = Gauge(
            "clicv2_api_jobs_driven", "Jobs of the API that this process drives.", registry=registry
        )
        self._jobs_taken_over = Counter(
            "clicv2_api_jobs_taken_over", "Those whose driver before let its lease run out.", registry=registry
        )
        self._job_items = Counter(
            "clicv2_api_job_items", "Pictures of jobs that got their result.", ("outcome",), registry=registry
        )
        self._event_streams = Gauge("clicv2_event_streams", "Streams of events that are open.", registry=registry)
        self._webhooks = Counter(
            "clicv2_webhook_attempts",
            "By what came of it; pending: to be tried again.",
            ("outcome",),
            registry=registry,
        )
        self._model = Gauge(
            "clicv2_model_info",
            "The model that is served.",
            ("name", "version", "method", "fingerprint", "sha256"),
            registry=registry,
        )
        Gauge("clicv2_build_info", "What serves.", ("version", "python", "onnxruntime"), registry=registry).labels(
            version("clicv2-complexity"), platform.python_version(), _version_or_none("onnxruntime")
        ).set(1)
        for state in ("hit", "miss", "shared"):
            self._looked_up.labels(state)
        for ending in ("answered", "failed", "expired", "cancelled", "dead"):
            self._finished.labels(ending)  # so that each is there, as 0, before it happens

    def queue(self, counted: Mapping[str, float]) -> None:
        """What a census of the queue found, by the names of its fields; what is missing is not known now."""
        for name, gauge in self._queue.items():
            gauge.set(counted.get(name, math.nan))

    def serves(self, manifest: Manifest) -> None:
        self._model.labels(
            manifest.name, str(manifest.version), manifest.method, manifest.fingerprint, manifest.sha256
        ).set(1)

    def admitted(self) -> None:
        self._admitted.inc()
        self._in_flight.inc()

    def finished(self, ending: Ending) -> None:
        self._finished.labels(ending).inc()
        self._in_flight.dec()

    def shed(self, reason: str) -> None:
        self._shed.labels(reason).inc()

    def refused(self, reason: Refusal) -> None:
        self._refused.labels(reason).inc()

    def counted_alone(self) -> None:
        self._counted_alone.inc()

    def keys_unusable(self) -> None:
        self._keys_unusable.inc()

    def fetched(self, ending: str, seconds: float) -> None:
        self._fetched.labels(ending).observe(seconds)

    def undecodable(self, error: Exception) -> None:
        self._undecodable.labels(type(error).__name__).inc()

    def fenced(self) -> None:
        self._fenced.inc()

    def looked_up(self, state: CacheState) -> None:
        self._looked_up.labels(state).inc()

    def cache_failed(self) -> None:
        self._cache_failures.inc()

    def job_driven(self, taken_over: bool) -> None:
        self._jobs_driven.inc()
        self._jobs_taken_over.inc(taken_over)

    def job_released(self) -> None:
        self._jobs_driven.dec()

    def job_item(self, scored: bool) -> None:
        self._job_items.labels("scored" if scored else "failed").inc()

    def event_stream(self, opened: bool) -> None:
        self._event_streams.inc(1 if opened else -1)

    def webhook(self, state: str) -> None:
        self._webhooks.labels(state).inc()

    def batch(self, size: int) -> None:
        self._batch_size.observe(size)

    def took(self, stage: Stage, seconds: float) -> None:
        self._stages.labels(stage).observe(seconds)
