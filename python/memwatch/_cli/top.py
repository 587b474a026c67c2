"""`memwatch top`: the busiest variables, again and again: with textual where it is installed, else as a plain table."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import select
import shutil
import sys
import time
from typing import Any, Iterator, Optional

from memwatch._cli import arguments
from memwatch._cli.find import chosen, look, no_watcher
from memwatch._cli.frame import OK, coloured, command, print_json, shown, table
from memwatch._cli.rates import HEAD, Row, Sampler, losses_text, sorted_rows
from memwatch._cli.targets import add_target, say

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Samplers:
    """The watchers that are meant; those that come later, too."""

    def __init__(self, target: Optional[str]) -> None:
        self._target = target
        self._samplers: dict[str, Sampler] = {}
        seen = look()
        if not chosen(target, seen.found):
            say(seen)
            raise no_watcher(target, seen.found)
        self._keep(chosen(target, seen.found))

    def _keep(self, found: list[Any]) -> None:
        for each in found:
            key = each.epoch or each.address
            if key not in self._samplers:
                self._samplers[key] = Sampler(each)

    def sample(self) -> tuple[list[Row], str]:
        """The rows and the line of losses."""
        rows = [row for each in self._samplers.values() for row in each.rows()]
        for key, each in list(self._samplers.items()):
            if each.gone:
                each.close()
                del self._samplers[key]
        self._keep(chosen(self._target, look().found))
        return sorted_rows(rows), losses_text(list(self._samplers.values()))


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """The terminal's other screen, without a line being typed; what was there comes back."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None
    try:
        if before is not None:
            tty.setcbreak(sys.stdin)
        sys.stdout.write(_ENTER)
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _asked_to_end(seconds: float) -> bool:
    """Waits; whether q was typed meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not sys.stdin.isatty():
            time.sleep(left)
        elif select.select([sys.stdin], [], [], left)[0] and sys.stdin.read(1) in ("q", "\x04"):
            return True
    return False


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


def _frame(rows: list[Row], losses: str, seconds: float) -> str:
    width, height = shutil.get_terminal_size()
    head, *lines = table(HEAD, [row.cells() for row in rows[: max(height - 4, 1)]], right=(3,))
    summary = f"{len(rows)} variables, {sum(row.rate for row in rows):.0f} changes/s, {losses}"
    foot = f"every {seconds:g} s; q ends"
    parts = [_cut(shown(summary), width), head, *(_cut(line, width) for line in lines), coloured(foot, "dim")]
    return "\x1b[H" + "".join(f"{part}\x1b[K\n" for part in parts) + "\x1b[J"


def _print_once(options: argparse.Namespace, samplers: Samplers) -> None:
    samplers.sample()
    time.sleep(options.seconds)
    rows, losses = samplers.sample()
    if options.json:
        for row in rows:
            print_json(row._asdict())
        return
    print("\n".join(table(HEAD, [row.cells() for row in rows], right=(3,))))
    print(shown(losses))


def _run_plain(options: argparse.Namespace, samplers: Samplers) -> None:
    with _screen():
        while True:
            rows, losses = samplers.sample()
            sys.stdout.write(_frame(rows, losses, options.seconds))
            sys.stdout.flush()
            if _asked_to_end(options.seconds):
                return


def run(options: argparse.Namespace) -> int:
    """The command's exit status."""
    samplers = Samplers(options.target)
    if options.once or options.json or not sys.stdout.isatty():
        _print_once(options, samplers)
    elif options.plain or importlib.util.find_spec("textual") is None:
        _run_plain(options, samplers)
    else:
        from memwatch._cli.top_screen import run_screen

        run_screen(samplers.sample, options.seconds)
    return OK


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = command(
        commands,
        "top",
        run,
        help="show the busiest variables: rates, values, last writers, losses",
        description="Shows the busiest variables, again and again. With textual (pip install 'memwatch[top]') it can "
        "be scrolled and sorted; without, it is a plain table. Where stdout is no terminal it prints one and ends.",
        examples=[
            ("memwatch top", "of all watchers here"),
            ("memwatch top web --seconds 5", "of a service, over five seconds"),
            ("memwatch top --once --json", "one look, for a program"),
        ],
        json_help="one object a variable, on a line, and end",
    )
    add_target(parser)
    parser.add_argument(
        "--seconds", type=arguments.seconds(0.1, 3600), default=1.0, metavar="N", help="between two looks (1)"
    )
    parser.add_argument("--once", action="store_true", help="print one table and end")
    parser.add_argument("--plain", action="store_true", help="the plain table, also where textual is installed")
