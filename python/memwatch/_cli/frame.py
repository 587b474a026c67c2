"""What the commands share: how one is added, exit statuses, colours, text of others on a terminal, tables.

DESIGN  A command is a module with `add(commands)`, which calls `command()` here, and a function `run(options)`. It
prints to stdout what was asked for and to stderr what went wrong. Names, files and values are others' text: `shown()`
keeps them from moving a cursor or forging a line.
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import sys
from typing import IO, Any, Callable, Iterable, NoReturn, Optional, Sequence

from memwatch._errors import printable

#: Exit statuses. `doctor` has others of its own, and `run` has its program's.
OK, PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130

STATUSES = "Exit status: 0 done, 1 something went wrong or nothing was found, 2 the command was not understood."

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


shown = printable


class Failure(Exception):
    """Ends a command with exit status 1 and this sentence."""


class Parser(argparse.ArgumentParser):
    """One that offers what was perhaps meant."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.suggest_on_error = False  # from 3.14 on argparse has words of its own for that

    def error(self, message: str) -> NoReturn:
        """Exit status 2."""
        before, found, rest = message.partition("invalid choice: ")
        if found:
            word, _, choices = rest.partition(" (choose from ")
            names = [name.strip("' ") for name in choices.rstrip(")").split(",")]
            near = difflib.get_close_matches(word.strip("'"), names, 1)
            message = f"{before}there is no {shown(word)}" + (f"; did you mean {near[0]!r}?" if near else "")
            message += f"; there are {', '.join(names)}" if not near else ""
        elif message == "the following arguments are required: COMMAND":
            self.print_help(sys.stderr)
            self.exit(USAGE)
        self.exit(USAGE, f"{self.prog}: {shown(message)}\nTry '{self.prog} --help'.\n")


def command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,
    description: str = "",
    examples: Sequence[tuple[str, str]],
    statuses: str = STATUSES,
    json_help: Optional[str] = None,
) -> argparse.ArgumentParser:
    """Adds a command; its parser. `examples` are lines to type and what they do."""
    width = max(len(line) for line, _ in examples)
    lines = "\n".join(f"  {line:<{width}}  {what}".rstrip() for line, what in examples)
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description or help[0].upper() + help[1:] + ".",
        epilog=f"Examples:\n{lines}\n\n{statuses}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if json_help is not None:
        parser.add_argument("--json", action="store_true", help=json_help)
    parser.set_defaults(run_command=run, parser=parser)
    return parser


# --- out --------------------------------------------------------------------------------------------------------------


def has_colours(stream: IO[str]) -> bool:
    """On terminals only, and there not for who has NO_COLOR set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str, stream: Optional[IO[str]] = None) -> str:
    """The text in a colour, where the stream shows colours."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if has_colours(stream or sys.stdout) else text


def table(head: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> list[str]:
    """Lines with columns; `right` are the columns of numbers."""
    cells = [[shown(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *cells]) for column in range(len(head))]
    numbers = set(right)

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        return "  ".join(padded).rstrip()

    return [coloured(line(head), "bold"), *(line(row) for row in cells)]


def print_json(value: Any) -> None:
    """One object, on one line: what `--json` prints."""
    print(json.dumps(value, default=repr))


def complain(sentence: str) -> None:
    """A line on stderr."""
    print(f"{coloured('memwatch:', 'red', sys.stderr)} {shown(sentence)}", file=sys.stderr)


# --- in ---------------------------------------------------------------------------------------------------------------


def open_closed_streams() -> None:
    """Where a shell closed stdout or stderr (`>&-`) Python has none: what is printed goes nowhere.

    A program that `run` starts finds them closed, as it would by itself: this descriptor ends with exec.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # until the end


def take_any_text() -> None:
    """Names may hold letters that the user's locale has not: they are shown by their numbers."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def quiet_stdout() -> None:
    """After a broken pipe: what is left in the buffer goes nowhere, and nothing complains at exit."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)


def sentence_of(error: BaseException) -> str:
    """What an exception says, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error.args[-1]) if error.args else type(error).__name__


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """What was typed. Behind `--` begins what is another program's, which argparse would not leave as it is."""
    words = list(arguments)
    at = words.index("--") if "--" in words and words[:1] == ["run"] else len(words)
    options = parser.parse_args(words[:at])
    options.behind = words[at + 1 :] if at < len(words) else None
    return options


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Runs what was typed; the exit status."""
    open_closed_streams()
    take_any_text()
    options = parsed(parser, arguments)
    try:
        status = int(options.run_command(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        quiet_stdout()
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
    except (Failure, OSError, KeyError, ValueError) as error:
        complain(sentence_of(error))
        return PROBLEM
