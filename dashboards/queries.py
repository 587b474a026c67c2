"""Reads the generated dashboards and the rules: which queries they ask, with Grafana's variables filled in.

What Grafana does between a dashboard and Prometheus, as far as a test or a picture needs it.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GRAFANA = HERE / "grafana"
RULES = HERE / "prometheus" / "rules"


@dataclass(frozen=True)
class Asked:
    """A query and the place where it is asked, as "dashboard / panel / A"."""

    where: str
    expr: str
    instant: bool


def load(name: str) -> dict[str, Any]:
    """The dashboard in grafana/NAME.json."""
    return json.loads((GRAFANA / f"{name}.json").read_text(encoding="utf-8"))


def dashboards() -> dict[str, dict[str, Any]]:
    """All dashboards by name."""
    return {path.stem: load(path.stem) for path in sorted(GRAFANA.glob("*.json"))}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels of a dashboard, without the rows' headings."""
    return [panel for top in board["panels"] for panel in (top.get("panels", []) if top["type"] == "row" else [top])]


def targets(board: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each panel with each of its queries."""
    for panel in panels(board):
        for target in panel.get("targets", []):
            yield panel, target


def asked(name: str, board: dict[str, Any]) -> Iterator[Asked]:
    """All queries of a dashboard: panels first, then annotations."""
    for panel, target in targets(board):
        yield Asked(f"{name} / {panel['title']} / {target['refId']}", target["expr"], target.get("instant", False))
    for note in board["annotations"]["list"]:
        yield Asked(f"{name} / annotation / {note['name']}", note["expr"], False)


def fill(expr: str, **values: str) -> str:
    """The query as Grafana would send it: `$job`, `$__range` and so on replaced, "All" where nothing is given."""
    filled = {"job": ".+", "instance": ".+", "__rate_interval": "20s", "__range": "5m", "__interval": "5s", **values}
    for name in sorted(filled, key=len, reverse=True):
        expr = expr.replace("${" + name + "}", filled[name]).replace("$" + name, filled[name])
    return expr


class Prometheus:
    """The query API of a Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **arguments: str) -> Any:
        """The `data` of an answer of /api/v1/PATH; ValueError with Prometheus's own sentence when it refuses."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{json.load(error).get('error', error)}: {arguments}") from None

    def now(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query: each with `metric` and `value`."""
        found = self.ask("query", query=expr)
        return found["result"] if found["resultType"] == "vector" else [{"metric": {}, "value": found["result"]}]

    def over(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a range query: each with `metric` and `values`."""
        return self.ask("query_range", query=expr, start=str(start), end=str(end), step=str(step))["result"]
