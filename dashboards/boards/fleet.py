"""Fleet: many processes on many hosts, from the recording rules alone: it works where only those are shipped."""

from boards.parts import KEEP, NONE_IS_GOOD, RED, Column, Query, bars, board, choice, curves, link, note, number, rows

TO_OVERVIEW = "/d/memwatch-overview?var-job=${__data.fields.job}&var-instance=${__data.fields.instance}&" + KEEP
P99 = "histogram_quantile(0.99, sum by ({}, le) (instance_le:memwatch_detection_latency_seconds_bucket:rate5m{{@}}))"

LOSSES = note(
    "Losses", RED, Query("sum by (job, instance) (instance:memwatch_events_dropped:rate5m{@}) > 0"), "Losing events"
)


def by_host(series):
    """The sum by host: the instance without its port."""
    return f'sum by (host) (label_replace({series}{{@}}, "host", "$1", "instance", "(.+):[0-9]+"))'


def named(expr):
    """The expression with the names that the process has: its service and its worker."""
    return f"({expr}) * on (job, instance) group_left (service, worker) instance:memwatch_process:info{{@}}"


def totals():
    return [
        number("Processes", "That report.", "none", Query("count(instance:memwatch_up:min{@})"), span=3),
        number(
            "Hosts",
            "Machines they run on: the instances without their ports.",
            "none",
            Query(f"count({by_host('instance:memwatch_up:min')})"),
            span=3,
        ),
        number(
            "Watchers closed",
            "Processes that answer, but whose watcher has ended.",
            "none",
            Query("count(instance:memwatch_up:min{@} == 0) or vector(0)"),
            span=3,
            thresholds=NONE_IS_GOOD,
            curve=False,
        ),
        number(
            "Variables", "Regions that are watched.", "none", Query("sum(instance:memwatch_regions:sum{@})"), span=3
        ),
        number(
            "Watched", "Bytes of all regions.", "bytes", Query("sum(instance:memwatch_region_bytes:sum{@})"), span=3
        ),
        number("Events", "Changes a second, of all.", "cps", Query("sum(instance:memwatch_events:rate5m{@})"), span=3),
        number(
            "Lost",
            "Dropped and missed a second, of all. Should be 0.",
            "cps",
            Query("sum(instance:memwatch_events_dropped:rate5m{@}) + sum(instance:memwatch_events_missed:rate5m{@})"),
            span=3,
            thresholds=NONE_IS_GOOD,
        ),
        number(
            "Alerts",
            "Alerts of memwatch that fire now.",
            "none",
            Query('count(ALERTS{@, alertname=~"Memwatch.+", alertstate="firing"}) or vector(0)'),
            span=3,
            thresholds=NONE_IS_GOOD,
            curve=False,
        ),
    ]


def together():
    return [
        curves(
            "Events by service",
            "Changes a second.",
            "cps",
            Query(f"sum by (service) ({named('instance:memwatch_events:rate5m{@}')})", "{{service}}"),
            stacked=True,
        ),
        curves(
            "Events by worker",
            "Changes a second, of each service's workers.",
            "cps",
            Query(
                f"sum by (service, worker) ({named('instance:memwatch_events:rate5m{@}')})", "{{service}} {{worker}}"
            ),
            stacked=True,
        ),
        curves(
            "Events by host",
            "Changes a second.",
            "cps",
            Query(by_host("instance:memwatch_events:rate5m"), "{{host}}"),
            stacked=True,
        ),
        bars(
            "Busiest processes",
            "The ten with the most changes a second.",
            "cps",
            Query("topk(10, sum by (instance) (instance:memwatch_events:rate5m{@}))", "{{instance}}"),
            to=link("Look at it", "/d/memwatch-overview?var-instance=${__field.labels.instance}&" + KEEP),
        ),
        curves(
            "Losses by process",
            "Dropped, and missed by slow readers, a second. Processes without losses are left out.",
            "cps",
            Query("sum by (instance) (instance:memwatch_events_dropped:rate5m{@}) > 0", "{{instance}}, dropped"),
            Query("sum by (instance) (instance:memwatch_events_missed:rate5m{@}) > 0", "{{instance}}, missed"),
        ),
        curves(
            "Detection latency by job, p99",
            "From the first write to the event.",
            "s",
            Query(P99.format("job"), "{{job}}"),
        ),
        curves(
            "Memory of the library by host",
            "Native memory that memwatch itself takes.",
            "bytes",
            Query(by_host("instance:memwatch_native_memory_bytes:sum"), "{{host}}"),
            stacked=True,
        ),
    ]


def each():
    def one(series, of="sum"):
        return Query(f"{of} by (service, worker, job, instance) ({named(f'{series}{{@}}')})")

    return [
        rows(
            "Processes",
            "A line for each process, by service and worker; click an instance for its Overview."
            " History: how far back it reaches at the present rate.",
            Column("Up", one("instance:memwatch_up:min"), "bool_yes_no"),
            Column("Variables", one("instance:memwatch_regions:sum"), "none"),
            Column("Detected", one("instance:memwatch_detected:rate5m"), "cps"),
            Column("Events", one("instance:memwatch_events:rate5m"), "cps"),
            Column("Dropped", one("instance:memwatch_events_dropped:rate5m"), "cps"),
            Column("Missed", one("instance:memwatch_events_missed:rate5m"), "cps"),
            Column("Callback failures", one("instance:memwatch_callback_failures:rate5m"), "cps"),
            Column("Ring", one("instance:memwatch_ring_fill:ratio"), "percentunit"),
            Column("Latency p99", Query(named(P99.format("job, instance"))), "s"),
            Column("Writer known", one("instance:memwatch_writer_known:ratio_rate5m"), "percentunit"),
            Column(
                "History",
                Query(named("min by (job, instance) (instance:memwatch_history_reach:seconds{@} < +Inf)")),
                "s",
            ),
            Column("Memory", one("instance:memwatch_native_memory_bytes:sum"), "bytes"),
            height=10,
            links={"instance": TO_OVERVIEW},
        ),
        rows(
            "Longest silences",
            "The ten variables that have rested longest: since their last change, or since they are watched.",
            Column(
                "Silent for",
                Query("topk(10, max by (job, instance, variable) (variable:memwatch_silence:seconds{@}))"),
                "s",
            ),
            span=12,
        ),
        rows(
            "Alerts that fire",
            "Empty when all is well.",
            Column(
                "Firing",
                Query(
                    "sum by (alertname, severity, job, instance, variable)"
                    ' (ALERTS{@, alertname=~"Memwatch.+", alertstate="firing"})'
                ),
                "none",
            ),
            span=12,
        ),
    ]


def fleet():
    return board(
        "Fleet",
        "All processes that run memwatch, from the recording rules.",
        [
            choice("job", "label_values(instance:memwatch_up:min, job)"),
            choice("instance", 'label_values(instance:memwatch_up:min{job=~"$job"}, instance)'),
        ],
        [LOSSES],
        [("All together", totals()), ("Side by side", together()), ("One by one", each())],
    )
