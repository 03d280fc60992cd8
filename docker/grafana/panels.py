"""Panels as all dashboards have them: one look, one source of data, and a sentence on what each is to tell."""

from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, text, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Panel, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

GOOD, BAD = "green", "red"
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
) -> Builder[Panel]:
    """Curves over time.

    Args:
        tells: what to read from it.
        queries: an expression and the legend of its curves.
        bad_above: a dashed line, from which on things are bad.
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
    """The last value, on green or, when it is bad, on red."""
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
        .with_target(_query(expression, legend))
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
