"""What /metrics tells: every name and label of it is here, and every label has few values.

    admitted = answered + failed + expired + cancelled + dead + in flight      (exactly, at every instant)

A label's values are there from the start, as 0, where they are known: of a counter that appears with its first
event Prometheus sees no increase, and so not the event.

A picture's figures cost 10 us at the gateway and 3 us at the worker, all together, since the children of labels are
looked up once (three times as much otherwise). A scrape costs 6 ms. What an object knows anyway is read then.
"""

import math
import platform
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, Protocol, get_args

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from clicv2.contract import Manifest

# total: from the complete upload to the answer, so that nobody's slow line is in it.
Stage = Literal["upload", "decode", "queue", "batch", "inference", "render", "total"]
CacheState = Literal["hit", "miss", "shared"]
Ending = Literal["answered", "failed", "expired", "cancelled", "dead"]
Refusal = Literal["unauthorized", "forbidden", "rate", "quota"]
CallFailure = Literal["down", "error", "bad_output"]

# From below a lone inference to the deadline, a factor of about two apart.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64)
_UNIT = tuple(n / 20 for n in range(1, 21))  # of scores and entropies, 0 to 1
_BYTES = tuple(4**n * 1024 for n in range(1, 10))  # 4 kB to 256 MB
_PIXELS = tuple(4**n * 1000 for n in range(2, 9))  # 16,000 to 66 million
# Those that a route might answer with: an error budget sees the first of them too.
_OUR_FAULTS = ("500", "503", "504")
_SHED = ("requests", "batches", "urls", "queue", "jobs", "job-bytes", "job-uploads", "event-streams", "job-share")
_UNDECODABLE = ("Empty", "Unsupported", "Corrupt", "TooLarge")
_HOOKS = ("pending", "delivered", "failed")
DECILES = 10
# Else each counter and histogram has a second series, with the instant since when it is there: a sixth of all.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Watched(Protocol):
    """A backend, as far as figures go; see `service.backend.protocol`."""

    @property
    def healthy(self) -> bool: ...

    @property
    def events(self) -> Mapping[str, int]: ...


