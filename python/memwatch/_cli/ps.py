"""`memwatch ps`: who watches here, where it is asked, how much changes and what was lost."""

from __future__ import annotations

import argparse
import time
from typing import Any

from memwatch._cli import arguments
from memwatch._cli.client import Client
from memwatch._cli.find import chosen, look, no_watcher
from memwatch._cli.frame import OK, command, print_json, table
from memwatch._cli.targets import add_target, ask_each, say

HEAD = ("PID", "SERVICE", "WORKER", "ADDRESS", "VARIABLES", "CHANGES/S", "LOST")


def losses(status: dict[str, Any]) -> dict[str, int]:
    """What was lost, by reason; a ring that was full cost authors, not changes."""
    lost = {str(reason): int(n) for reason, n in status["dropped"].items()}
    lost["feeds_missed"] = int(status["feeds"]["missed"])
    lost["recorders_missed"] = sum(int(each["events_missed"]) for each in status["recorders"])
    return {reason: n for reason, n in lost.items() if n}


def rate(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Changes a second between two answers."""
    seconds = (after["now_ms"] - before["now_ms"]) / 1e3
    return (after["newest"] - before["newest"]) / seconds if seconds > 0 else 0.0


def rate_text(changes: float) -> str:
    """As much of it as one reads."""
    return f"{changes:.0f}" if changes >= 100 or changes == 0 else f"{changes:.1f}"


def run(options: argparse.Namespace) -> int:
    """The command's exit status."""
    seen = look()
    found = chosen(options.target, seen.found)
    say(seen)
    if not found:
        raise no_watcher(options.target, seen.found)

    def ask(client: Client) -> tuple[dict[str, Any], float]:
        before = client.json("/api/v1/status")
        if not options.seconds:
            up_s = max(before["now_ms"] - before["start_time_ms"], 1) / 1e3
            return before, before["newest"] / up_s
        time.sleep(options.seconds)
        after = client.json("/api/v1/status")
        return after, rate(before, after)

    rows = []
    for each, (status, changes) in ask_each(found, ask):
        lost = losses(status)
        pid = each.pid or status["pid"]
        if options.json:
            facts = {"pid": pid, "service": each.service, "worker": each.worker, "address": each.address}
            facts |= {"variables": status["regions"], "changes_per_second": round(changes, 3), "lost": lost}
            facts |= {"epoch": status["epoch"], "backend": status["backend"], "in_container": bool(each.container)}
            print_json({**facts, "file": each.file})
        reasons = ", ".join(f"{reason} {n}" for reason, n in lost.items()) or "0"
        rows.append([pid, each.service, each.worker, each.address, status["regions"], rate_text(changes), reasons])
    if not options.json:
        print("\n".join(table(HEAD, rows, right=(0, 4, 5))))
    return OK


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = command(
        commands,
        "ps",
        run,
        help="list the watchers of this machine, in containers too",
        description="Lists the processes that serve a watcher: yours, as root everybody's; also those in containers. "
        "Files that a crash left behind are passed over, with a word.",
        examples=[
            ("memwatch ps", "who watches here"),
            ("memwatch ps web", "the workers of one service"),
            ("memwatch ps --seconds 5", "changes a second of five seconds"),
            ("memwatch ps --json | jq .address", "for a program"),
        ],
        json_help="one object a watcher, on a line",
    )
    add_target(parser)
    parser.add_argument(
        "--seconds",
        type=arguments.seconds(0, 3600),
        default=0.5,
        metavar="N",
        help="how long changes are counted (0.5); 0: since its start",
    )
