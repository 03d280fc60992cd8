"""A picture's answer as the API gives it: score, then render, then write down."""

import time
from concurrent.futures import Executor
from dataclasses import dataclass

from service import rendering, tracing
from service.cache.results import ANY_USE, CacheUse
from service.decoding import Known, off_loop
from service.idempotency import Naming
from service.metrics import Metrics
from service.rendering import PictureForm, Rendered
from service.schemas import Complexity, Heatmap, ImageFacts, ModelName, Options, Timings
from service.scoring import Scored, Scorer


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """A picture that is scored.

    Attributes:
        picture: of the heatmap; None unless asked for.
        began_at, answered_at: instants, of the road to the score.
    """

    scored: Scored
    picture: Rendered | None
    began_at: float
    answered_at: float


class Answering:
    """Scores and renders."""

    def __init__(self, scorer: Scorer, pool: Executor, metrics: Metrics) -> None:
        self._scorer = scorer
        self._pool = pool
        self._metrics = metrics

    async def answer(
        self,
        data: bytes,
        options: Options,
        deadline: float,
        *,
        as_picture: PictureForm | None = None,
        naming: Naming | None = None,
        use: CacheUse = ANY_USE,
    ) -> Answered:
        """Raises what `Scorer.score` does.

        Args:
            as_picture: the answer is to be a picture of the heatmap, whatever the options say.
        """
        began_at = time.monotonic()
        scored = await self._scorer.score(
            data,
            deadline,
            preview_side=options.heatmap_size if options.heatmap == "overlay" else None,
            version=options.model_version,
            naming=naming,
            use=use,
        )
        answered_at = time.monotonic()
        picture: Rendered | None = None
        if as_picture or options.heatmap in ("png", "overlay"):
            with tracing.span("render"):
                picture = await off_loop(
                    self._pool,
                    deadline - answered_at,
                    rendering.picture,
                    scored.prediction.heatmap,
                    scored.decoded,
                    options,
                    as_picture or "png",
                )
            self._metrics.took("render", time.monotonic() - answered_at)
        self._metrics.took("total", time.monotonic() - began_at)
        return Answered(scored, picture, began_at, answered_at)


def complexity(answered: Answered, options: Options, started: float) -> Complexity:
    """Write an answer down.

    Args:
        started: instant at which its upload began.
    """
    scored = answered.scored
    prediction, manifest = scored.prediction, scored.manifest
    return Complexity(
        id=scored.id,
        score=round(prediction.score, 6),
        percentile=round(manifest.percentile(prediction.score), 2),
        entropy=round(prediction.entropy, 6),
        model=ModelName(name=manifest.name, version=manifest.version),
        image=image_facts(scored.decoded),
        heatmap=_heatmap(answered, options),
        # By way of text: the shortest decimals that are the same float32.
        embedding=[float(str(value)) for value in prediction.embedding] if options.embedding else None,
        cache=scored.cache,
        timings=_timings(answered, started),
    )


def image_facts(decoded: Known) -> ImageFacts:
    return ImageFacts(
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        sha256=decoded.sha256,
        frames=decoded.frames,
    )


def _heatmap(answered: Answered, options: Options) -> Heatmap | None:
    if answered.picture:
        return rendering.as_json(answered.picture, options)
    return rendering.grid(answered.scored.prediction.heatmap) if options.heatmap == "grid" else None


def _timings(answered: Answered, started: float) -> Timings:
    now, scored = time.monotonic(), answered.scored
    return Timings(
        upload_s=round(answered.began_at - started, 6),
        decode_s=round(scored.decode_s, 6),
        queue_s=round(scored.queue_s, 6),
        inference_s=round(scored.inference_s, 6),
        render_s=round(now - answered.answered_at, 6),
        total_s=round(now - started, 6),
    )
