"""Redis: whether there is room, and whether it keeps up."""

from expressions import rate
from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import board, lines, number, row


def build() -> Dashboard:
    redis = board("clicv2-redis", "CLICv2: Redis", "The queue's store: full, slow or gone?")
    for panel in (
        number("Redis", "1: the exporter reaches it.", "none", "min(redis_up)", bad_below=1),
        number("Reached", "1: gateways and workers do.", "none", "min(clicv2_queue_reachable)", bad_below=1),
        number(
            "Memory",
            "Of maxmemory; a full Redis refuses pictures.",
            "percentunit",
            "max(redis_memory_used_bytes / (redis_memory_max_bytes > 0))",
            bad_above=0.8,
        ),
        number(
            "Log is written",
            "1: the last write of the append-only file was good.",
            "none",
            "min(redis_aof_last_write_status)",
            bad_below=1,
        ),
        number(
            "Evicted",
            "Must be 0: evicting would lose admitted pictures.",
            "none",
            "sum(redis_evicted_keys_total)",
            bad_above=1,
        ),
        number(
            "Refused",
            "Connections, in an hour.",
            "none",
            "sum(increase(redis_rejected_connections_total[1h]))",
            bad_above=1,
        ),
        number("Clients", "Connected.", "none", "sum(redis_connected_clients)"),
        number("Up for", "Since its last start.", "s", "min(redis_uptime_in_seconds)"),
    ):
        redis = redis.with_panel(panel)

    redis = redis.with_row(row("Room"))
    for panel in (
        lines(
            "Memory",
            "Each waiting picture and each dead letter has 0.4 MB.",
            "bytes",
            ("redis_memory_used_bytes", "used"),
            ("redis_memory_max_bytes", "maxmemory"),
            ("redis_memory_used_rss_bytes", "of its process"),
        ),
        lines("Keys", "By database.", "none", ("sum by (db) (redis_db_keys) > 0", "{{db}}")),
        lines(
            "Append-only file",
            "Rewritten when it has doubled.",
            "bytes",
            ("redis_aof_current_size_bytes", "size"),
            ("redis_aof_base_size_bytes", "after the last rewrite"),
        ),
    ):
        redis = redis.with_panel(panel)

    redis = redis.with_row(row("Speed"))
    for panel in (
        lines("Commands", "A second.", "ops", (rate("redis_commands_processed_total"), "all")),
        lines(
            "Time of a command",
            "In Redis itself, of the five slowest; scripts are `evalsha`.",
            "s",
            (
                f"topk(5, {rate('redis_commands_duration_seconds_total', 'cmd')}"
                f" / {rate('redis_commands_total', 'cmd')})",
                "{{cmd}}",
            ),
        ),
        lines(
            "Traffic",
            "Pictures in, pictures out.",
            "Bps",
            (rate("redis_net_input_bytes_total"), "in"),
            (rate("redis_net_output_bytes_total"), "out"),
        ),
        lines(
            "Done without it",
            "Allowances that a gateway counted alone; results that were not kept: Redis was away or full.",
            "cps",
            (rate("clicv2_limits_counted_alone_total"), "allowances"),
            (rate("clicv2_cache_failures_total"), "results"),
            width=12,
        ),
        lines(
            "Cores used",
            "One is all that it can use.",
            "none",
            (
                f"{rate('redis_cpu_user_seconds_total')} + {rate('redis_cpu_sys_seconds_total')}",
                "used",
            ),
            width=12,
            bad_above=0.8,
        ),
    ):
        redis = redis.with_panel(panel)
    return redis
