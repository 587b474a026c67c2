"""Every query of every panel, annotation, alert and rule answers with data from a real Prometheus."""

import math
import re
from functools import partial

import pytest
from queries import asked, dashboards, fill

# What rightly has no data in the world of these tests, and why.
EMPTY = {
    "overview / annotation / Restarts": "no service restarts while the tests look",
    "variable / annotation / Restarts": "no service restarts while the tests look",
    "alert MemwatchWatcherClosed": "a service that closes its watcher closes its exporter too, except from C",
    "alert MemwatchRecorderFailing": "the busy service's recording can be written",
    "alert MemwatchHandlerLost": "nobody in the services replaces a signal handler",
}
# What may have data, or not.
BY_CHANCE = {"MemwatchRingNearlyFull": "the worker empties the busy service's ring many times between two scrapes"}
# Up to this comparison an alert's expression has a value whenever the exporter answers.
COMPARISON = re.compile(r"\s(==|!=|<|>)\s")

QUERIES = [query for name, board in dashboards().items() for query in asked(name, board)]


# Choices for which the Variable dashboard has data: an array, a scalar.
VARIABLES = ("weights", "temperature")


def numbers(series):
    """The series that have a number now: a quantile of nothing is NaN, and no data."""
    return [one for one in series if not math.isnan(float(one["value"][1]))]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_query_of_a_dashboard_has_data(world, query):
    found = [one for name in VARIABLES for one in numbers(world.prometheus.now(fill(query.expr, variable=name)))]
    if query.where in EMPTY:
        assert not found, f"it has data now, take it off the list: {EMPTY[query.where]}"
    else:
        assert found


def test_rules_record_data(world, rules):
    recorded = {rule["record"] for found in rules.values() for rule in found if "record" in rule}
    empty = {name for name in recorded if not world.prometheus.now(name)}
    assert not empty


def test_alerts_have_data(world, rules, wait_for):
    for rule in rules["memwatch.alerts"]:
        never = f"alert {rule['alert']}" in EMPTY
        if never:
            assert not world.prometheus.now(rule["expr"]), f"{rule['alert']} has data now, take it off the list"
        if never or rule["alert"] in BY_CHANCE:
            assert world.prometheus.now(COMPARISON.split(rule["expr"])[0]), rule["alert"]
        else:
            wait_for(partial(world.prometheus.now, rule["expr"]), what=f"data for {rule['alert']}")


def test_prometheus_found_no_fault_in_the_rules(world, rules):
    groups = world.prometheus.ask("rules")["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in loaded if rule["health"] != "ok"] == []
    assert len(loaded) == sum(map(len, rules.values()))


def test_the_alerts_tell_the_two_services_apart(world):
    """The demo is well but for what it shows on purpose; the busy service has all the trouble."""

    def firing(name):
        return {series["metric"]["instance"] for series in world.prometheus.now(f'ALERTS{{alertname="{name}"}}')}

    assert firing("MemwatchExporterDown") == {world.dead}
    for name in ("MemwatchEventsDropped", "MemwatchEventsMissed", "MemwatchCallbackFailing", "MemwatchVariableChanged"):
        assert firing(name) == {world.busy}, name
    assert world.busy in firing("MemwatchVariableSilent")
    assert world.demo not in firing("MemwatchVariableSilent")


def test_the_choices_of_the_variables_are_filled(world):
    for board in dashboards().values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
                found = world.prometheus.ask(f"label/{label}/values", **{"match[]": fill(metric)})
                assert found, f"{board['uid']}: {variable['name']}"