def _version_or_none(package: str) -> str:
    """A gateway that leaves the model to workers has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


class _BackendCollector(Collector):
    """Asks the backend when somebody scrapes."""

    def __init__(self) -> None:
        self.watched: Watched | None = None

    def collect(self) -> Iterator[Metric]:
        if self.watched is None:
            return
        breaker = "1 while the backend is taken to be down and no job is sent to it."
        yield GaugeMetricFamily("clicv2_backend_breaker_open", breaker, not self.watched.healthy)
        events = CounterMetricFamily("clicv2_backend_events", "What happened to the backend.", labels=("event",))
        for event, count in self.watched.events.items():
            events.add_metric((event,), count)
        yield events


@dataclass(frozen=True, slots=True)
class _OfModel:
    """What is counted for each version of the model.

    Attributes:
        bounds: scores between the tenths of the reference pictures, lowest first.
    """

    bounds: list[float]
    scores: Histogram
    entropies: Histogram
    deciles: list[Counter]


def _decile_bounds(manifest: Manifest) -> list[float]:
    shares = np.linspace(0.0, 1.0, len(manifest.reference))
    return [float(np.interp(n / DECILES, shares, manifest.reference)) for n in range(1, DECILES)]


class Metrics:
    """The counters of one application, in a registry of its own.

    Args:
        trace_id: of what is being worked on now; goes with observations as their exemplar. None: nothing is traced.
    """

    def __init__(self, trace_id: Callable[[], str | None] = lambda: None) -> None:
        self._trace_id = trace_id
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._backend = _BackendCollector()
        registry.register(self._backend)
        self._requests = Counter(
            "clicv2_requests", "HTTP requests answered.", ("route", "method", "status"), registry=registry
        )
        self._requests_by: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._request_seconds = Histogram(
            "clicv2_request_duration_seconds",
            "From a request's first byte to its answer's last.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._requests_in_flight = Gauge(
            "clicv2_requests_in_flight", "HTTP requests that are not answered.", registry=registry
        )
        self._upload_bytes = Histogram(
            "clicv2_upload_bytes", "Of each request's body, as received.", ("route",), buckets=_BYTES, registry=registry
        )
        stages = Histogram(
            "clicv2_stage_duration_seconds", "Time in each stage.", ("stage",), buckets=_SECONDS, registry=registry
        )
        self._stages: dict[Stage, Histogram] = {stage: stages.labels(stage) for stage in get_args(Stage)}
        self._admitted = Counter("clicv2_jobs_admitted", "Jobs that the queue took.", registry=registry)
        finished = Counter("clicv2_jobs_finished", "Admitted jobs by their end.", ("outcome",), registry=registry)
        self._finished: dict[Ending, Counter] = {ending: finished.labels(ending) for ending in get_args(Ending)}
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
        self._reachable = Gauge("clicv2_queue_reachable", "1 if the queue answers, else 0.", registry=registry)
        self._probes = Counter(
            "clicv2_probes", "Jobs of our own that prove readiness, by how they ended.", ("outcome",), registry=registry
        )
        self._leased = Counter("clicv2_jobs_leased", "Leases that this worker got.", registry=registry)
        self._redelivered = Counter(
            "clicv2_jobs_redelivered", "Those for jobs that another worker had before.", registry=registry
        )
        self._slots = Gauge("clicv2_worker_slots", "Calls that the backend runs at once.", registry=registry)
        self._slots_busy = Gauge("clicv2_worker_slots_busy", "Those that are taken now.", registry=registry)
        self._call_failures = Counter(
            "clicv2_backend_call_failures", "Backend calls without an answer.", ("kind",), registry=registry
        )
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
        self._pixels = Histogram(
            "clicv2_image_pixels", "Width x height of each picture answered.", buckets=_PIXELS, registry=registry
        )
        self._scores = Histogram(
            "clicv2_score",
            "Of each picture answered, by model version.",
            ("version",),
            buckets=_UNIT,
            registry=registry,
        )
        self._entropies = Histogram(
            "clicv2_entropy", "Of each picture answered.", ("version",), buckets=_UNIT, registry=registry
        )
        self._deciles = Counter(
            "clicv2_score_deciles",
            "Pictures answered, by the tenth of the model's reference pictures that their score falls into.",
            ("version", "decile"),
            registry=registry,
        )
        self._served: tuple[str, int, str] | None = None
        self._of_model: dict[str, _OfModel] = {}
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
        known: tuple[tuple[Counter, tuple[str, ...]], ...] = (
            (self._looked_up, get_args(CacheState)),
            (self._refused, get_args(Refusal)),
            (self._call_failures, get_args(CallFailure)),
            (self._probes, ("passed", "failed")),
            (self._job_items, ("scored", "failed")),
            (self._shed, _SHED),
            (self._undecodable, _UNDECODABLE),
            (self._webhooks, _HOOKS),
        )
        for counter, values in known:
            for value in values:
                counter.labels(value)

    def request_began(self) -> None:
        self._requests_in_flight.inc()

    def request_ended(self, route: str, method: str, status: int, seconds: float, received: int) -> None:
        """Args: the route's template; one of few methods; 0 if nothing was answered; bytes of the body."""
        self._requests_in_flight.dec()
        found = self._requests_by.get((route, method, status))
        if found is None:
            for fault in _OUR_FAULTS:
                self._requests.labels(route, method, fault)
            found = self._requests.labels(route, method, str(status)), self._request_seconds.labels(route)
            self._requests_by[route, method, status] = found
        counter, histogram = found
        counter.inc()
        histogram.observe(seconds, self._exemplar())
        if received:
            self._upload_bytes.labels(route).observe(received)

    def queue(self, counted: Mapping[str, float]) -> None:
        """What a census of the queue found, by the names of its fields; what is missing is not known now."""
        self._reachable.set(bool(counted))
        for name, gauge in self._queue.items():
            gauge.set(counted.get(name, math.nan))

    def serves(self, manifest: Manifest) -> None:
        """The model that answers, as of now; cheap if it is the one of before."""
        served = (manifest.name, manifest.version, manifest.sha256)
        if served == self._served:
            return
        self._served = served
        self._model.clear()
        number = str(manifest.version)
        self._model.labels(manifest.name, number, manifest.method, manifest.fingerprint, manifest.sha256).set(1)
        self._of_model[number] = _OfModel(
            bounds=_decile_bounds(manifest),
            scores=self._scores.labels(number),
            entropies=self._entropies.labels(number),
            deciles=[self._deciles.labels(number, str(decile)) for decile in range(1, DECILES + 1)],
        )

    def scored(self, manifest: Manifest, score: float, entropy: float, pixels: int) -> None:
        """A picture that is answered, wherever its result came from; `pixels` is width x height."""
        self.serves(manifest)
        model = self._of_model[str(manifest.version)]
        model.scores.observe(score)
        model.entropies.observe(entropy)
        model.deciles[bisect_right(model.bounds, score)].inc()
        self._pixels.observe(pixels)

    def probed(self, passed: bool) -> None:
        self._probes.labels("passed" if passed else "failed").inc()

    def watch(self, backend: Watched, slots: int) -> None:
        """Tell of this backend from now on."""
        self._backend.watched = backend
        self._slots.set(slots)

    def leased(self, attempt: int) -> None:
        """A worker got a job, as its delivery of this number."""
        self._leased.inc()
        if attempt > 1:
            self._redelivered.inc()

    def slots_busy(self, change: int) -> None:
        self._slots_busy.inc(change)

    def call_failed(self, kind: CallFailure) -> None:
        self._call_failures.labels(kind).inc()

    def admitted(self) -> None:
        self._admitted.inc()
        self._in_flight.inc()

    def finished(self, ending: Ending) -> None:
        self._finished[ending].inc()
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
        self._stages[stage].observe(seconds, self._exemplar())

    def _exemplar(self) -> dict[str, str] | None:
        trace_id = self._trace_id()
        return {"trace_id": trace_id} if trace_id else None
