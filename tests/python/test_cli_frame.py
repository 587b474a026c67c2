"""The command line's frame: help that teaches, exit statuses, colours, pipes, interrupts, text of others."""

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from memwatch.__main__ import main, parser
from memwatch._cli import frame

[_commands] = [action for action in parser()._actions if action.dest == "command"]
NAMES = list(_commands.choices)


def shell(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "memwatch", *arguments],
        capture_output=True, text=True, timeout=60, check=False, **options
    )  # fmt: skip


def help_of(name):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_each_command_has_examples_and_exit_statuses(name, capsys):
    help_of(name)
    text = capsys.readouterr().out
    assert re.search(rf"^Examples:\n  memwatch {name}\b", text, re.M), text
    assert "Exit status:" in text
    assert "  -h, --help" in text


@pytest.mark.parametrize("name", NAMES)
def test_each_option_says_what_it_does(name):
    for action in _commands.choices[name]._actions:
        assert action.help or not action.option_strings, f"{name} {action.option_strings} has no help"


def test_each_example_is_understood():
    """What the help tells to type is never a usage error."""
    for name, each in _commands.choices.items():
        examples = re.findall(r"^  memwatch (.*?)(?:  .*)?$", each.epilog, re.M)
        assert examples, name
        for example in examples:
            words = re.sub(r"\s*[|>].*", "", example).split()
            frame.parsed(parser(), [word.strip("'\"") for word in words])


@pytest.mark.parametrize(
    "words",
    [
        "discover --listen 99999", "discover --listen -1", "run --port 99999 --watch a:b -- x.py",
        "attach 1 --port 1.5 --watch a:b", "attach 0 --watch a:b", "attach -1 --watch a:b", "attach x --check",
        "detach 99999999999", "detach 1 --timeout -1", "detach 1 --timeout nan", "ps --seconds -1", "ps --seconds nan",
        "top --seconds inf", "top --seconds x", "tail --since x", "tail --since -1", "tail --since 1e300",
        "tail --since 1e15", "value x --at 1e17",
        "tail -n -1", "tail ftp://there", "tail http://there:99999", "tail http://there:x", "tail http://[::1",
        "show http://there:0", "value x --at y", "value x --seq -1", "history x --run -1", "history x --until z",
        "ship", "ship --to kafka://there", "ship --to otlp+http://", "ship --to otlp+http://there:99999",
        "ship --to otlp+http:there", "ship --to nats://there:4222,nats://there:nowhere", "ship --to nats:there",
        "ship --to f http://there:99999", "ship --to f --metrics here", "ship --to f --metrics 99999",
        "ship --to f --header odd", "ship --to f --give-up-after -1", "open http://", "completion tcsh",
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_usage_error(words, monkeypatch, capsys):
    """Seen by looking at it alone: nothing is looked for, and nothing done."""
    monkeypatch.delenv("MEMWATCH_SHIP_TO", raising=False)
    with pytest.raises(SystemExit) as end:
        main(words.split())
    assert end.value.code == frame.USAGE
    said, hint = capsys.readouterr().err.splitlines()
    assert said.startswith("memwatch") and "--help'" in hint


def test_a_command_does_not_import_the_others():
    """`attach` and `ps` are done in less time than an import of the hub's event loop takes."""
    program = (
        "import sys; from memwatch.__main__ import main\n"
        "try: main(['attach', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('memwatch._cli.hub', 'memwatch._ship.otlp', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_a_command_the_help_comes_and_the_status_is_that_of_misuse():
    done = shell()
    assert done.returncode == frame.USAGE
    assert "history" in done.stderr and "doctor" in done.stderr


@pytest.mark.parametrize(("typed", "meant"), [("histroy", "history"), ("docter", "doctor")])
def test_a_word_that_is_nearly_a_command(typed, meant):
    done = shell(typed)
    assert done.returncode == frame.USAGE
    assert f"did you mean '{meant}'?" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_word_that_is_no_command_names_all():
    done = shell("\x1b]0;owned\x07")
    assert done.returncode == frame.USAGE
    assert "doctor" in done.stderr and "\x1b" not in done.stderr


def test_a_closed_pipe_is_no_error(tmp_path):
    """As of `memwatch ... | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "memwatch", "doctor", "--json"],
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )  # fmt: skip
    os.close(write)
    assert done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(closed):
    command = f"{sys.executable} -m memwatch discover --directory /nonexistent {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupted(_options):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("memwatch._cli.doctor.run", interrupted)
    assert main(["doctor"]) == frame.INTERRUPTED
    assert capsys.readouterr().err == ""


def test_colours_are_for_terminals(monkeypatch):
    ours, theirs = pty.openpty()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal, open(os.devnull, "w") as file:
        assert frame.coloured("word", "red", terminal) == "\x1b[31mword\x1b[0m"
        assert frame.coloured("word", "red", file) == "word"
        monkeypatch.setenv("NO_COLOR", "1")
        assert frame.coloured("word", "red", terminal) == "word"
        monkeypatch.setenv("NO_COLOR", "")
        monkeypatch.setenv("TERM", "dumb")
        assert frame.coloured("word", "red", terminal) == "word"
    os.close(ours)


def test_a_table_shows_no_command_to_the_terminal():
    lines = frame.table(["NAME", "N"], [["a\x1b[31m\nforged", 7], ["b\u202e", 1234]], right=[1])
    assert "\x1b" not in "".join(lines) and "\u202e" not in "".join(lines)
    assert [len(lines), lines[1].endswith("   7"), lines[2].endswith("1234")] == [3, True, True]
