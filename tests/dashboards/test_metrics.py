"""The panels and the exporter know the same metrics."""

import re

from queries import asked, dashboards

NAME = re.compile(r"(?<![\w:])(memwatch_\w+|\w+:memwatch_\w+:\w+|memwatch:\w+:\w+)")
# Families that are on no panel, and why.
ON_NO_PANEL: dict[str, str] = {
    "memwatch_polled_bytes": "0 where nothing is polled; the live page and the status say it",
    "memwatch_process_info": "names; the hub and queries join it, and no curve says it",
    "memwatch_forks_unwatched_total": "a remark for who set the service up; the live page and one log record say it",
    "memwatch_poll_round_seconds": "a promise that follows from the budget, not something that goes wrong",
}


def names(expr):
    """Metrics that an expression names; label values in quotes do not count."""
    return set(NAME.findall(re.sub(r'"[^"]*"', '""', expr)))


def family(name):
    """The family of a series' name."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def named_by_panels():
    return {
        name for board, model in dashboards().items() for query in asked(board, model) for name in names(query.expr)
    }


def test_every_metric_that_a_panel_or_rule_names_exists(exported, rules):
    recorded = {rule["record"] for found in rules.values() for rule in found if "record" in rule}
    named = named_by_panels() | {name for found in rules.values() for rule in found for name in names(rule["expr"])}
    assert {name for name in named if ":" in name} <= recorded
    assert {family(name) for name in named if ":" not in name} <= set(exported)


def test_every_metric_of_the_exporter_is_on_a_panel_or_on_the_list(exported):
    ours = {name for name in exported if name.startswith("memwatch_")}
    shown = {family(name) for name in named_by_panels() if ":" not in name}
    assert ours - shown == set(ON_NO_PANEL)


def test_every_recorded_series_is_read(rules):
    """A recording rule that nobody reads costs without use."""
    recorded = {rule["record"] for found in rules.values() for rule in found if "record" in rule}
    read = named_by_panels() | {name for found in rules.values() for rule in found for name in names(rule["expr"])}
    assert recorded <= read


def test_counters_are_rated_and_gauges_are_not(exported, rules):
    """`rate` of a gauge and a bare counter both give numbers, and both are wrong."""
    exprs = [query.expr for board, model in dashboards().items() for query in asked(board, model)]
    exprs += [rule["expr"] for found in rules.values() for rule in found]
    for expr in exprs:
        for function, name in re.findall(r"(\w*)\(?\s*(?<![\w:])(memwatch_[a-z0-9_]+)(?![\w:])", expr):
            kind = exported[family(name)]
            assert (kind != "gauge") == (function in ("rate", "increase")), f"{name} is a {kind}: {expr}"
