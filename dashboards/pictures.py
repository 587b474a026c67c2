#!/usr/bin/env python3
"""Draws the dashboards for README.md: one picture for each section, from the answers of a real Prometheus.

    python3 dashboards/pictures.py --prometheus http://127.0.0.1:9090 --minutes 5

Reads the generated JSON, asks every query of every panel as Grafana would, and draws the answers with matplotlib. That
shows what the panels say; it is not how Grafana looks.
"""

import argparse
import io
import math
import re
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from PIL import Image
from queries import HERE, Prometheus, dashboards, fill

WIDTH_IN, ROW_IN, DPI = 13.0, 0.33, 84
COLOURS = ["#3274d9", "#56a64b", "#f2cc0c", "#8f3bb8", "#e02f44", "#ff780a", "#1f978c", "#a352cc", "#7c2ea3"]
NAMED = {"green": "#37872d", "red": "#c4162a", "blue": "#1f60c4", "orange": "#fa6400"}
INK, FAINT, PAPER = "#22252b", "#8e9199", "#f4f5f5"
FOOT = "Drawn with matplotlib from the query API of a real Prometheus. Not a screenshot of Grafana."


@dataclass
class Source:
    """Where the data come from and which choices are made."""

    prometheus: Prometheus
    start: float
    end: float
    choices: dict[str, str]

    @property
    def step(self) -> float:
        return max(5.0, (self.end - self.start) / 150)

    def full(self, expr: str) -> str:
        span = f"{int(self.end - self.start)}s"
        return fill(expr, __rate_interval=f"{int(max(self.step + 5, 20))}s", __range=span, **self.choices)

    def now(self, target: dict[str, Any]) -> list[dict[str, Any]]:
        return self.prometheus.now(self.full(target["expr"]))

    def over(self, target: dict[str, Any]) -> list[dict[str, Any]]:
        return self.prometheus.over(self.full(target["expr"]), self.start, self.end, self.step)


# --- words ---------------------------------------------------------------------------------------------------------


def scaled(value: float, factor: float, names: list[str]) -> str:
    place = 0
    while abs(value) >= factor and place < len(names) - 1:
        value /= factor
        place += 1
    return f"{value:.3g} {names[place]}".rstrip()


def seconds(value: float) -> str:
    if abs(value) >= 120:
        return f"{value / 60:.3g} min"
    return scaled(value * 1e6, 1000, ["µs", "ms", "s"]) if value else "0 s"


def spoken(value: float, unit: str) -> str:
    """A value in its unit, much as Grafana writes it."""
    if math.isnan(value):
        return "NaN"
    if unit == "bytes":
        return scaled(value, 1024, ["B", "KiB", "MiB", "GiB"])
    if unit in ("cps", "ops", "reqps"):
        return scaled(value, 1000, ["/s", "K/s", "M/s"])
    if unit == "s":
        return seconds(value)
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "none":
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if unit == "bool_yes_no":
        return "yes" if value else "no"
    if unit == "dateTimeFromNow":
        return f"{max(0.0, time.time() - value / 1000):.0f} s ago"
    if unit == "dateTimeAsIso":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(value / 1000))
    return scaled(value, 1000, ["", "K", "M", "G"])


def legend(target: dict[str, Any], labels: dict[str, str]) -> str:
    form = target.get("legendFormat", "__auto")
    if form == "__auto":
        return ", ".join(value for name, value in labels.items() if name != "__name__")
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), form)


def unit_of(panel: dict[str, Any]) -> str:
    return panel["fieldConfig"]["defaults"].get("unit", "short")


def colour_of(panel: dict[str, Any], value: float) -> str:
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    fitting = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return NAMED.get(fitting[-1] if fitting else "blue", INK)


# --- panels --------------------------------------------------------------------------------------------------------


def draw_stat(axes, panel, source):
    axes.axis("off")
    target = panel["targets"][0]
    found = source.now(target)
    value = float(found[0]["value"][1]) if found else math.nan
    text = spoken(value, unit_of(panel)) if found else panel["fieldConfig"]["defaults"].get("noValue", "-")
    size = 19 if len(text) < 10 else 11
    axes.text(
        0.5, 0.5, text, ha="center", va="center", fontsize=size, color=colour_of(panel, value), transform=axes.transAxes
    )


