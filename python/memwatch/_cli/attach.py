"""`memwatch attach` and `memwatch detach`: watch variables of a process that runs already, and leave it as it was."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from typing import Any, Iterator

from memwatch._cli import arguments
from memwatch._cli import plan as plans
from memwatch._cli.frame import OK, PROBLEM, Failure, coloured, command, complain, print_json, shown
from memwatch._cli.inject import run_inside
from memwatch._cli.preflight import Target, checks, target_of


def _checked(pid: int) -> Target:
    for check in checks(pid):
        if not check.good:
            raise Failure(check.sentence)
    return target_of(pid)


@contextlib.contextmanager
def _orderly() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as Ctrl-C does: what is under way in the process comes to its end first."""

    def end(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_checks(pid: int, as_json: bool) -> int:
    found = list(checks(pid))
    for check in found:
        if as_json:
            print_json(check._asdict())
        else:
            word = coloured("ok", "green") if check.good else coloured("no", "red")
            print(f"{word}  {shown(check.sentence)}")
    return OK if all(check.good for check in found) else PROBLEM


def run_attach(options: argparse.Namespace) -> int:
    """The status of `memwatch attach`."""
    if options.check:
        return _print_checks(options.pid, options.json)
    plan = plans.made(options)
    with _orderly():
        said = run_inside(_checked(options.pid), "attach", {**plan, "quiet": True}, options.timeout)
    if options.json:
        print_json(said)
        return OK if said["watched"] else PROBLEM
    for name, why in said["refused"].items():
        complain(f"{name} is not watched: {why}")
    for name in said["missing"]:
        complain(f"{name} is not there yet: no such module is imported, or it has no such variable; it is waited for")
    if said["note"]:
        complain(said["note"])
    where = f", {said['page']}" if said["page"] else ""
    print(shown(f"{len(said['watched'])} variables watched in process {options.pid}{where}"))
    return OK if said["watched"] else PROBLEM


def run_detach(options: argparse.Namespace) -> int:
    """The status of `memwatch detach`."""
    with _orderly():
        said = run_inside(_checked(options.pid), "detach", None, options.timeout)
    if options.json:
        print_json(said)
    elif said["was_attached"]:
        print(f"process {options.pid} is left as it was")
    if not said["was_attached"]:
        complain(f"nothing was attached to process {options.pid}: what the program watches itself is its own")
        return PROBLEM
    return OK


def _pid(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 22:
        raise argparse.ArgumentTypeError(f"{text!r} is no process id")
    return int(text)


def _add_both(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", type=_pid, metavar="PID", help="the process")
    parser.add_argument(
        "--timeout", type=arguments.seconds(0.1, 3600), default=15.0, metavar="N", help="seconds to wait for it (15)"
    )


def add_attach(commands: Any) -> None:
    """Adds `memwatch attach`."""
    parser = command(
        commands,
        "attach",
        run_attach,
        help="watch variables of a process that runs already",
        description="Has a running Python process watch variables of its modules. From Python 3.14 on its interpreter "
        "is asked (sys.remote_exec); before, gdb brings a few lines in at a safe point. What may be missing is checked "
        "first.",
        examples=[
            ("memwatch attach 4711 --watch app.settings:limit", "then memwatch tail 4711, and memwatch detach 4711"),
            ("memwatch attach 4711 --config memwatch.toml", "by a file"),
            ("memwatch attach 4711 --check", "only say whether it could be done"),
        ],
        json_help="what became of it, as an object",
    )
    _add_both(parser)
    plans.add_arguments(parser)
    parser.add_argument("--check", action="store_true", help="say what is missing, and do nothing")


def add_detach(commands: Any) -> None:
    """Adds `memwatch detach`."""
    parser = command(
        commands,
        "detach",
        run_detach,
        help="end what attach began",
        description="Ends the watching that attach began: its threads, descriptors and signal handlers go. The modules "
        "of memwatch stay imported.",
        examples=[("memwatch detach 4711", "the process goes on as before")],
        json_help="what became of it, as an object",
    )
    _add_both(parser)
