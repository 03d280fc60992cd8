"""What is promised to callers, and how much of the permitted failure is used up."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import board, lines, number, row

_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def build() -> Dashboard:
    objectives = board(
        "clicv2-objectives",
        "CLICv2: objectives",
        "99.9 % of the requests without a 5xx; 99 % of the pictures within a second of their upload; over 30 days.",
    )
    for name, what, budget in (("unavailable", "Availability", 0.001), ("slow", "Latency", 0.01)):
        for panel in (
            number(
                f"{what}: budget left",
                "Of 30 days. Below 0: the objective is missed; be careful with changes.",
                "percentunit",
                f"1 - clicv2:{name}:ratio_rate30d / {budget}",
                bad_below=0,
                width=6,
            ),
            number(
                f"{what}: in 30 days",
                "Share of good ones.",
                "percentunit",
                f"1 - clicv2:{name}:ratio_rate30d",
                bad_below=1 - budget,
                width=6,
            ),
        ):
            objectives = objectives.with_panel(panel)
    for name, what, budget in (("unavailable", "Availability", 0.001), ("slow", "Latency", 0.01)):
        objectives = objectives.with_row(row(what))
        for panel in (
            lines(
                "Share of bad ones",
                "In windows of different length.",
                "percentunit",
                *((f"clicv2:{name}:ratio_rate{window}", window) for window in _WINDOWS),
                width=12,
            ),
            lines(
                "Burn rate",
                "1: the month's budget lasts a month. From 14.4 (an hour) and 6 (six hours) on somebody is woken.",
                "none",
                *((f"clicv2:{name}:ratio_rate{window} / {budget}", window) for window in ("5m", "1h", "30m", "6h")),
                width=12,
                bad_above=14.4,
            ),
        ):
            objectives = objectives.with_panel(panel)
    objectives = objectives.with_row(row("How many that is"))
    for panel in (
        lines(
            "Requests in five minutes",
            "To /v1/.",
            "none",
            ("clicv2:requests:increase5m", "all"),
            ("clicv2:requests_unavailable:increase5m", "answered with 5xx"),
            width=12,
        ),
        lines(
            "Pictures in five minutes",
            "That were answered.",
            "none",
            ("clicv2:pictures:increase5m", "all"),
            ("clicv2:pictures_slow:increase5m", "after more than a second"),
            width=12,
        ),
    ):
        objectives = objectives.with_panel(panel)
    return objectives
