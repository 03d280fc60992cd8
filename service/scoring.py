"""The road that every picture takes: decode -> admit -> result."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from secrets import token_hex

from clicv2.contract import Manifest
from clicv2.headers import Limits
from clicv2.imaging import Pixels
from service.catalog import Catalog
from service.decoding import Decoded, decode, off_loop
from service.errors import DeadlineExceeded, InferenceFailed, Unavailable, UnknownModel
from service.idempotency import Naming
from service.metrics import Ending, Metrics
from service.prediction import Prediction
from service.queue.protocol import Answer, Job, Queue, Reason

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
    """

    id: str
    manifest: Manifest
    decoded: Decoded
    prediction: Prediction
    decode_s: float
    queue_s: float
    inference_s: float


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.answered_at = float("-inf")
        self._pool = pool
        self._queue = queue
        self._metrics = metrics
        self._catalog = catalog
        self._limits = limits
        self._clock = clock

    async def score(
        self,
        data: bytes,
        deadline: float,
        *,
        preview_side: int | None = None,
        version: int | None = None,
        naming: Naming | None = None,
    ) -> Scored:
        """Score an encoded picture by `deadline`, an instant on the clock.

        Args:
            version: of the model, from which alone an answer is wanted.
            naming: gives the job its id; None: it gets a new one.

        Raises ImageError, Overloaded, Unavailable, DeadlineExceeded, InferenceFailed, UnknownModel, KeyReused.
        """
        started = self._clock()
        spec = self._catalog.preprocess
        decoded = await off_loop(self._pool, deadline - started, decode, data, spec, self._limits, preview_side)
        decoded_at = self._clock()
        job_id, answer = await self._infer(decoded.pixels, deadline, await naming(decoded.sha256) if naming else None)
        manifest = self._catalog.answered(answer.prediction.version)
        # Only now: which version serves is known for certain of an answer alone, and may change at any time.
        if version not in (None, manifest.version):
            raise UnknownModel(
                f"version {version} of {manifest.name!r} does not answer, version {manifest.version} does"
            )
        # A job that was joined may have been computed before this picture came.
        waited_s = max(0.0, self._clock() - decoded_at - answer.inference_s)
        self._metrics.took("decode", decoded_at - started)
        self._metrics.took("queue", waited_s)
        return Scored(job_id, manifest, decoded, answer.prediction, decoded_at - started, waited_s, answer.inference_s)

    def check_model(self, name: str | None) -> None:
        """Raises UnknownModel when a model of another name is wanted (None: whichever there is)."""
        served = self._catalog.current.name
        if name not in (None, served):
            raise UnknownModel(f"no model {name!r} is served, only {served!r}")

    async def prove(self, pixels: Pixels, deadline: float) -> None:
        """Take one model input, uint8 [H, W, 3], through queue, worker and backend.

        Raises Overloaded, Unavailable, DeadlineExceeded, InferenceFailed.
        """
        _, answer = await self._infer(pixels, deadline)
        self._catalog.answered(answer.prediction.version)

    async def _infer(self, pixels: Pixels, deadline: float, job_id: str | None = None) -> tuple[str, Answer]:
        """`prove`; returns the job's id and its answer."""
        job = Job(job_id or token_hex(16), pixels, deadline, self._clock())
        await self._queue.admit(job)
        self._metrics.admitted()
        ending: Ending = "cancelled"
        try:
            outcome = await self._queue.result(job)
            ending = "answered" if isinstance(outcome, Answer) else _ENDINGS[outcome.reason]
        except asyncio.CancelledError:
            await self._queue.cancel(job)
            raise
        finally:
            self._metrics.finished(ending)
        if isinstance(outcome, Answer):
            self.answered_at = self._clock()
            return job.id, outcome
        raise _ERRORS[outcome.reason](outcome.detail)
