"""The command: `python -m memwatch history PATH` reads a recording, `... doctor` says what works on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Optional, Sequence

import memwatch
from memwatch import _doctor
from memwatch import _history_command as history_command


def show_doctor(options: argparse.Namespace) -> int:
    """The command `doctor`."""
    if options.fix:
        print(_doctor.FIXES[options.fix])
        return 0
    report = _doctor.report()
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print(_doctor.text(report))
    return _doctor.status(report)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m memwatch", description=memwatch.__doc__)
    root.add_argument("--version", action="version", version=memwatch.__version__)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    history_command.add(commands)
    doctor = commands.add_parser(
        "doctor",
        help="say what works on this machine, and what is missing for the rest",
        description="Exit status: 0 changes and their writers are known, 1 changes are, 3 memory is polled, 4 there is "
        "no C extension.",
    )
    doctor.add_argument("--json", action="store_true", help="the facts, for a program")
    doctor.add_argument("--fix", choices=sorted(_doctor.FIXES), help="print the lines that help there")
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
