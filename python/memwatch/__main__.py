"""The command: `python -m memwatch history PATH` reads a recording, `... doctor` says what works on this machine."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from datetime import datetime
from typing import Any, Optional, Sequence

import memwatch
from memwatch import _doctor
from memwatch._recorded import History, RecordedEvent, RecordedRegion, open_history

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(text: str) -> float:
    """A time: "10m" (ago; s, m, h, d), seconds since the epoch, or a date and time in ISO format."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if ago:
        return time.time() - float(ago[1]) * UNITS[ago[2]]
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: 10m, 2h, 2026-11-22T22:00:00, 1795384800") from None


def stamp(ns: int) -> str:
    """Local time to the microsecond."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}.{rest // 1000:06}"


def shown(value: Any) -> Any:
    """A value as JSON can hold it: bytes in hexadecimal."""
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, float) and value != value:
        return "nan"
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


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
        "elements": [[list(each.index), shown(each.old), shown(each.new)] for each in event.elements],
        "old_preview": shown(event.old_preview),
        "new_preview": shown(event.new_preview),
        "where": {key: value for key, value in event.where.items() if value is not None and key != "frames"},
        "thread_id": event.thread_id,
        "thread_name": event.thread_name,
        "backend": event.backend,
    }


def show_events(history: History, options: argparse.Namespace) -> None:
    """One line an event."""
    for event in history.events(options.name, since=options.since, until=options.until, run=options.run):
        if options.json:
            print(json.dumps(event_json(event)))
        else:
            print(f"{stamp(event.timestamp_ns)}  {event.run}:{event.seq}  {event._summary()}  by {event.where}")


def show_runs(history: History, options: argparse.Namespace) -> None:
    """Two lines a run."""
    for run in history.runs:
        if options.json:
            print(json.dumps(vars(run)))
            continue
        end = stamp(run.end_ns) if run.end_ns else "now" if run.live else f"{stamp(run.last_commit_ns)} (not closed)"
        kept = f"{run.oldest_seq} to {run.newest_seq}" if run.newest_seq else "none"
        missed = f"  missed: {run.events_missed}" if run.events_missed else ""
        print(f"run {run.run}  {run.program} ({run.pid}) on {run.host}  {stamp(run.start_ns)} to {end}")
        print(f"       events kept: {kept}{missed}")


def region_line(region: RecordedRegion) -> str:
    """Its name, shape and events."""
    layout = f"{region.format or 'bytes'}{list(region.shape) if region.shape else ''}"
    events = f"events {region.first_seq} to {region.last_seq}"
    return f"{region.run}  {region.name}  {layout}  {region.size_bytes} bytes  {events}"


def show_regions(history: History, options: argparse.Namespace) -> None:
    """One line a region."""
    for region in history.regions if options.run is None else history.regions_of(options.run):
        print(json.dumps(vars(region)) if options.json else region_line(region))


def show_value(history: History, options: argparse.Namespace) -> None:
    """One variable's value, at --seq, at --at, or the last."""
    value = history.value_at(options.value, seq=options.seq, time=options.at, run=options.run)
    print(value.hex() if isinstance(value, bytes) else value)


def show_history(options: argparse.Namespace) -> int:
    """The command `history`."""
    with open_history(options.path) as history:
        if options.value is not None:
            show_value(history, options)
        elif options.runs:
            show_runs(history, options)
        elif options.regions:
            show_regions(history, options)
        else:
            show_events(history, options)
    return 0


def show_doctor(options: argparse.Namespace) -> int:
    """The command `doctor`: 1 when memory can only be polled here."""
    report = _doctor.report()
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print(_doctor.text(report))
    return 0 if report["native"] and report["backend"] != "poll" else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m memwatch", description=memwatch.__doc__)
    root.add_argument("--version", action="version", version=memwatch.__version__)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    history = commands.add_parser("history", help="read a recording", description="Reads a recording (history_path=).")
    history.add_argument("path", metavar="PATH")
    history.add_argument("--name", metavar="GLOB", help="events of regions with such names")
    history.add_argument("--since", type=moment, metavar="TIME", help="10m, 2h, a date and time, or seconds")
    history.add_argument("--until", type=moment, metavar="TIME")
    history.add_argument("--run", type=int, metavar="N", help="one run only")
    history.add_argument("--json", action="store_true", help="one JSON object a line")
    what = history.add_mutually_exclusive_group()
    what.add_argument("--runs", action="store_true", help="list the runs")
    what.add_argument("--regions", action="store_true", help="list the regions")
    what.add_argument("--value", metavar="NAME", help="what that variable held")
    when = history.add_mutually_exclusive_group()
    when.add_argument("--seq", type=int, help="with --value: after this event")
    when.add_argument("--at", type=moment, metavar="TIME", help="with --value: at this time")
    history.set_defaults(run_command=show_history)
    doctor = commands.add_parser("doctor", help="say what works on this machine, and what is missing for the rest")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run_command=show_doctor)
    return root


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the command; its exit status."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run_command(options))
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except (memwatch.Error, KeyError, ValueError) as error:
        print(f"memwatch: {error.args[-1]}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
