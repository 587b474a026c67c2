"""What the dashboards are made of: queries, panels, variables, links, each in one shape.

In queries `{@}` stands for the job and instance selectors, so that none can be forgotten: `up{@}`, `up{@, x="y"}`.
"""

import string
from dataclasses import dataclass
from typing import Optional

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import text as text_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TAG = "memwatch"
SELECTORS = 'job=~"$job", instance=~"$instance"'
SOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")
KEEP = "${datasource:queryparam}&${__url_time_range}"

GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"

#: One colour, one meaning, wherever a series has that name.
COLOURS = {
    "exact": GREEN,
    "page": "yellow",
    "none": "text",
    "event": BLUE,
    "events": BLUE,
    "unchanged": "super-light-blue",
    "coalesced": "purple",
    "filtered": "light-purple",
    "dropped": RED,
    "missed": "light-red",
    "rejected": "dark-red",
    "all detected": "text",
    "kernel": "light-green",
    "throttled": ORANGE,
}


@dataclass(frozen=True)
class Query:
    """One query of a panel and what its series are called."""

    expr: str
    legend: str = "__auto"

    @property
    def full(self) -> str:
        return self.expr.replace("{@", "{" + SELECTORS)


@dataclass(frozen=True)
class Column:
    """One column of a table: a query whose results have the labels of the table's rows."""

    title: str
    query: Query
    unit: str


def steps(*colours: tuple[Optional[float], str]) -> dashboard.ThresholdsConfig:
    """Thresholds: (from this value on, this colour), the first one from None."""
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in colours])
    )


CALM = steps((None, BLUE))
NONE_IS_GOOD = steps((None, GREEN), (1e-9, RED))


def _targets(panel, queries, *, instant=False, form=PromQueryFormat.TIME_SERIES):
    for ref, query in zip(string.ascii_uppercase, queries):
        target = (
            prometheus.Dataquery()
            .datasource(SOURCE)
            .ref_id(ref)
            .expr(query.full)
            .legend_format(query.legend)
            .format(form)
        )
        panel.with_target(target.instant() if instant else target.range())
    return panel


def _panel(panel, title, description, span, height):
    return panel.title(title).description(description).datasource(SOURCE).span(span).height(height)


def _colours(panel, queries):
    """Series that have a meaning of their own everywhere have its colour everywhere."""
    for name in sorted(COLOURS):
        if any(query.legend in (name, "{{outcome}}", "{{reason}}") for query in queries):
            colour = {"mode": "fixed", "fixedColor": COLOURS[name]}
            panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=colour)])
    return panel


def _links(to):
    return models.DynamicConfigValue(id_val="links", value=[to])


def number(title, description, unit, query, *, span=4, thresholds=CALM, decimals=None, no_value="-", curve=True):
    """One big number: the present value, with its curve behind it. `curve=False` for totals over the time range."""
    panel = _panel(stat.Panel(), title, description, span, 4).unit(unit).thresholds(thresholds).no_value(no_value)
    panel.graph_mode(common_models.BigValueGraphMode.AREA if curve else common_models.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    panel.color_mode(common_models.BigValueColorMode.VALUE)
    if decimals is not None:
        panel.decimals(decimals)
    return _targets(panel, [query], instant=not curve)


def curves(title, description, unit, *queries, span=8, height=8, stacked=False, least=0, most=None, limit=None):
    """Curves over time. `limit`: a line from which on it is red."""
    panel = _panel(timeseries.Panel(), title, description, span, height).unit(unit)
    panel.line_width(1).fill_opacity(30 if stacked else 10).show_points(common_models.VisibilityMode.NEVER)
    panel.tooltip(
        common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI).sort(common_models.SortOrder.DESCENDING)
    )
    panel.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common_models.LegendDisplayMode.LIST)
        .placement(common_models.LegendPlacement.BOTTOM)
        .calcs([])
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if limit is not None:
        panel.thresholds(steps((None, GREEN), (limit, RED)))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    return _targets(_colours(panel, queries), queries)


def bars(title, description, unit, query, *, span=8, height=8, to=None):
    """The largest ones now, as bars."""
    panel = _panel(bargauge.Panel(), title, description, span, height).unit(unit).thresholds(CALM).min(0)
    panel.orientation(common_models.VizOrientation.HORIZONTAL)
    panel.display_mode(common_models.BarGaugeDisplayMode.BASIC)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    if to is not None:
        panel.with_override(models.MatcherConfig(id_val="byFrameRefID", options="A"), [_links(to)])
    return _targets(panel, [query], instant=True)


