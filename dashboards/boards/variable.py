"""Variable: one variable, its values and its changes."""

from boards.parts import DROPS, RESTARTS, Column, Query, board, choice, curves, number, rows, words

ONE = '{@, variable="$variable"}'

ASK = """\
Prometheus counts changes; it does not keep who made them. The process does, as far back as its event log reaches.

The table beside leads to the process's own page, opened at this variable: its newest changes, each with old and new
value, function, file and line, and how sure that is. The page asks for the token of the process. On that machine
`python -m memwatch open PID` opens it without asking.

For programs: `GET /api/v1/events?order=newest&name=${variable}&limit=20`.
"""


def now():
    return [
        number(
            "Last change",
            "Time since it last changed, in the process where that was longest ago.",
            "s",
            Query(f"max(time() - (memwatch_variable_last_change_timestamp_seconds{ONE} > 0))"),
            span=5,
            no_value="not since it is watched",
        ),
        number(
            "Changes",
            "Within this time range.",
            "none",
            Query(f"sum(increase(memwatch_variable_events_total{ONE}[$__range]))"),
            span=5,
            decimals=0,
            curve=False,
        ),
        number(
            "Change rate",
            "Changes a second.",
            "cps",
            Query(f"sum(rate(memwatch_variable_events_total{ONE}[$__rate_interval]))"),
            span=5,
        ),
        number(
            "Share of all events",
            "How much of all that changes is this variable.",
            "percentunit",
            Query(
                f"sum(rate(memwatch_variable_events_total{ONE}[$__rate_interval]))"
                " / (sum(rate(memwatch_events_total{@}[$__rate_interval])) > 0)"
            ),
            span=5,
        ),
        number(
            "Value",
            "The last known value, for a number; with several processes the largest.",
            "none",
            Query(f"max(memwatch_variable_value{ONE})"),
            no_value="not a number",
        ),
    ]


def values():
    return [
        curves(
            "Value",
            "The value of a number over time, as Prometheus saw it at each scrape; changes in between are in the feed."
            " Of an array that is watched with `metric`: the largest, the mean and the smallest item.",
            "none",
            Query(f"memwatch_variable_value{ONE}", "{{instance}}"),
            Query(f"memwatch_variable_max{ONE}", "{{instance}}, largest"),
            Query(f"memwatch_variable_mean{ONE}", "{{instance}}, mean"),
            Query(f"memwatch_variable_min{ONE}", "{{instance}}, smallest"),
            span=16,
            least=None,
        ),
        curves(
            "Not a number",
            "How many items of an array are NaN; of a single number 1 while it is.",
            "none",
            Query(
                f"memwatch_variable_nan{ONE} or (memwatch_variable_value{ONE} != bool memwatch_variable_value{ONE})",
                "{{instance}}",
            ),
            limit=1,
        ),
        curves(
            "Change rate by process",
            "Changes a second.",
            "cps",
            Query(f"sum by (instance) (rate(memwatch_variable_events_total{ONE}[$__rate_interval]))", "{{instance}}"),
        ),
        curves(
            "Age of the last change",
            "How long it has rested, and how long it may (memwatch.limits.yml).",
            "s",
            Query(f"time() - (memwatch_variable_last_change_timestamp_seconds{ONE} > 0)", "{{instance}}"),
            Query(f"max(variable:memwatch_silence_limit:seconds{ONE})", "limit"),
        ),
    ]


def writers():
    return [
        words("How to ask who writes it", "Where the writers are kept.", ASK),
        rows(
            "Where to ask",
            "The processes that watch it. The link opens the page of the process at this variable; from another machine"
            " than the process's own it works where the exporter listens there.",
            Column(
                "Last change",
                Query(f"max by (job, instance) (memwatch_variable_last_change_timestamp_seconds{ONE} > 0) * 1000"),
                "dateTimeFromNow",
            ),
            span=8,
            links={"instance": "http://${__data.fields.instance}/#/variable/${variable:percentencode}"},
        ),
        curves(
            "How well writers are known there",
            "Of all events of these processes: exact, by page, or not at all.",
            "percentunit",
            Query(
                "sum by (outcome) (rate(memwatch_attribution_events_total{@}[$__rate_interval]))"
                " / on () group_left () (sum(rate(memwatch_attribution_events_total{@}[$__rate_interval])) > 0)",
                "{{outcome}}",
            ),
            stacked=True,
            most=1,
        ),
    ]


def variable():
    return board(
        "Variable",
        "One variable: its value, how often it changes, how long it has rested, and where to ask who wrote it.",
        [
            choice("job", "label_values(memwatch_up, job)"),
            choice("instance", 'label_values(memwatch_up{job=~"$job"}, instance)'),
            choice(
                "variable",
                'label_values(memwatch_variable_events_total{job=~"$job", instance=~"$instance"}, variable)',
                several=False,
            ),
        ],
        [RESTARTS, DROPS],
        [("Now", now()), ("Over time", values()), ("Who writes it", writers())],
    )
