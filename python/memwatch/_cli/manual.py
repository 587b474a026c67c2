"""The manual page and the completions of shells: both are made from the parser, so that they cannot say anything else.

    python -m memwatch manual >docs/memwatch.1
"""

from __future__ import annotations

import argparse
import re
from typing import Any, Iterator, Sequence

from memwatch._cli.frame import OK, command

SHELLS = ("bash", "fish", "zsh")


def commands_of(root: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands by name."""
    [found] = [action for action in root._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


def helps_of(root: argparse.ArgumentParser) -> dict[str, str]:
    """What the list of commands says of each."""
    [found] = [action for action in root._actions if isinstance(action, argparse._SubParsersAction)]
    return {choice.dest: choice.help or "" for choice in found._choices_actions}


def shown_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options and arguments that a user is told of."""
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _help(action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": "memwatch"} if action.help else ""


# --- the manual page --------------------------------------------------------------------------------------------------


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"(?m)^\.", "\\&.", escaped)


def _names(action: argparse.Action) -> str:
    words = action.metavar or (action.dest.upper() if action.nargs != 0 and not action.choices else "")
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    value = choices or (words if isinstance(words, str) else " ".join(words))
    if not action.option_strings:
        return f"\\fI{_roff(value)}\\fR"
    names = ", ".join(f"\\fB{_roff(name)}\\fR" for name in action.option_strings)
    return f"{names} \\fI{_roff(value)}\\fR" if action.nargs != 0 and value else names


def _command_section(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f".SS {_roff(name)}"
    yield _roff(parser.description or "")
    for action in shown_actions(parser):
        yield from (".TP", _names(action), _roff(_help(action)))
    examples = re.findall(r"^  (\S.*?)(?:  +(.*))?$", (parser.epilog or "").split("\n\n")[0], re.M)
    yield ".PP"
    yield "Examples:"
    for line, what in examples:
        yield from (".TP", f"\\fB{_roff(line)}\\fR", _roff(what))
    yield ".PP"
    yield _roff((parser.epilog or "").split("\n\n")[-1])


HEAD = """\
.TH MEMWATCH 1 "" "memwatch {version}" "User Commands"
.SH NAME
memwatch \\- which variable changed, when, from what to what, and who wrote it
.SH SYNOPSIS
.B memwatch
.RB [ \\-h ]
.RB [ \\-\\-version ]
.I COMMAND
\\&...
.SH DESCRIPTION
The command line of the memwatch package for Python. It finds the processes of this machine that watch variables, shows
what changes in them and who writes, runs programs with their variables watched, and reads recordings.
.SH COMMANDS"""
TAIL = """\
.SH ENVIRONMENT
.TP
.BI MEMWATCH_ OPTION
An option of
.BR MemoryWatcher ,
in upper case, for programs that do not give it: MEMWATCH_BACKEND, MEMWATCH_WINDOW_MS, MEMWATCH_HISTORY_PATH and so on.
.TP
.B MEMWATCH_TOKEN
The token of a watcher that is named by its address and is not found on this machine.
.TP
.B NO_COLOR
No colours, on terminals too.
.TP
.B XDG_RUNTIME_DIR
Where watchers are looked for, beside /tmp/memwatch\\-UID.
.SH FILES
.TP
.I PREFIX/share/memwatch/grafana
Dashboards to import.
.TP
.I PREFIX/share/memwatch/prometheus
A scrape configuration, recording rules and alerts.
.SH SEE ALSO
.BR prometheus (1),
.BR gdb (1)"""


def manual(root: argparse.ArgumentParser, version: str) -> str:
    """The page, as man(1) takes it."""
    lines = [HEAD.format(version=version)]
    for name, parser in commands_of(root).items():
        lines += _command_section(name, parser)
    return "\n".join([*lines, TAIL]) + "\n"


# --- completions ------------------------------------------------------------------------------------------------------


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in shown_actions(parser) for name in action.option_strings]


def _choices(parser: argparse.ArgumentParser) -> Iterator[tuple[str, Sequence[str]]]:
    for action in shown_actions(parser):
        if action.choices:
            for name in action.option_strings or [""]:
                yield name, [str(choice) for choice in action.choices]


BASH = """\
# bash: source <(memwatch completion bash)
_memwatch() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words
    case ${{COMP_WORDS[1]}} in
{cases}
    *) words="{commands}" ;;
    esac
    [ "$COMP_CWORD" -gt 1 ] || words="{commands}"
    case "${{COMP_WORDS[1]}} $before" in
{values}
    *) ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete -o default -F _memwatch memwatch
"""


def _bash(root: argparse.ArgumentParser) -> str:
    commands = commands_of(root)
    cases = "\n".join(f'    {name}) words="{" ".join(_flags(parser))}" ;;' for name, parser in commands.items())
    values = "\n".join(
        f'    "{name} {flag or name}") words="{" ".join(choices)}" ;;'
        for name, parser in commands.items()
        for flag, choices in _choices(parser)
    )
    return BASH.format(cases=cases, commands=" ".join(commands), values=values)


def _fish(root: argparse.ArgumentParser) -> str:
    lines = ["# fish: memwatch completion fish | source", "complete -c memwatch -n __fish_use_subcommand -f"]
    helps = helps_of(root)
    for name, parser in commands_of(root).items():
        lines.append(f"complete -c memwatch -n __fish_use_subcommand -a {name} -d {_quoted(helps[name])}")
        for action in shown_actions(parser):
            names = action.option_strings
            flags = " ".join(f"-l {each[2:]}" if each[:2] == "--" else f"-s {each[1:]}" for each in names)
            value = f" -xa {_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
            value = value or (" -r" if action.nargs != 0 and flags else "")
            if flags or value:
                where = f"-n '__fish_seen_subcommand_from {name}'"
                about = _quoted(_help(action))
                lines.append(f"complete -c memwatch {where} {flags}{value} -d {about}".replace("  ", " "))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _zsh(root: argparse.ArgumentParser) -> str:
    return (
        "# zsh: source <(memwatch completion zsh)\nautoload -U +X bashcompinit && bashcompinit\n"
        + _bash(root).split("\n", 1)[1].replace(
            'mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")', 'COMPREPLY=($(compgen -W "$words" -- "$word"))'
        )
    )


def completion(root: argparse.ArgumentParser, shell: str) -> str:
    """What a shell has to run."""
    return {"bash": _bash, "fish": _fish, "zsh": _zsh}[shell](root)


# --- the commands -----------------------------------------------------------------------------------------------------


def add_completion(commands: Any, root: argparse.ArgumentParser) -> None:
    """Adds `memwatch completion`, which needs the whole parser."""

    def run(options: argparse.Namespace) -> int:
        print(completion(root, options.shell), end="")
        return OK

    parser = command(
        commands,
        "completion",
        run,
        help="print what makes a shell complete these commands",
        examples=[
            ("memwatch completion bash >>~/.bashrc", "for every bash from now on"),
            ("memwatch completion fish | source", "for this fish"),
        ],
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def add_manual(commands: Any, root: argparse.ArgumentParser, version: str) -> None:
    """Adds `memwatch manual`."""

    def run(_: argparse.Namespace) -> int:
        print(manual(root, version), end="")
        return OK

    command(
        commands,
        "manual",
        run,
        help="print the manual page",
        description="Prints the manual page: all commands with their options and examples.",
        examples=[("memwatch manual | man -l -", "to read"), ("memwatch manual >docs/memwatch.1", "to keep")],
    )
