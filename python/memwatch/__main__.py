"""The command line: `memwatch COMMAND`, or `python -m memwatch COMMAND`."""

from __future__ import annotations

import sys
from typing import Optional, Sequence

import memwatch
from memwatch._cli import doctor, history
from memwatch._cli.frame import Parser, run_command

#: In the order of `memwatch --help`.
COMMANDS = (history, doctor)


def parser() -> Parser:
    """The command line."""
    root = Parser(
        prog="memwatch",
        description=memwatch.__doc__,
        epilog="memwatch COMMAND --help teaches a command, with examples.",
    )
    root.add_argument("--version", action="version", version=f"memwatch {memwatch.__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for each in COMMANDS:
        each.add(commands)
    return root


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the command; its exit status."""
    return run_command(parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
