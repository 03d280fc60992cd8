"""The road that every picture takes: decode -> admit -> result."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from secrets import token_hex

from clicv2 import heatmap
from clicv2.contract import Manifest
from clicv2.errors import ImageError
from clicv2.headers import Limits
from clicv2.imaging import Pixels
from service import tracing
from service.cache.results import ANY_USE, CacheState, CacheUse, Facts, Result, ResultCache, digest
from service.catalog import Catalog
from service.decoding import Known, decode, off_loop
from service.errors import DeadlineExceeded, InferenceFailed, Unavailable, UnknownModel
from service.idempotency import Naming
from service.log import about
from service.metrics import Ending, Metrics
from service.prediction import Prediction
from service.queue.extension import extended_result
from service.queue.protocol import Answer, Job, Queue, Reason
from service.singleflight import SingleFlight, Wanted

_ENDINGS: dict[Reason, Ending] = {
    Reason.DEAD: "dead",
    Reason.EXPIRED: "expired",
    Reason.UNAVAILABLE: "failed",
}
_ERRORS = {
    Reason.DEAD: InferenceFailed,
    Reason.EXPIRED: DeadlineExceeded,
    Reason.UNAVAILABLE: Unavailable,
}


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A picture with its answer; `queue_s` is what the answer took beyond the backend call.

    Attributes:
        manifest: of the model version that answered.
        cache: where the answer came from; None where nothing is kept.
    """

    id: str
    manifest: Manifest
    decoded: Known
    prediction: Prediction
    decode_s: float
    queue_s: float
    inference_s: float
    cache: CacheState | None = None


@dataclass(frozen=True, slots=True)
class _Until:
    """One caller's deadline."""

    until: float


