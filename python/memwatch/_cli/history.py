"""`memwatch history PATH`: events, runs, regions and values of a recording, for people, as JSON or as CSV.

Names, files and values are others' text: what a terminal would act on is shown escaped, and what a spreadsheet would
take for a formula has an apostrophe before it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from typing import Any

from memwatch._cli.clock import moment, number, stamp
from memwatch._cli.frame import command
from memwatch._errors import printable
from memwatch._recorded import History, RecordedEvent, RecordedRegion, open_history

COLUMNS = "time_ns time run seq name kind index old new changed_bytes attribution reason function file line thread"


def plain(value: Any) -> Any:
    """A value as JSON can hold it; what it cannot is written as Python does."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (int, float, str, bool, type(None))) else repr(value)


def event_json(event: RecordedEvent) -> dict[str, Any]:
    """One line of --json."""
    return {
        "run": event.run,
        "seq": event.seq,
        "time_ns": event.timestamp_ns,
        "name": event.variable_name,
        "kind": event.kind,
        "size_bytes": event.how_big,
        "changed_bytes": event.changed_bytes,
        "changes": [list(change) for change in event.changes],
        "elements": [[list(each.index), plain(each.old), plain(each.new)] for each in event.elements],
        "old_preview": plain(event.old_preview),
        "new_preview": plain(event.new_preview),
        "where": {key: value for key, value in event.where.items() if value is not None and key != "frames"},
        "thread_id": event.thread_id,
        "thread_name": event.thread_name,
        "backend": event.backend,
    }


def _cell(value: Any) -> Any:
    """Others' text in a table: a spreadsheet takes what begins like that for a formula, and runs it."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.lstrip()[:1] in tuple("=+-@") else printable(value)


def event_rows(event: RecordedEvent) -> list[list[Any]]:
    """Lines of --csv: one for each element that changed; of bytes, one for the event."""
    where = event.where
    before = [event.timestamp_ns, stamp(event.timestamp_ns), event.run, event.seq, event.variable_name, event.kind]
    behind = [event.changed_bytes, where.attribution, where.reason, where.function, where.file, where.line]
    behind.append(event.thread_name)
    changed = [(", ".join(map(str, each.index)), each.old, each.new) for each in event.elements]
    rows = [
        [*before, index, plain(old), plain(new), *behind] for index, old, new in changed or [("", event.old, event.new)]
    ]
    return [[_cell(cell) for cell in row] for row in rows]


def show_events(history: History, options: argparse.Namespace) -> None:
    """One line an event, or more as CSV."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    if options.csv:
        table.writerow(COLUMNS.split())
    for event in history.events(options.name, since=options.since, until=options.until, run=options.run):
        if options.csv:
            table.writerows(event_rows(event))
        elif options.json:
            print(json.dumps(event_json(event)))
        else:
            line = f"{event.run}:{event.seq}  {event.summary}  by {event.where}"
            print(f"{stamp(event.timestamp_ns)}  {printable(line)}")


def show_runs(history: History, options: argparse.Namespace) -> None:
    """Two lines a run."""
    for run in history.runs:
        if options.json:
            print(json.dumps(vars(run)))
            continue
        end = stamp(run.end_ns) if run.end_ns else "now" if run.live else f"{stamp(run.last_commit_ns)} (not closed)"
        kept = f"{run.oldest_seq} to {run.newest_seq}" if run.newest_seq else "none"
        missed = f"  missed: {run.events_missed}" if run.events_missed else ""
        who = printable(f"run {run.run}  {run.program} ({run.pid}) on {run.host}")
        print(f"{who}  {stamp(run.start_ns)} to {end}\n       events kept: {kept}{missed}")


def region_line(region: RecordedRegion) -> str:
    """Its name, shape and events."""
    layout = f"{region.format or 'bytes'}{list(region.shape) if region.shape else ''}"
    events = f"events {region.first_seq} to {region.last_seq}"
    return printable(f"{region.run}  {region.name}  {layout}  {region.size_bytes} bytes  {events}")


def show_regions(history: History, options: argparse.Namespace) -> None:
    """One line a region."""
    for region in history.regions if options.run is None else history.regions_of(options.run):
        print(json.dumps(vars(region)) if options.json else region_line(region))


def show_value(history: History, options: argparse.Namespace) -> None:
    """One variable's value, at --seq, at --at, or the last."""
    value = history.value_at(options.value, seq=options.seq, time=options.at, run=options.run)
    if options.json:
        value = value.tolist() if hasattr(value, "tolist") else value
        print(json.dumps(value, default=repr))
    else:
        print("\n".join(printable(line) for line in str(value).split("\n")))


def misuse(options: argparse.Namespace) -> str:
    """What does not go together; "" when all does."""
    lists_events = options.value is None and not (options.runs or options.regions or options.check)
    if options.value is None and (options.seq is not None or options.at is not None):
        return "--seq and --at say when, for --value NAME"
    if not lists_events and (options.name or options.since is not None or options.until is not None):
        return "--name, --since and --until choose events: not with --runs, --regions, --value or --check"
    if not lists_events and options.csv:
        return "--csv lists events: not with --runs, --regions, --value or --check"
    return "--run goes with events, --regions and --value" if options.run and (options.runs or options.check) else ""


def run(options: argparse.Namespace) -> int:
    """The command's exit status."""
    wrong = misuse(options)
    if wrong:
        options.parser.error(wrong)
    with open_history(options.path) as history:
        if options.check:
            found = history.check()
            print("\n".join(map(printable, found)) or "ok")
            return 1 if found else 0
        if options.value is not None:
            show_value(history, options)
        elif options.runs:
            show_runs(history, options)
        elif options.regions:
            show_regions(history, options)
        else:
            show_events(history, options)
    return 0


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    history = command(
        commands,
        "history",
        run,
        help="read a recording",
        description="Reads a recording (history_path=): its events, runs, regions and values.",
        examples=[
            ("memwatch history service.mw --since 10m", "what changed in the last ten minutes"),
            ("memwatch history service.mw --value config --at 2026-11-22T22:00", "what a variable held then"),
            ("memwatch history service.mw --csv >events.csv", "the events as a table"),
        ],
    )
    history.add_argument("path", metavar="PATH")
    history.add_argument("--name", metavar="GLOB", help="events of regions with such names")
    history.add_argument("--since", type=moment, metavar="TIME", help="10m, 2h, a date and time, or seconds")
    history.add_argument("--until", type=moment, metavar="TIME", help="likewise: events before that")
    history.add_argument("--run", type=number, metavar="N", help="one run only")
    form = history.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="events as a table")
    what = history.add_mutually_exclusive_group()
    what.add_argument("--runs", action="store_true", help="list the runs")
    what.add_argument("--regions", action="store_true", help="list the regions")
    what.add_argument("--value", metavar="NAME", help="what that variable held")
    what.add_argument("--check", action="store_true", help="say whether the file is whole")
    when = history.add_mutually_exclusive_group()
    when.add_argument("--seq", type=number, help="with --value: after this event")
    when.add_argument("--at", type=moment, metavar="TIME", help="with --value: at this time")