def draw_timeseries(axes, panel, source):
    curves = [(target, series) for target in panel["targets"] for series in source.over(target)]
    stacked = panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode") == "normal"
    base: dict[float, float] = {}
    for n, (target, series) in enumerate(curves):
        points = [(float(at), float(value)) for at, value in series["values"]]
        times = [(at - source.end) / 60 for at, _ in points]
        values = [value + base.get(at, 0.0) if stacked else value for at, value in points]
        colour = COLOURS[n % len(COLOURS)]
        if stacked:
            axes.fill_between(
                times, [base.get(at, 0.0) for at, _ in points], values, color=colour, alpha=0.35, linewidth=0
            )
            base.update((at, value) for (at, _), value in zip(points, values))
        axes.plot(times, values, color=colour, linewidth=1.1, label=legend(target, series["metric"])[:44])
    unit = unit_of(panel)
    axes.yaxis.set_major_formatter(lambda value, _: spoken(value, unit))
    axes.set_xlim((source.start - source.end) / 60, 0)
    if panel["fieldConfig"]["defaults"].get("min") == 0:
        axes.set_ylim(bottom=0)
    if unit == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2(max(1.0, axes.get_ylim()[1]) / 6))))
    if panel["fieldConfig"]["defaults"].get("max") == 1:
        axes.set_ylim(top=1)
    tidy(axes)
    if curves:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
            ncols=3,
            fontsize=6,
            frameon=False,
            columnspacing=1,
            handlelength=1,
        )


def tidy(axes):
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min" if value else "now")
    axes.tick_params(labelsize=6.5, colors=FAINT, length=0)
    axes.grid(color="#e4e5e8", linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_bargauge(axes, panel, source):
    target = panel["targets"][0]
    found = sorted(source.now(target), key=lambda series: float(series["value"][1]))
    values = [float(series["value"][1]) for series in found]
    axes.barh(range(len(found)), values, color=NAMED["blue"], height=0.62, alpha=0.8)
    axes.set_yticks(range(len(found)), [legend(target, series["metric"]) for series in found])
    for n, value in enumerate(values):
        axes.text(value, n, " " + spoken(value, unit_of(panel)), va="center", fontsize=6.5, color=INK)
    axes.set_xlim(0, max(values, default=1) * 1.2)
    axes.set_xticks([])
    tidy(axes)
    axes.grid(visible=False)


def draw_heatmap(axes, panel, source):
    found = source.over(panel["targets"][0])
    found.sort(key=lambda series: float(series["metric"]["le"]))
    per_time = {series["metric"]["le"]: dict(map(tuple, series["values"])) for series in found}
    times = sorted({at for points in per_time.values() for at in points})
    rows, before = [], dict.fromkeys(times, 0.0)
    for points in per_time.values():
        row = {at: float(points.get(at, before[at])) for at in times}
        rows.append([max(0.0, row[at] - before[at]) for at in times])
        before = row
    axes.pcolormesh([(at - source.end) / 60 for at in times], range(len(rows)), rows, cmap="Blues", shading="nearest")
    names = [seconds(float(le)) if le != "+Inf" else "more" for le in per_time]
    axes.set_yticks(range(len(names)), names)
    tidy(axes)


def table_rows(panel, source):
    """Column titles with units, and rows: what Grafana's transformations merge and organize make of the answers."""
    organize = next(one["options"] for one in panel["transformations"] if one["id"] == "organize")
    units = {one["matcher"]["options"]: one["properties"][0]["value"] for one in panel["fieldConfig"]["overrides"]}
    merged: dict[tuple, dict[str, float]] = {}
    columns = []
    for target in panel["targets"]:
        names = organize["renameByName"]
        column = names.get(f"Value #{target['refId']}", names.get("Value"))
        columns.append((column, units[column]))
        for series in source.now(target):
            key = tuple(sorted((name, value) for name, value in series["metric"].items() if name != "__name__"))
            merged.setdefault(key, {})[column] = float(series["value"][1])
    labels = sorted({name for key in merged for name, _ in key})
    lines = [
        [dict(key).get(name, "") for name in labels]
        + [spoken(row[name], unit) if name in row else "-" for name, unit in columns]
        for key, row in sorted(merged.items())
    ]
    return labels + [name for name, _ in columns], lines


def draw_table(axes, panel, source):
    axes.axis("off")
    head, lines = table_rows(panel, source)
    most = max(1, int(panel["gridPos"]["h"] * ROW_IN / 0.17) - 3)
    more = [[f"… {len(lines) - most} more", *[""] * (len(head) - 1)]] if len(lines) > most else []
    if not lines:
        axes.text(0.5, 0.5, "empty", ha="center", color=FAINT, fontsize=8, transform=axes.transAxes)
        return
    shown = [head, *lines[:most], *more]
    widths = [max(len(str(line[n])) for line in shown) + 2 for n in range(len(head))]
    places = [sum(widths[:n]) / sum(widths) for n in range(len(head))]
    size = min(7.0, 7.0 * panel["gridPos"]["w"] / 24 * 210 / sum(widths))
    for y, line in enumerate(shown):
        for place, cell in zip(places, line):
            colour = FAINT if y == 0 else INK
            axes.text(place, 1 - (y + 0.7) / (most + 2), cell, fontsize=size, color=colour, transform=axes.transAxes)


def draw_text(axes, panel, source):
    axes.axis("off")
    content = fill(panel["options"]["content"], **source.choices).replace("`", "")
    wide = int(panel["gridPos"]["w"] * 10)
    text = "\n".join(line for part in content.splitlines() for line in (textwrap.wrap(part, wide) or [""]))
    axes.text(0, 1, text, va="top", fontsize=7, color=INK, transform=axes.transAxes)


DRAW = {
    "stat": draw_stat,
    "timeseries": draw_timeseries,
    "bargauge": draw_bargauge,
    "heatmap": draw_heatmap,
    "table": draw_table,
    "text": draw_text,
}


# --- pictures ------------------------------------------------------------------------------------------------------


def sections(board):
    """The rows of a dashboard: title and panels."""
    found: list[tuple[str, list[dict[str, Any]]]] = []
    for panel in board["panels"]:
        if panel["type"] == "row":
            found.append((panel["title"], list(panel.get("panels", []))))
        else:
            found[-1][1].append(panel)
    return found


def picture(title: str, section: list[dict[str, Any]], source: Source) -> Figure:
    """One section, its panels where Grafana's grid has them."""
    top = min(panel["gridPos"]["y"] for panel in section)
    high = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in section) - top
    height_in = high * ROW_IN + 0.75
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor=PAPER)
    figure.text(0.008, 1 - 0.27 / height_in, title, fontsize=10, color=INK, weight="bold")
    figure.text(0.992, 0.1 / height_in, FOOT, fontsize=6.5, color=FAINT, ha="right")
    for panel in section:
        place = panel["gridPos"]
        left, width = place["x"] / 24 + 0.004, place["w"] / 24 - 0.008
        up_in = height_in - 0.4 - (place["y"] - top + place["h"]) * ROW_IN
        frame = [left, up_in / height_in, width, (place["h"] * ROW_IN - 0.09) / height_in]
        back = figure.add_axes(frame, facecolor="white", xticks=[], yticks=[])
        for spine in back.spines.values():
            spine.set_color("#dcdde0")
        back.text(0.09 / (width * WIDTH_IN), 1 - 0.17 / (place["h"] * ROW_IN), panel["title"], fontsize=7.5, color=INK)
        axes = figure.add_axes(inner(frame, panel["type"], height_in), facecolor="white")
        DRAW[panel["type"]](axes, panel, source)
    return figure


