"""What is wrong, seen within a minute: the state of each part, then the four golden signals."""

from collections.abc import Mapping

from expressions import CALLERS, FIRING, mean, quantile, rate
from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import STATUSES, alerts, board, lines, number, row

_STAGE = "clicv2_stage_duration_seconds"
_TOTAL = '{stage="total"}'


def build(summaries: Mapping[str, str]) -> Dashboard:
    """Args: summaries: of the alerts, by name."""
    overview = board("clicv2-overview", "CLICv2: overview", "Is something wrong, and where? Then look there.")
    for panel in (
        number(
            "Alerts",
            "How many fire; below is which.",
            "none",
            f"count(count by (alertname) ({FIRING})) or vector(0)",
            bad_above=1,
        ),
        number("Gateways", "That can be scraped.", "none", 'sum(up{job="gateway"}) or vector(0)', bad_below=1),
        number(
            "Workers ready",
            "By their own word to Redis. None: every picture is refused.",
            "none",
            "max(clicv2_queue_workers_ready)",
            bad_below=1,
        ),
        number("Redis", "1: all gateways and workers reach it.", "none", "min(clicv2_queue_reachable)", bad_below=1),
        number("Triton", "How many can be scraped.", "none", 'sum(up{job="triton"}) or vector(0)', bad_below=1),
        number(
            "Breakers open",
            "Workers that take their backend to be down.",
            "none",
            "sum(clicv2_backend_breaker_open)",
            bad_above=1,
        ),
        number(
            "Answered with 5xx",
            "Of what callers asked for, in the last minutes; 0.1 % is the objective.",
            "percentunit",
            f'sum(rate(clicv2_requests_total{{route=~"/v1/.+", status=~"5.."}}[$__rate_interval])) / {_all()}',
            bad_above=0.001,
        ),
        number(
            "Within a second",
            "Pictures, from the complete upload to the answer; 99 % is the objective.",
            "percentunit",
            f'sum(rate({_STAGE}_bucket{{stage="total", le="1.0"}}[$__rate_interval]))'
            f" / sum(rate({_STAGE}_count{_TOTAL}[$__rate_interval]))",
            bad_below=0.99,
        ),
        alerts(
            "What is wrong",
            "The alerts that fire, first the one that began first: what came after follows from it, mostly. Each leads "
            "to its runbook, which says how to confirm it and what to do. No data: no alert fires.",
            # Since it began to be so, and not since it was told.
            "sort_desc(max by (alertname, severity, job, instance) "
            f"((time() - ALERTS_FOR_STATE) and ignoring (alertstate) {FIRING}))",
            summaries,
        ),
        lines(
            "Alerts that fire",
            "When each began, beside what else happened then.",
            "none",
            (
                f'sum by (alertname) ({FIRING}) or label_replace(vector(0), "alertname", "none", "", "")',
                "{{alertname}}",
            ),
            width=12,
            stacked=True,
        ),
        lines(
            "Targets that can be scraped",
            "A line that falls is a process that is gone.",
            "none",
            ("sum by (job) (up)", "{{job}}"),
            width=12,
            stacked=True,
        ),
    ):
        overview = overview.with_panel(panel)

    overview = overview.with_row(row("Traffic"))
    for panel in (
        lines("Requests", "By route, as a template.", "reqps", (rate("clicv2_requests_total", "route"), "{{route}}")),
        lines(
            "Pictures answered",
            "Whoever asked: a request, a batch or a job.",
            "cps",
            (rate("clicv2_score_count", "version"), "version {{version}}"),
        ),
        lines(
            "Uploads",
            "Bodies of requests, also of those that were refused.",
            "Bps",
            (rate("clicv2_upload_bytes_sum", "route"), "{{route}}"),
        ),
    ):
        overview = overview.with_panel(panel)

    overview = overview.with_row(row("Errors"))
    for panel in (
        lines(
            "Answers by status",
            "5xx is our fault, 4xx the caller's, 429 overload or a caller's limit.",
            "reqps",
            (rate("clicv2_requests_total" + CALLERS, "status"), "{{status}}"),
            stacked=True,
            colours=STATUSES,
        ),
        lines(
            "Refused at the door",
            "Shed, by the limit that was reached; and strangers and callers over their allowance.",
            "reqps",
            (rate("clicv2_requests_shed_total", "reason"), "shed: {{reason}}"),
            (rate("clicv2_requests_refused_total", "reason"), "refused: {{reason}}"),
        ),
        lines(
            "Pictures that cannot be read",
            "Many at once: a broken client, or a hostile one.",
            "cps",
            (rate("clicv2_decode_failures_total", "kind"), "{{kind}}"),
            stacked=True,
        ),
    ):
        overview = overview.with_panel(panel)

    overview = overview.with_row(row("Latency"))
    for panel in (
        lines(
            "From upload to answer",
            "Of a picture, without the time that its upload took.",
            "s",
            *((quantile(q, _STAGE, _TOTAL), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)),
            bad_above=1,
        ),
        lines(
            "Mean of each stage",
            "Which one has grown? queue: overload, or too few workers; inference: the backend; decode: no cores left.",
            "s",
            (mean(_STAGE, '{stage!="total"}', "stage"), "{{stage}}"),
        ),
        lines(
            "p95 of each route",
            "From a request's first byte to its answer's last, so slow lines and long batches are in it.",
            "s",
            (quantile(0.95, "clicv2_request_duration_seconds", CALLERS, "route"), "{{route}}"),
        ),
    ):
        overview = overview.with_panel(panel)

    overview = overview.with_row(row("Saturation"))
    for panel in (
        lines(
            "Queue",
            "Grows when more comes than workers can do; requests: those of all kinds that have no answer yet.",
            "none",
            ("sum(clicv2_requests_in_flight)", "requests"),
            ("max(clicv2_queue_depth)", "waiting"),
            ("max(clicv2_queue_leased)", "leased"),
        ),
        lines(
            "Backend slots taken",
            "All of them all the time: workers are the limit.",
            "percentunit",
            ("sum(clicv2_worker_slots_busy) / sum(clicv2_worker_slots > 0)", "taken"),
        ),
        lines(
            "Cores used",
            "Of each process.",
            "none",
            ("rate(process_cpu_seconds_total[$__rate_interval])", "{{job}} {{instance}}"),
        ),
        lines("Memory", "Of each process.", "bytes", ("process_resident_memory_bytes", "{{job}} {{instance}}")),
        lines(
            "Open descriptors",
            "Against the limit of each process: above it nothing can connect.",
            "percentunit",
            ("process_open_fds / process_max_fds", "{{job}} {{instance}}"),
        ),
        lines(
            "Python's collector",
            "Collections of garbage, by generation: the last one stops the process for as long as it has objects.",
            "cps",
            (rate("python_gc_collections_total", "generation"), "generation {{generation}}"),
        ),
    ):
        overview = overview.with_panel(panel)
    return overview


def _all() -> str:
    return f"sum(rate(clicv2_requests_total{CALLERS}[$__rate_interval]))"