class Scorer:
    """Scores pictures through a queue whose other end a worker serves.

    Attributes:
        answered_at: instant of the last answer, on `clock`; minus infinity before the first.
    """

    def __init__(
        self,
        pool: Executor,
        queue: Queue,
        metrics: Metrics,
        catalog: Catalog,
        limits: Limits,
        *,
        results: ResultCache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.answered_at = float("-inf")
        self._pool = pool
        self._queue = queue
        self._metrics = metrics
        self._catalog = catalog
        self._limits = limits
        self._results = results
        # What is wrong with a picture is so for everybody; whatever else went wrong may not happen again.
        self._flights: SingleFlight[Scored] = SingleFlight(
            lambda error: isinstance(error, ImageError | InferenceFailed), clock
        )
        self._clock = clock

    async def score(
        self,
        data: bytes,
        deadline: float,
        *,
        preview_side: int | None = None,
        version: int | None = None,
        naming: Naming | None = None,
        use: CacheUse = ANY_USE,
    ) -> Scored:
        """Score an encoded picture by `deadline`, an instant on the clock.

        Args:
            version: of the model, from which alone an answer is wanted.
            naming: gives the job its id, and the answer, also if the result is known already; None: it gets a new
                one, unless another request has a job for the picture.
            use: what the caller allows of what is kept.

        Raises ImageError, Overloaded, Unavailable, DeadlineExceeded, InferenceFailed, UnknownModel, KeyReused.
        """
        if self._results is None:
            scored = await self._job(_Until(deadline), data, None, preview_side, naming)
        else:
            scored = await self._kept_or_job(self._results, data, deadline, preview_side, version, naming, use)
        # Only now: which version serves is known for certain of an answer alone, and may change at any time.
        if version not in (None, scored.manifest.version):
            manifest = scored.manifest
            raise UnknownModel(
                f"version {version} of {manifest.name!r} does not answer, version {manifest.version} does"
            )
        one, picture = scored.prediction, scored.decoded
        self._metrics.scored(scored.manifest, one.score, one.entropy, picture.width * picture.height)
        return scored

    async def _kept_or_job(
        self,
        results: ResultCache,
        data: bytes,
        deadline: float,
        preview_side: int | None,
        version: int | None,
        naming: Naming | None,
        use: CacheUse,
    ) -> Scored:
        started = self._clock()
        content = await digest(data)
        name = await naming(content) if naming else None
        manifest = self._catalog.current
        if use.find and version in (None, manifest.version):
            kept = await results.find(content, manifest)
            if kept:
                self._metrics.looked_up("hit")
                known = Known(**asdict(kept.facts), sha256=content, preview=None)
                took_s = self._clock() - started
                found = Scored(name or token_hex(16), manifest, known, kept.prediction, 0.0, took_s, 0.0, "hit")
                return await self._with_preview(found, data, deadline, preview_side)
        work = partial(self._job, data=data, content=content, preview_side=preview_side, keep=use.keep)
        if name:  # for who asks again, a job must have this name: it is shared with nobody else
            scored = await work(_Until(deadline), naming=_always(name))
            self._metrics.looked_up("miss")
            return replace(scored, cache="miss")
        scored, shared = await self._flights.share(content, deadline, work)
        self._metrics.looked_up("shared" if shared else "miss")
        if not shared:
            return replace(scored, cache="miss")
        waited_s = self._clock() - started
        mine = replace(scored, id=token_hex(16), decode_s=0.0, queue_s=waited_s, inference_s=0.0, cache="shared")
        return await self._with_preview(mine, data, deadline, preview_side)

    async def _with_preview(self, scored: Scored, data: bytes, deadline: float, side: int | None) -> Scored:
        """Decode the picture once more if an overlay needs a preview that is not there. Raises what `score` does."""
        had = scored.decoded.preview
        if side is None or (had is not None and had.size == heatmap.fit(scored.decoded.size, side)):
            return scored
        started = self._clock()
        spec, content = self._catalog.preprocess, scored.decoded.sha256
        decoded = await off_loop(self._pool, deadline - started, decode, data, spec, self._limits, side, content)
        return replace(scored, decoded=decoded, decode_s=self._clock() - started)

    async def _job(
        self,
        wanted: Wanted,
        data: bytes,
        content: str | None,
        preview_side: int | None,
        naming: Naming | None = None,
        keep: bool = True,
    ) -> Scored:
        """Score it by a job of its own."""
        started = self._clock()
        spec = self._catalog.preprocess
        with tracing.span("decode"):
            decoded = await off_loop(
                self._pool, wanted.until - started, decode, data, spec, self._limits, preview_side, content
            )
        decoded_at = self._clock()
        job_id, answer = await self._infer(decoded.pixels, wanted, await naming(decoded.sha256) if naming else None)
        manifest = self._catalog.answered(answer.prediction.version)
        if self._results and keep:
            facts = Facts(decoded.width, decoded.height, decoded.format, decoded.frames)
            self._results.keep(decoded.sha256, manifest, Result(facts, answer.prediction))
        # A job that was joined may have been computed before this picture came.
        waited_s = max(0.0, self._clock() - decoded_at - answer.inference_s)
        self._metrics.took("decode", decoded_at - started)
        self._metrics.took("queue", waited_s)
        return Scored(job_id, manifest, decoded, answer.prediction, decoded_at - started, waited_s, answer.inference_s)

    @property
    def manifest(self) -> Manifest:
        """Of the version that answered last."""
        return self._catalog.current

    def check_model(self, name: str | None) -> None:
        """Raises UnknownModel when a model of another name is wanted (None: whichever there is)."""
        served = self._catalog.current.name
        if name not in (None, served):
            raise UnknownModel(f"no model {name!r} is served, only {served!r}")

    async def prove(self, pixels: Pixels, deadline: float) -> None:
        """Take one model input, uint8 [H, W, 3], through queue, worker and backend.

        Raises Overloaded, Unavailable, DeadlineExceeded, InferenceFailed.
        """
        passed = False
        try:
            _, answer = await self._infer(pixels, _Until(deadline))
            self._catalog.answered(answer.prediction.version)
            passed = True
        finally:
            self._metrics.probed(passed)

    async def _infer(self, pixels: Pixels, wanted: Wanted, job_id: str | None = None) -> tuple[str, Answer]:
        """`prove`; returns the job's id and its answer."""
        job_id = job_id or token_hex(16)
        with about(job_id=job_id), tracing.span("job", {"clicv2.job_id": job_id}, "producer"):
            job = Job(job_id, pixels, wanted.until, self._clock(), trace=tracing.traceparent())
            return job_id, await self._answer(job, wanted)

    async def _answer(self, job: Job, wanted: Wanted) -> Answer:
        """Admit it, and wait."""
        await self._queue.admit(job)
        self._metrics.admitted()
        ending: Ending = "cancelled"
        try:
            outcome = await extended_result(self._queue, job, lambda: wanted.until, self._clock)
            ending = "answered" if isinstance(outcome, Answer) else _ENDINGS[outcome.reason]
        except asyncio.CancelledError:
            await self._queue.cancel(job)
            raise
        finally:
            self._metrics.finished(ending)
        if isinstance(outcome, Answer):
            self.answered_at = self._clock()
            return outcome
        raise _ERRORS[outcome.reason](outcome.detail)


def _always(name: str) -> Naming:
    async def naming(_: str) -> str:
        return name

    return naming
