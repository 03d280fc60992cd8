"""The queue, and what workers take from it."""

from expressions import mean, quantile, rate
from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import board, lines, number, row

_STAGE = "clicv2_stage_duration_seconds"


def build() -> Dashboard:
    queue = board("clicv2-queue", "CLICv2: queue and batching", "Why pictures wait, and what becomes of them.")
    for panel in (
        number("Waiting", "For a worker.", "none", "max(clicv2_queue_depth)"),
        number("Leased", "At a worker.", "none", "max(clicv2_queue_leased)"),
        number(
            "Oldest",
            "Unfinished; it expires at its deadline.",
            "s",
            "max(clicv2_queue_oldest_age_seconds)",
            bad_above=5,
        ),
        number("In flight", "Admitted and not finished.", "none", "sum(clicv2_jobs_in_flight)"),
        number("Workers ready", "By their own word.", "none", "max(clicv2_queue_workers_ready)", bad_below=1),
        number(
            "Dead letters", "Kept in Redis with their pixels.", "none", "max(clicv2_queue_dead_letters)", bad_above=1
        ),
        number(
            "Fenced in an hour",
            "Results that came too late and were refused.",
            "none",
            "sum(increase(clicv2_finishes_fenced_total[1h]))",
        ),
        number(
            "Unaccounted",
            "Admitted, but neither finished nor in flight: must be 0.",
            "none",
            "max(abs(clicv2:jobs_unaccounted:difference))",
            bad_above=1,
        ),
        lines(
            "Depth",
            "Jobs that wait for a worker, and that one has.",
            "none",
            ("max(clicv2_queue_depth)", "waiting"),
            ("max(clicv2_queue_leased)", "leased"),
        ),
        lines(
            "Age of the oldest",
            "The signal by which to scale workers.",
            "s",
            ("max(clicv2_queue_oldest_age_seconds)", "oldest"),
            bad_above=5,
        ),
        lines(
            "Workers ready",
            "Falls when one dies, drains, or takes its backend to be down.",
            "none",
            ("max(clicv2_queue_workers_ready)", "ready"),
        ),
    ):
        queue = queue.with_panel(panel)

    queue = queue.with_row(row("What becomes of jobs"))
    for panel in (
        lines("Admitted", "By gateway.", "cps", (rate("clicv2_jobs_admitted_total", "instance"), "{{instance}}")),
        lines(
            "Ended",
            "Of those admitted; expired: too slow for their deadline; cancelled: the caller has gone.",
            "cps",
            (rate("clicv2_jobs_finished_total", "outcome"), "{{outcome}}"),
            stacked=True,
            colours={"answered": "green", "cancelled": "blue", "expired": "orange", "failed": "purple", "dead": "red"},
        ),
        lines(
            "Leases",
            "Redelivered: another worker had the job before and died, hung or was too slow. Fenced: it came back late.",
            "cps",
            (rate("clicv2_jobs_leased_total"), "leased"),
            (rate("clicv2_jobs_redelivered_total"), "redelivered"),
            (rate("clicv2_finishes_fenced_total"), "fenced"),
        ),
    ):
        queue = queue.with_panel(panel)

    queue = queue.with_row(row("Batches"))
    for panel in (
        lines(
            "Jobs in a call",
            "Of the backend.",
            "none",
            (mean("clicv2_batch_size"), "mean"),
            (quantile(0.95, "clicv2_batch_size"), "p95"),
        ),
        lines(
            "Wait for company",
            "From a batch's first lease to its call.",
            "s",
            *((quantile(q, _STAGE, '{stage="batch"}'), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)),
        ),
        lines(
            "Wait in the queue",
            "All that an answer takes beyond decoding and the backend.",
            "s",
            *((quantile(q, _STAGE, '{stage="queue"}'), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)),
        ),
    ):
        queue = queue.with_panel(panel)

    queue = queue.with_row(row("Jobs of the API, kept results"))
    for panel in (
        lines(
            "Jobs of the API",
            "Driven now, by gateway; and streams of events that are open.",
            "none",
            ("sum by (instance) (clicv2_api_jobs_driven)", "driven at {{instance}}"),
            ("sum(clicv2_event_streams)", "event streams"),
        ),
        lines(
            "Their pictures",
            "And how often a gateway had to take over another's job; pending: a webhook that is to be tried again.",
            "cps",
            (rate("clicv2_api_job_items_total", "outcome"), "{{outcome}}"),
            (rate("clicv2_api_jobs_taken_over_total"), "taken over"),
            (rate("clicv2_webhook_attempts_total", "outcome"), "webhook {{outcome}}"),
        ),
        lines(
            "Kept results",
            "hit: answered without the model; shared: with somebody else's job. All 0 where nothing is kept.",
            "cps",
            (rate("clicv2_cache_lookups_total", "result"), "{{result}}"),
            (rate("clicv2_cache_failures_total"), "failures"),
        ),
    ):
        queue = queue.with_panel(panel)
    return queue
