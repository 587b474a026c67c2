"""The command line: `memwatch COMMAND`, or `python -m memwatch COMMAND`."""

from __future__ import annotations

import sys
from typing import Optional, Sequence

import memwatch
from memwatch._cli import attach, discover, doctor, history, hub, manual, open_page, ps, run, ship, tail, top, variables
from memwatch._cli.frame import Parser, run_command

#: What adds each command, in the order of `memwatch --help`.
COMMANDS = (
    ps.add,
    open_page.add,
    tail.add,
    top.add,
    variables.add_show,
    variables.add_value,
    variables.add_blame,
    run.add,
    attach.add_attach,
    attach.add_detach,
    ship.add,
    discover.add,
    hub.add,
    history.add,
    doctor.add,
)


def parser() -> Parser:
    """The command line."""
    root = Parser(
        prog="memwatch",
        description=(memwatch.__doc__ or "").splitlines()[0],
        epilog="memwatch COMMAND --help teaches a command, with examples.",
    )
    root.add_argument("--version", action="version", version=f"memwatch {memwatch.__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for add in COMMANDS:
        add(commands)
    manual.add_completion(commands, root)
    manual.add_manual(commands, root, memwatch.__version__)
    return root


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the command; its exit status."""
    return run_command(parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
