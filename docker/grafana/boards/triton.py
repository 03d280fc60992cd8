"""Triton as it sees itself, and as its callers see it."""

from expressions import rate
from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import board, lines, number, row


def build() -> Dashboard:
    triton = board("clicv2-triton", "CLICv2: Triton and GPU", "Is it Triton, and is it the GPU?")
    for panel in (
        number("Triton", "How many can be scraped.", "none", 'sum(up{job="triton"}) or vector(0)', bad_below=1),
        number(
            "Breakers open", "Workers that take it to be down.", "none", "sum(clicv2_backend_breaker_open)", bad_above=1
        ),
        number(
            "Revived in an hour",
            "Times that a worker found the process behind the model dead and had it started again.",
            "none",
            'sum(increase(clicv2_backend_events_total{event="reloads"}[1h]))',
            bad_above=1,
        ),
        number("Waiting", "Requests in Triton's own queue.", "none", "sum(nv_inference_pending_request_count)"),
        number(
            "GPU memory",
            "Of the fullest.",
            "percentunit",
            "max(nv_gpu_memory_used_bytes / nv_gpu_memory_total_bytes)",
            bad_above=0.9,
        ),
        number("GPU busy", "Of the busiest.", "percentunit", "max(nv_gpu_utilization)"),
        number("GPU power", "All together.", "watt", "sum(nv_gpu_power_usage)"),
        number("CPU busy", "Of its machine.", "percentunit", "max(nv_cpu_utilization)"),
    ):
        triton = triton.with_panel(panel)

    triton = triton.with_row(row("As its callers see it"))
    for panel in (
        lines("Breaker", "1: no pictures are sent.", "none", ("clicv2_backend_breaker_open", "{{instance}}")),
        lines(
            "Failed calls",
            "down: nothing can succeed now; error: perhaps these pictures; bad_output: what came is no answer.",
            "cps",
            (rate("clicv2_backend_call_failures_total", "kind"), "{{kind}}"),
            stacked=True,
        ),
        lines(
            "Events",
            "Probes after failures; refused for a full queue; opened: the breaker; reloads of a dead model.",
            "cps",
            # Beside as many calls as there are pictures nothing else would be seen.
            (rate('clicv2_backend_events_total{event!="calls"}', "event"), "{{event}}"),
        ),
    ):
        triton = triton.with_panel(panel)

    triton = triton.with_row(row("As it sees itself"))
    for panel in (
        lines(
            "Requests",
            "Refusals for a full queue are in neither.",
            "reqps",
            (rate("nv_inference_request_success", "model"), "{{model}}"),
            (rate("nv_inference_request_failure", "model"), "{{model}} failed"),
        ),
        lines(
            "Time of a request",
            "Which part has grown? queue: more instances, or fewer calls at once; compute: the model or the machine.",
            "s",
            *(
                (_each(part), name)
                for part, name in (
                    ("queue", "queue"),
                    ("compute_input", "input"),
                    ("compute_infer", "compute"),
                    ("compute_output", "output"),
                )
            ),
        ),
        lines(
            "Pictures in an execution",
            "As batched by worker and Triton.",
            "none",
            (f"{rate('nv_inference_count', 'model')} / {rate('nv_inference_exec_count', 'model')}", "{{model}}"),
        ),
    ):
        triton = triton.with_panel(panel)

    triton = triton.with_row(row("GPU"))
    for panel in (
        lines(
            "Busy", "Share of the time with a kernel running.", "percentunit", ("nv_gpu_utilization", "{{gpu_uuid}}")
        ),
        lines(
            "Memory",
            "Engines, pictures and results.",
            "bytes",
            ("nv_gpu_memory_used_bytes", "used {{gpu_uuid}}"),
            ("nv_gpu_memory_total_bytes", "total {{gpu_uuid}}"),
        ),
        lines(
            "Power",
            "Against its limit.",
            "watt",
            ("nv_gpu_power_usage", "{{gpu_uuid}}"),
            ("nv_gpu_power_limit", "limit {{gpu_uuid}}"),
        ),
    ):
        triton = triton.with_panel(panel)
    return triton


def _each(part: str) -> str:
    """Seconds of a request; Triton counts microseconds."""
    spent = rate(f"nv_inference_{part}_duration_us", "model")
    return f"{spent} / 1e6 / {rate('nv_inference_request_success', 'model')}"
