"""`memwatch doctor`: what works on this machine."""

from __future__ import annotations

import argparse
import json
from typing import Any

from memwatch import _doctor
from memwatch._cli.frame import command


def run(options: argparse.Namespace) -> int:
    """The command's exit status."""
    if options.fix:
        print(_doctor.FIXES[options.fix])
        return 0
    report = _doctor.report()
    print(json.dumps(report, indent=2) if options.json else _doctor.text(report))
    return _doctor.status(report)


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = command(
        commands,
        "doctor",
        run,
        help="say what works on this machine, and what is missing for the rest",
        examples=[
            ("memwatch doctor", "which backend is taken, who can be named, and what to do about the rest"),
            ("memwatch doctor --fix docker", "the lines that help in a container"),
        ],
        statuses="Exit status: 0 changes and their writers are known, 1 changes are, 3 memory is polled, 4 there is no "
        "C extension.",
        json_help="the facts, for a program",
    )
    parser.add_argument("--fix", choices=sorted(_doctor.FIXES), help="print the lines that help there")