def rows(title, description, *columns, span=24, height=8, hidden=(), links=None):
    """A table of the present values: a row for each set of labels, a column for each query."""
    panel = _panel(table.Panel(), title, description, span, height).unit("none").no_value("-")
    refs = dict(zip(string.ascii_uppercase, columns))
    renamed = (
        {f"Value #{ref}": column.title for ref, column in refs.items()}
        if len(columns) > 1
        else {"Value": columns[0].title}
    )
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": dict.fromkeys(("Time", *hidden), True),
                "renameByName": renamed,
                "indexByName": {},
            },
        )
    )
    for column in columns:
        panel.override_by_name(column.title, [models.DynamicConfigValue(id_val="unit", value=column.unit)])
    for field, url in (links or {}).items():
        panel.override_by_name(field, [_links(link("Look at it", url))])
    return _targets(panel, [column.query for column in columns], instant=True, form=PromQueryFormat.TABLE)


def heat(title, description, query, *, span=8, height=8):
    """A histogram over time."""
    panel = _panel(heatmap.Panel(), title, description, span, height).calculate(False)
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_models.HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .exponent(0.5)
        .steps(32)
        .reverse(True)
        .fill("dark-blue")
    )
    panel.y_axis(heatmap.YAxisConfig().unit("s")).show_legend()
    panel.cell_values(heatmap.CellValues().unit("cps"))
    return _targets(panel, [query], form=PromQueryFormat.HEATMAP)


def words(title, description, content, *, span=8, height=8):
    """Text."""
    return _panel(text.Panel(), title, description, span, height).mode(text_models.TextMode.MARKDOWN).content(content)


def link(title, url):
    """A link from a panel's data, as Grafana keeps it there."""
    return {"title": title, "url": url, "targetBlank": False}


def choice(name, query, *, several=True):
    """A variable of the dashboard, filled from Prometheus."""
    variable = dashboard.QueryVariable(name).label(name.capitalize()).datasource(SOURCE).query(query).definition(query)
    variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC).multi(
        several
    )
    if several:
        variable.include_all(True).all_value(".+").current(
            models.VariableOption(text="All", value="$__all", selected=True)
        )
    return variable


def note(name, colour, query, title):
    """Marks on every curve, from a query: when it has a value, something happened."""
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .hide(False)
        .icon_color(colour)
        .expr(query.full)
        .title_format(title)
        .text_format("{{job}} {{instance}}")
        .tag_keys("job,instance")
    )


RESTARTS = note(
    "Restarts", BLUE, Query("changes(memwatch_start_time_seconds{@}[$__rate_interval]) > 0"), "A new watcher"
)
DROPS = note(
    "Drops",
    RED,
    Query("sum by (job, instance, reason) (increase(memwatch_events_dropped_total{@}[$__rate_interval])) > 0"),
    "Dropped: {{reason}}",
)


def _place(row):
    """Places the panels of a collapsed row as Grafana does when it is opened; the builder forgets the rows' ends."""
    x, y, high = 0, row.grid_pos.y + 1, 0
    for panel in row.panels:
        place = panel.grid_pos
        if x + place.w > 24:
            x, y, high = 0, y + high, 0
        place.x, place.y = x, y
        x, high = x + place.w, max(high, place.h)


def board(name, description, variables, notes, sections):
    """A dashboard: sections are (title, panels) from top to bottom; those with a third part, True, are collapsed."""
    result = (
        dashboard.Dashboard(f"memwatch / {name}")
        .uid(f"memwatch-{name.lower()}")
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-30m", "now")
        .refresh("10s")
        .version(1)
        .variables([dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"), *variables])
        .annotations(notes)
    )
    result.link(
        dashboard.DashboardLink("memwatch")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .icon("dashboard")
        .tooltip("The other dashboards, with the same choices and time")
        .keep_time(True)
        .include_vars(True)
    )
    n = 0
    for title, panels, *collapsed in sections:
        n += 1
        row = dashboard.Row(title).id(n).collapsed(bool(collapsed))
        for i, panel in enumerate(panels if collapsed else ()):
            row.with_panel(panel.id(n + 1 + i))
        result.with_row(row)
        for i, panel in enumerate(() if collapsed else panels):
            result.with_panel(panel.id(n + 1 + i))
        n += len(panels)
    built = result.build()
    for row in (panel for panel in built.panels if isinstance(panel, models.RowPanel) and panel.collapsed):
        _place(row)
    for one in [*built.links, *built.annotations.list_val]:
        one.placement = None  # the builder's default hides it in a menu
    return built