def inner(frame, kind, height_in):
    """The part of a panel's frame that its drawing has: what titles, ticks and legends leave."""
    left, bottom, width, height = frame
    margin = {"timeseries": (0.62, 0.55), "heatmap": (0.55, 0.25), "bargauge": (0.85, 0.1)}.get(kind, (0.1, 0.05))
    return [
        left + margin[0] / WIDTH_IN,
        bottom + margin[1] / height_in,
        width - (margin[0] + 0.12) / WIDTH_IN,
        height - (margin[1] + 0.3) / height_in,
    ]


def save(figure: Figure, path: Path) -> None:
    """A PNG with few colours: a half of the size."""
    data = io.BytesIO()
    figure.savefig(data, format="png", facecolor=figure.get_facecolor())
    Image.open(data).convert("RGB").quantize(160).save(path, optimize=True)


def file_name(*parts: str) -> str:
    return re.sub(r"[^a-z]+", "-", " ".join(parts).lower()) + ".png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=5, help="how far back, default: %(default)s")
    parser.add_argument("--variables", nargs="+", default=["temperature", "weights"], help="for the Variable dashboard")
    parser.add_argument("--directory", type=Path, default=HERE / "pictures", help="default: dashboards/pictures")
    options = parser.parse_args()
    mpl.rcParams["font.family"] = "DejaVu Sans"
    end = time.time()
    options.directory.mkdir(exist_ok=True)
    for name, board in dashboards().items():
        for choices in [{"variable": one} for one in options.variables] if name == "variable" else [{}]:
            source = Source(Prometheus(options.prometheus), end - 60 * options.minutes, end, choices)
            for title, section in sections(board):
                words = [*choices.values(), title]
                path = options.directory / file_name(name, *words)
                save(picture(" / ".join([board["title"], *words]), section, source), path)


if __name__ == "__main__":
    main()
