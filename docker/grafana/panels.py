"""Panels as all dashboards have them: one look, one source of data, and a sentence on what each is to tell."""

from collections.abc import Mapping
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TableCellBackgroundDisplayMode,
    TableColoredBackgroundCellOptions,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

GOOD, BAD, UNKNOWN = "green", "red", "–"
# No two of them match the same: of two Grafana takes the last.
STATUSES = {
    "2..": GOOD,
    "3..": "blue",
    "429": "orange",
    "4(?!29)..": "yellow",
    "500": "purple",
    "504": "dark-red",
    "5(?!00|04)..": BAD,
}
SEVERITIES = {"page": "red", "ticket": "orange"}
# Chosen on the dashboard, so that it can be used in a Grafana that has others.
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def lines(
    title: str,
    tells: str,
    unit: str,
    *queries: tuple[str, str],
    width: int = 8,
    bad_above: float | None = None,
    stacked: bool = False,
    colours: Mapping[str, str] | None = None,
) -> Builder[Panel]:
    """Curves over time.

    Args:
        tells: what to read from it.
        queries: an expression and the legend of its curves.
        bad_above: a dashed line, from which on things are bad.
        colours: by a regular expression that a curve's whole name matches; others have whichever is free.
    """
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(tells)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(7)
        .line_width(1)
        .fill_opacity(30 if stacked else 5)
        .legend(legend.show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if bad_above is not None:
        panel = panel.thresholds(_threshold(bad_above)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        )
    for names, colour in (colours or {}).items():
        fixed = DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
        panel = panel.override_by_regexp(f"/^({names})$/", [fixed])
    for letter, (expression, named) in zip(ascii_uppercase, queries, strict=False):
        panel = panel.with_target(_query(expression, named, letter))
    return panel


def number(
    title: str,
    tells: str,
    unit: str,
    expression: str,
    *,
    width: int = 3,
    bad_above: float | None = None,
    bad_below: float | None = None,
    legend: str = "",
) -> Builder[Panel]:
    """The value of now, on green or, when it is bad, on red.

    Of now, and not the last of the time shown: what a dead worker said last would look well for an hour.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(tells)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(4)
        .color_mode(BigValueColorMode.BACKGROUND)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value(UNKNOWN)
        .with_target(_query(expression, legend).instant())
    )
    if bad_above is not None:
        return panel.thresholds(_threshold(bad_above))
    if bad_below is not None:
        return panel.thresholds(_threshold(bad_below, below=BAD, above=GOOD))
    return panel.color_mode(BigValueColorMode.NONE)


def density(title: str, tells: str, unit: str, expression: str, *, width: int = 8) -> Builder[Panel]:
    """How many fell into each bucket of a histogram, over time."""
    return (
        heatmap.Panel()
        .title(title)
        .description(tells)
        .datasource(SOURCE)
        .span(width)
        .height(7)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .with_target(_query(expression, "{{le}}").format(PromQueryFormat.HEATMAP))
    )


def alerts(title: str, tells: str, expression: str, summaries: Mapping[str, str]) -> Builder[Panel]:
    """Alerts, one below the other, in words; each leads to its runbook.

    Args:
        expression: a series with the labels alertname, severity, job and instance for each; its value are seconds.
        summaries: what each means, by its name.
    """
    names = {
        "alertname": "What is wrong, and what to do",
        "job": "Where",
        "instance": "Instance",
        "severity": "Severity",
        "Value": "For",
    }
    said = {name: ValueMappingResult(text=f"{name}: {summary}") for name, summary in summaries.items()}
    colours = {name: ValueMappingResult(color=color) for name, color in SEVERITIES.items()}
    background = TableColoredBackgroundCellOptions(TableCellBackgroundDisplayMode.BASIC)
    # The raw value: the alert's name, not what is shown for it.
    runbook = {"title": "Runbook", "url": "/d/runbook-${__value.raw}", "targetBlank": False}
    return (
        table.Panel()
        .title(title)
        .description(tells)
        .datasource(SOURCE)
        .unit("s")
        .span(24)
        .height(6)
        .with_target(_query(expression, "").instant().format(PromQueryFormat.TABLE))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: at for at, name in enumerate(names)},
                    "renameByName": names,
                },
            )
        )
        .override_by_name(
            names["alertname"],
            [DynamicConfigValue("mappings", [ValueMap(said)]), DynamicConfigValue("links", [runbook])],
        )
        .override_by_name(
            names["severity"],
            [
                DynamicConfigValue("mappings", [ValueMap(colours)]),
                DynamicConfigValue("custom.cellOptions", background),
                DynamicConfigValue("custom.width", 110),
            ],
        )
        .override_by_name(names["job"], [DynamicConfigValue("custom.width", 110)])
        .override_by_name(names["instance"], [DynamicConfigValue("custom.width", 180)])
        .override_by_name(names["Value"], [DynamicConfigValue("custom.width", 110)])
    )


def markdown(content: str) -> Builder[Panel]:
    return text.Panel().mode(TextMode.MARKDOWN).content(content).span(24).height(20).transparent(True)


def board(uid: str, title: str, tells: str) -> dashboard.Dashboard:
    """An empty dashboard, with a way to all the others."""
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    others = dashboard.DashboardLink("").type("dashboards").tags(["clicv2"]).as_dropdown(False)
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(tells)
        .tags(["clicv2"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(source)
        .link(others.keep_time(True))
    )


def row(title: str) -> dashboard.Row:
    return dashboard.Row(title)


def _query(expression: str, named: str, letter: str = "A") -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(named).datasource(SOURCE).range()
    # Where the service is traced, a histogram's observations name their traces: as dots over the curves.
    return query.exemplar(True) if "histogram_quantile" in expression else query


def _threshold(at: float, below: str = GOOD, above: str = BAD) -> dashboard.ThresholdsConfig:
    steps = [Threshold(color=below, value=None), Threshold(color=above, value=at)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
