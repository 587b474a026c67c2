"""`memwatch run`: a program, watched without a change to it.

DESIGN  The program is not run by us: this process becomes it, by exec, so that its arguments, signals, tracebacks,
exit status and process id are its own. What watches is started in it by `hook/sitecustomize.py`, which is found by
way of PYTHONPATH and told by an environment variable; both are taken away before the program begins.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from typing import Any

from memwatch._cli import plan as plans
from memwatch._cli.frame import Failure, command

HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook")
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _interpreter() -> list[str]:
    given = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]  # -X dev -m memwatch, or -X dev bin/memwatch
    flags = given[:-2] if given[-2:-1] == ["-m"] else given[:-1]
    if sys.flags.ignore_environment or sys.flags.no_site:
        raise Failure("this Python ignores its environment (-I, -E or -S), by which the program is told what to watch")
    return [sys.executable, *flags]


def program(words: list[str], parser: Any) -> tuple[list[str], list[str]]:
    """What to execute, and what the program that runs as __main__ is called."""
    if not words:
        parser.error("no program: memwatch run --watch app:limit -- script.py ARGUMENT...")
    if words[0] == "-m":
        if len(words) < 2:
            parser.error("-m needs a module")
        return [*_interpreter(), *words], [words[1]]
    if words[0].startswith("-"):
        parser.error(f"{words[0]!r} stands where the program should; the options of run come before --")
    stem = os.path.splitext(os.path.basename(words[0].rstrip("/")))[0]
    if os.path.exists(words[0]):
        return [*_interpreter(), *words], [stem]
    found = shutil.which(words[0])
    if found is None:
        raise Failure(f"there is no file {words[0]}, and no such command")
    if os.path.basename(found).startswith("python"):
        names = words[words.index("-m") + 1 :][:1] if "-m" in words else [_stem(word) for word in words[1:2]]
        return [found, *words[1:]], names
    return [found, *words[1:]], [stem]


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def run(options: argparse.Namespace) -> int:
    """Does not come back: the exit status is the program's."""
    words = ["-m", *options.module] if options.module is not None else options.program
    if options.behind is not None:
        words = [*words, "--", *options.behind] if words else options.behind
    plan = plans.made(options)
    arguments, main = program(words, options.parser)
    before = os.environ.get("PYTHONPATH")
    plan |= {"main": main, "pid": os.getpid(), "pythonpath": before, "package": PACKAGE}
    plan |= {"children": options.follow_children, "quiet": options.quiet, "print": options.print}
    if options.follow_children:
        plan["watcher"].setdefault("follow_fork", True)
    environ = {
        **os.environ,
        "PYTHONPATH": HOOK if before is None else f"{HOOK}{os.pathsep}{before}",
        "MEMWATCH_RUN": json.dumps(plan),
    }
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(arguments[0], arguments, environ)
    except OSError as error:
        raise Failure(f"{arguments[0]}: {error.strerror}") from None


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = command(
        commands,
        "run",
        run,
        help="run a program and watch variables of it, without a change to it",
        description="Runs a program as Python would, and watches variables of its modules from when they are imported; "
        "rebinding is followed. What runs as __main__ is also called by its file's name.",
        examples=[
            ("memwatch run --watch app.settings:limit -- script.py --its-own-option", "one variable of a module"),
            ("memwatch run --all app.settings -m app", "all of a module, in a program that is one"),
            ("memwatch run --config memwatch.toml -- script.py", "by a file"),
            ("memwatch run --watch app:state --follow-children -- gunicorn -w 4 app:app", "in its workers, too"),
            ("memwatch run --watch 'script:*' --print --no-serve -- script.py", "to look at once"),
        ],
        statuses="Exit status: the program's; 2 when this command was not understood.",
    )
    parser.usage = "%(prog)s [OPTION...] (--watch MODULE:VAR | --all MODULE | --config FILE)... -- SCRIPT [ARGUMENT...]"
    plans.add_arguments(parser)
    parser.add_argument("--follow-children", action="store_true", help="watch in Python processes that it starts, too")
    parser.add_argument("--print", action="store_true", help="print events to stderr as they happen")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing of where the page is")
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, help="run a module as python -m does; the rest is its own"
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="SCRIPT", help="the program, and what is its own")
