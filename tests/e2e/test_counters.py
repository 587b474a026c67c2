"""A number of struct memwatch_stats is in get_stats() and in the metrics, and every metric is in docs/metrics.md."""

import re

from .conftest import ROOT

#: Computed, summed or told by other words: they stand in no table under their own name.
WITHOUT_A_ROW = {
    "get_stats": {"dropped_by", "attribution_by", "reason_by", "latency", "ledger"},
    "metrics": {
        *("backend", "epoch", "dropped_by", "attribution_by", "reason_by", "ledger", "ring.dropped"),
        *("attribution_note", "attribution_budget", "poll_budget", "stack_depth", "signals_ours"),
        *("events_oldest", "events_newest"),
    },
}


def members() -> set[str]:
    """Returns the members of struct memwatch_stats, those of its structs as `ring.depth`."""
    text = (ROOT / "native/include/memwatch/stats.h").read_text()
    body = re.sub(r"/\*.*?\*/", "", text.split("struct memwatch_stats {")[1].split("\n};")[0], flags=re.DOTALL)
    found: set[str] = set()
    for inner, name in re.findall(r"struct \{(.*?)\} (\w+);", body, flags=re.DOTALL):
        found |= {f"{name}.{member}" for member in declared(inner)}
    return found | declared(re.sub(r"struct \{.*?\} \w+;", "", body, flags=re.DOTALL))


def declared(body: str) -> set[str]:
    statements = [statement.strip() for statement in body.split(";") if statement.strip()]
    last_words = [
        re.sub(r"\[.*?\]", "", part).split()[-1].lstrip("*") for text in statements for part in text.split(",")
    ]
    return set(last_words)


def rows(path: str, macro: str) -> set[str]:
    return set(re.findall(rf"\b{macro}\(([\w.]+)\)", (ROOT / path).read_text()))


def test_every_number_is_in_get_stats() -> None:
    assert members() - rows("python/ext/stats.c", "AT") == WITHOUT_A_ROW["get_stats"]


def test_every_number_is_a_metric() -> None:
    assert members() - rows("exporter/src/metrics/families.inc", "STAT") == WITHOUT_A_ROW["metrics"]


def test_every_metric_is_documented() -> None:
    families = set(re.findall(r'^\{ "(memwatch_\w+)"', (ROOT / "exporter/src/metrics/families.inc").read_text(), re.M))
    documented = set(re.findall(r"`(memwatch_\w+)`", (ROOT / "docs/metrics.md").read_text()))
    assert {name for name in families if name not in documented and f"{name}_total" not in documented} == set()
