"""Overview: what changed, how often, how sure is it who wrote, is anything wrong? Collapsed: how memwatch does."""

from boards.parts import (
    DROPS,
    KEEP,
    NONE_IS_GOOD,
    RESTARTS,
    Column,
    Query,
    bars,
    board,
    choice,
    curves,
    heat,
    link,
    number,
    rows,
)

TO_VARIABLE = "/d/memwatch-variable?var-job=${__data.fields.job}&var-instance=${__data.fields.instance}&var-variable="

# A variable with labels of its own, and those labels.
ALONE = '{@, variable!="__overflow__"}'
OF = "job, instance, variable"


def health():
    return [
        number(
            "Watchers up",
            "How many of the chosen watchers work.",
            "none",
            Query("sum(memwatch_up{@})"),
            span=3,
        ),
        number(
            "Exporters down",
            "Processes that answered within this time range and do not answer now.",
            "none",
            Query("count(up{@} == 0 and on (job, instance) max_over_time(memwatch_up{@}[$__range])) or vector(0)"),
            span=3,
            thresholds=NONE_IS_GOOD,
            curve=False,
        ),
        number(
            "Events",
            "Changes of all variables together, a second.",
            "cps",
            Query("sum(rate(memwatch_events_total{@}[$__rate_interval]))"),
            span=3,
        ),
        number(
            "Dropped",
            "Lost within this time range: events, or the notes that say who wrote. Should be 0.",
            "none",
            Query("sum(increase(memwatch_events_dropped_total{@}[$__range]))"),
            span=3,
            thresholds=NONE_IS_GOOD,
            decimals=0,
            curve=False,
        ),
        number(
            "Missed",
            "Events that left the log before a callback or a feed client came to them, within this time range.",
            "none",
            Query(
                "sum(increase(memwatch_callback_missed_total{@}[$__range]))"
                " + sum(increase(memwatch_feed_missed_events_total{@}[$__range]))"
            ),
            span=3,
            thresholds=NONE_IS_GOOD,
            decimals=0,
            curve=False,
        ),
        number("Variables", "Regions that are watched.", "none", Query("sum(memwatch_regions{@})"), span=3),
        number("Watched", "Bytes of all regions together.", "bytes", Query("sum(memwatch_region_bytes{@})"), span=3),
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


def changed():
    return [
        number(
            "Last change",
            "How long ago any of the chosen variables changed.",
            "s",
            Query(f"min(time() - (memwatch_variable_last_change_timestamp_seconds{ALONE} > 0))"),
            span=6,
            no_value="none yet",
        ),
        number(
            "Changes",
            "Within this time range, of all variables.",
            "none",
            Query("sum(increase(memwatch_events_total{@}[$__range]))"),
            span=6,
            decimals=0,
            curve=False,
        ),
        number(
            "Variables that changed",
            "Within this time range.",
            "none",
            Query(f"count(sum by ({OF}) (increase(memwatch_variable_events_total{ALONE}[$__range])) > 0) or vector(0)"),
            span=6,
            curve=False,
        ),
        number(
            "Writers proven",
            "Share of the changes within this time range whose writer is proven. A guess does not count.",
            "percentunit",
            Query(
                'sum(increase(memwatch_attribution_events_total{@, outcome="exact"}[$__range]))'
                " / (sum(increase(memwatch_attribution_events_total{@}[$__range])) > 0)"
            ),
            span=6,
            decimals=0,
            no_value="no change",
            curve=False,
        ),
        rows(
            "Last changes",
            "When each variable changed last, how often it does, and its value where it is a number. A variable"
            " without a time has not changed since it is watched. Click a name to see more of it.",
            Column(
                "Last change",
                Query(f"max by ({OF}) (memwatch_variable_last_change_timestamp_seconds{ALONE} > 0) * 1000"),
                "dateTimeFromNow",
            ),
            Column(
                "Changes a second",
                Query(f"sum by ({OF}) (rate(memwatch_variable_events_total{ALONE}[$__rate_interval]))"),
                "cps",
            ),
            Column("Value", Query(f"max by ({OF}) (memwatch_variable_value{ALONE})"), "none"),
            links={"variable": TO_VARIABLE + "${__data.fields.variable}&" + KEEP},
        ),
    ]


def changes():
    return [
        curves(
            "Events by process",
            "How many changes a second each process sees.",
            "cps",
            Query("sum by (instance) (rate(memwatch_events_total{@}[$__rate_interval]))", "{{instance}}"),
        ),
        bars(
            "Top variables",
            "The ten variables that change most often now.",
            "cps",
            Query(
                "topk(10, sum by (variable) (rate(memwatch_variable_events_total{@}[$__rate_interval])))",
                "{{variable}}",
            ),
            to=link("Look at it", "/d/memwatch-variable?var-variable=${__field.labels.variable}&" + KEEP),
        ),
        curves(
            "How well the writer is known",
            "exact: proof, this store wrote the bytes. page: a guess, it wrote elsewhere on the page. none: nobody is"
            " known, or a system call wrote.",
            "cps",
            Query("sum by (outcome) (rate(memwatch_attribution_events_total{@}[$__rate_interval]))", "{{outcome}}"),
            stacked=True,
        ),
    ]


def losses():
    return [
        curves(
            "What detections became",
            "Each write that was detected ends as one of these. Unchanged: the same bytes were written again."
            " Coalesced: merged into a later event. Filtered: a condition said no.",
            "cps",
            Query("sum(rate(memwatch_events_total{@}[$__rate_interval]))", "event"),
            Query("sum(rate(memwatch_events_coalesced_total{@}[$__rate_interval]))", "coalesced"),
            Query("sum(rate(memwatch_events_unchanged_total{@}[$__rate_interval]))", "unchanged"),
            Query("sum(rate(memwatch_events_filtered_total{@}[$__rate_interval]))", "filtered"),
            Query('sum(rate(memwatch_events_dropped_total{@, reason!="ring_full"}[$__rate_interval]))', "dropped"),
            Query("sum(rate(memwatch_detected_total{@}[$__rate_interval]))", "all detected"),
        ),
        curves(
            "Losses by reason",
            "ring_full: the note that says who wrote. no_memory, vanished: an event. Callback, feed: events that a"
            " slow reader did not get.",
            "cps",
            Query("sum by (reason) (rate(memwatch_events_dropped_total{@}[$__rate_interval]))", "{{reason}}"),
            Query("sum(rate(memwatch_callback_missed_total{@}[$__rate_interval]))", "callback missed"),
            Query("sum(rate(memwatch_feed_missed_events_total{@}[$__rate_interval]))", "feed missed"),
            stacked=True,
        ),
        curves(
            "Ring",
            "How full the ring is between the writers and the worker, and how full it ever was. At 100 % notes are"
            " lost.",
            "percentunit",
            Query("max by (instance) (memwatch_ring_notes{@} / memwatch_ring_capacity_notes{@})", "{{instance}}"),
            Query(
                "max by (instance) (memwatch_ring_high_watermark_notes{@} / memwatch_ring_capacity_notes{@})",
                "{{instance}}, highest",
            ),
            most=1,
            limit=0.8,
        ),
        curves(
            "History against its budget",
            "Bytes of older versions that are kept, and how many may be.",
            "bytes",
            Query("sum by (instance) (memwatch_history_bytes{@})", "{{instance}}"),
            Query("sum by (instance) (memwatch_history_budget_bytes{@})", "{{instance}}, budget"),
        ),
        curves(
            "Kept",
            "Events in the log and versions in the history.",
            "none",
            Query("sum(memwatch_event_log_events{@})", "events"),
            Query("sum(memwatch_history_versions{@})", "versions"),
        ),
        curves(
            "Evicted",
            "What leaves the log and the history because they are full. That is their way of working; it matters when"
            " somebody still wanted it.",
            "cps",
            Query("sum(rate(memwatch_event_log_evictions_total{@}[$__rate_interval]))", "events"),
            Query("sum(rate(memwatch_history_evictions_total{@}[$__rate_interval]))", "versions"),
        ),
        curves(
            "Without labels of their own",
            "Variables beyond the label limit (their events are summed), variables whose values Prometheus may not see,"
            " and source locations that found their table full.",
            "none",
            Query("sum by (instance) (memwatch_variables_unlabelled{@})", "{{instance}}, variables"),
            Query("sum by (instance) (memwatch_values_hidden{@})", "{{instance}}, hidden"),
            Query(
                "sum by (instance) (increase(memwatch_locations_dropped_total{@}[$__range]))", "{{instance}}, locations"
            ),
        ),
    ]


def latency():
    of = "sum by (le) (rate(memwatch_detection_latency_seconds_bucket{@}[$__rate_interval]))"
    return [
        curves(
            "Detection latency",
            "From the first write to the event, where the time of the write is known. Half of the events are faster"
            " than p50.",
            "s",
            Query(f"histogram_quantile(0.5, {of})", "p50"),
            Query(f"histogram_quantile(0.99, {of})", "p99"),
            span=12,
        ),
        heat("Detection latency, spread", "How many events took how long.", Query(of, "{{le}}"), span=12),
    ]


def writers():
    return [
        curves(
            "Why a writer is unknown",
            "kernel: a system call wrote (recv_into, readinto). throttled: the budget was used up. The others mean"
            " that it cannot be told here.",
            "cps",
            Query("sum by (reason) (rate(memwatch_attribution_none_total{@}[$__rate_interval]))", "{{reason}}"),
            stacked=True,
        ),
        curves(
            "Attribution: time against budget",
            "Share of the time in which the budget was used up, and the budget: the share of one core that it may"
            " cost.",
            "percentunit",
            Query(
                "max by (instance) (rate(memwatch_attribution_throttled_seconds_total{@}[$__rate_interval]))",
                "{{instance}}",
            ),
            Query("max by (instance) (memwatch_attribution_budget_ratio{@})", "{{instance}}, budget"),
        ),
        curves(
            "Signals",
            "Signals taken to learn the writer, those that were for pages of somebody else, and neighbours' writes"
            " that were stepped over.",
            "ops",
            Query("sum(rate(memwatch_attribution_signals_total{@}[$__rate_interval]))", "signals"),
            Query("sum(rate(memwatch_attribution_signals_foreign_total{@}[$__rate_interval]))", "foreign"),
            Query("sum(rate(memwatch_attribution_stepped_total{@}[$__rate_interval]))", "stepped over"),
            span=12,
        ),
        curves(
            "Watchpoints",
            "Writes that hardware watchpoints told one by one, and those that no hit told: the signal was blocked, or"
            " the ring was full.",
            "ops",
            Query("sum(rate(memwatch_watchpoint_hits_total{@}[$__rate_interval]))", "told"),
            Query("sum(rate(memwatch_watchpoint_missed_total{@}[$__rate_interval]))", "missed"),
            span=12,
        ),
        rows(
            "What each process can tell",
            "Available: the writer can be told. Filtered: the kernel drops the signals that are not ours."
            " Watchpoints: what the process may use, and what is in use. Locations: source lines known so far. Handler"
            " lost: how often somebody replaced ours within this time range.",
            Column("Available", Query("max by (job, instance) (memwatch_attribution_available{@})"), "bool_yes_no"),
            Column("Filtered", Query("max by (job, instance) (memwatch_attribution_filtered{@})"), "bool_yes_no"),
            Column("Watchpoints", Query("max by (job, instance) (memwatch_watchpoints{@})"), "none"),
            Column("In use", Query("max by (job, instance) (memwatch_watchpoints_used{@})"), "none"),
            Column("Locations", Query("max by (job, instance) (memwatch_locations{@})"), "none"),
            Column(
                "Handler lost",
                Query("sum by (job, instance) (increase(memwatch_handler_lost_total{@}[$__range]))"),
                "none",
            ),
        ),
    ]


def delivery():
    took = "sum by (le) (rate(memwatch_callback_duration_seconds_bucket{@}[$__rate_interval]))"
    return [
        curves(
            "Feed clients",
            "Clients that stream or wait for events, and all open connections.",
            "none",
            Query("sum by (transport) (memwatch_feed_clients{@})", "{{transport}}"),
            Query("sum(memwatch_http_connections{@})", "connections"),
        ),
        curves(
            "Sent to feeds",
            "Events that feed clients got, each client counted.",
            "cps",
            Query("sum by (instance) (rate(memwatch_feed_events_total{@}[$__rate_interval]))", "{{instance}}"),
        ),
        curves(
            "Clients turned away",
            "Rejected: all feed places were taken. Cut: it did not read. Slow: its request did not arrive in time.",
            "ops",
            Query("sum(rate(memwatch_feed_rejected_total{@}[$__rate_interval]))", "rejected"),
            Query("sum(rate(memwatch_feed_cut_total{@}[$__rate_interval]))", "cut"),
            Query("sum(rate(memwatch_http_slow_clients_total{@}[$__rate_interval]))", "slow"),
        ),
        curves(
            "Requests",
            "HTTP requests answered, by what was asked for and the status.",
            "reqps",
            Query(
                "sum by (handler, code) (rate(memwatch_http_requests_total{@}[$__rate_interval]))",
                "{{handler}} {{code}}",
            ),
        ),
        curves(
            "Callback duration",
            "How long callbacks take for an event.",
            "s",
            Query(f"histogram_quantile(0.5, {took})", "p50"),
            Query(f"histogram_quantile(0.99, {took})", "p99"),
        ),
        curves(
            "Callbacks: failures and lag",
            "Failures a second, and how many events the slowest callback has still to read. Sinks: open callbacks and"
            " iterators.",
            "none",
            Query("sum(rate(memwatch_callback_failures_total{@}[$__rate_interval]))", "failures a second"),
            Query("max(memwatch_callback_lag_events{@})", "lag, events"),
            Query("sum(memwatch_sinks{@})", "sinks"),
        ),
        curves(
            "Recorders",
            "Events recorded and missed a second, failed attempts, and recorders that cannot write now. Missed, errors"
            " and failing should be 0.",
            "none",
            Query("sum(rate(memwatch_recorder_events_written_total{@}[$__rate_interval]))", "recorded a second"),
            Query("sum(rate(memwatch_recorder_events_missed_total{@}[$__rate_interval]))", "missed a second"),
            Query("sum(rate(memwatch_recorder_errors_total{@}[$__rate_interval]))", "errors a second"),
            Query("sum(memwatch_recorders_failing{@})", "failing"),
            Query("sum(memwatch_recorders{@})", "recorders"),
        ),
        curves(
            "Recordings: bytes in use",
            "How much of a recording is in use, and how much it may take. When it is full the oldest events leave.",
            "bytes",
            Query("sum by (instance) (memwatch_recorder_used_bytes{@})", "{{instance}}"),
            Query("sum by (instance) (memwatch_recorder_max_bytes{@})", "{{instance}}, at most"),
        ),
        curves(
            "Recordings: age of the last commit",
            "How long ago the recorder last committed. It commits when there are events.",
            "s",
            Query(
                "time() - max by (instance) (memwatch_recorder_last_commit_timestamp_seconds{@} > 0)", "{{instance}}"
            ),
        ),
    ]


def cost():
    return [
        curves(
            "Memory of the library",
            "Native memory that memwatch itself takes, and the part of it that the event log holds.",
            "bytes",
            Query("sum by (instance) (memwatch_native_memory_bytes{@})", "{{instance}}"),
            Query("sum by (instance) (memwatch_event_log_bytes{@})", "{{instance}}, event log"),
        ),
        curves(
            "The engine's work",
            "Faults: first writes that sent a note. Passes of the worker, and the written pages that they found.",
            "ops",
            Query("sum(rate(memwatch_faults_total{@}[$__rate_interval]))", "faults"),
            Query("sum(rate(memwatch_passes_total{@}[$__rate_interval]))", "passes"),
            Query("sum(rate(memwatch_pages_written_total{@}[$__rate_interval]))", "pages written"),
        ),
        curves(
            "Window and sweep",
            "How long a page stays open after its first write, and the interval of the sweep that finds writes without"
            " a note.",
            "s",
            Query("max by (instance) (memwatch_window_seconds{@})", "{{instance}}, window"),
            Query("max by (instance) (memwatch_sweep_seconds{@})", "{{instance}}, sweep"),
        ),
        curves(
            "Scrape",
            "How long a scrape took to render in the process, and how long Prometheus waited for it.",
            "s",
            Query("max by (instance) (memwatch_scrape_duration_seconds{@})", "{{instance}}, rendering"),
            Query(
                "max by (instance) (scrape_duration_seconds{@} and on (job, instance) memwatch_up{@})",
                "{{instance}}, in all",
            ),
            span=12,
        ),
        rows(
            "Backends usable",
            "Which ways to notice a write would work on each machine.",
            Column("Usable", Query("max by (job, instance, backend) (memwatch_backend_usable{@})"), "bool_yes_no"),
            span=12,
        ),
        rows(
            "Processes",
            "What runs where, since when, with how many armed pages and series.",
            Column("Open since", Query(with_versions("memwatch_start_time_seconds{@} * 1000")), "dateTimeAsIso"),
            Column("Pages armed", Query(with_versions("memwatch_armed_pages{@}")), "none"),
            Column("Series", Query(with_versions("scrape_samples_scraped{@}")), "none"),
            height=6,
        ),
    ]


def with_versions(expr):
    """The expression with the labels that say what the process runs."""
    return (
        f"sum by (job, instance, backend, version, libmicrohttpd, compiler) ({expr}"
        " * on (job, instance) group_left (backend) memwatch_backend_info{@}"
        " * on (job, instance) group_left (version, libmicrohttpd, compiler) memwatch_build_info{@})"
    )


def overview():
    return board(
        "Overview",
        "All that memwatch sees in the chosen processes, what was lost, and what it costs.",
        [
            choice("job", "label_values(memwatch_up, job)"),
            choice("instance", 'label_values(memwatch_up{job=~"$job"}, instance)'),
        ],
        [RESTARTS, DROPS],
        [
            ("What changed", changed()),
            ("How often, and who wrote", changes()),
            ("Is anything wrong", health()),
            ("memwatch itself: losses and limits", losses(), True),
            ("memwatch itself: latency", latency(), True),
            ("memwatch itself: how writers are told", writers(), True),
            ("memwatch itself: delivery", delivery(), True),
            ("memwatch itself: cost", cost(), True),
        ],
    )
