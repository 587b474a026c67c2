"""The command line: `memwatch COMMAND`, or `python -m memwatch COMMAND`."""

from __future__ import annotations

import importlib
import sys
from typing import Mapping, Optional, Sequence

import memwatch
from memwatch._cli import manual
from memwatch._cli.frame import Parser, run_command

#: The file of each command and what adds it, in the order of `memwatch --help`.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "ps": ("ps", "add"),
    "open": ("open_page", "add"),
    "tail": ("tail", "add"),
    "top": ("top", "add"),
    "show": ("variables", "add_show"),
    "value": ("variables", "add_value"),
    "blame": ("variables", "add_blame"),
    "run": ("run", "add"),
    "attach": ("attach", "add_attach"),
    "detach": ("attach", "add_detach"),
    "ship": ("ship", "add"),
    "discover": ("discover", "add"),
    "hub": ("hub", "add"),
    "history": ("history", "add"),
    "doctor": ("doctor", "add"),
}


def parser(only: Optional[str] = None) -> Parser:
    """The command line. `only`: with that command alone, if there is one of that name.

    Most of the time that a short command takes is the import of the others.
    """
    root = Parser(
        prog="memwatch",
        description=(memwatch.__doc__ or "").splitlines()[0],
        epilog="memwatch COMMAND --help teaches a command, with examples.",
    )
    root.add_argument("--version", action="version", version=f"memwatch {memwatch.__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name in [only] if only is not None and only in COMMANDS else COMMANDS:
        module, add = COMMANDS[name]
        getattr(importlib.import_module(f"memwatch._cli.{module}"), add)(commands)
    manual.add_completion(commands, root)
    manual.add_manual(commands, root, memwatch.__version__)
    return root


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the command; its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    return run_command(parser(words[0] if words else None), words)


if __name__ == "__main__":
    sys.exit(main())
