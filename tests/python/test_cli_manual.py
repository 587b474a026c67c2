"""The manual page and the completions say what the parser knows."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import memwatch
from memwatch.__main__ import main, parser
from memwatch._cli import manual

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "memwatch.1"


def printed(capsys, *arguments):
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_the_page_that_is_kept_is_the_one_that_is_made():
    """When it is not: python -m memwatch manual >docs/memwatch.1."""
    assert PAGE.read_text() == manual.manual(parser(), memwatch.__version__)


def test_the_page_names_every_command_and_option():
    page = PAGE.read_text().replace("\\-", "-")
    for name, each in manual.commands_of(parser()).items():
        assert f"\n.SS {name}\n" in page
        for action in each._actions:
            assert all(f"\\fB{flag}\\fR" in page for flag in action.option_strings)


@pytest.mark.skipif(shutil.which("groff") is None and shutil.which("man") is None, reason="no groff here")
def test_the_page_is_read_without_a_warning():
    command = ["groff", "-man", "-Tutf8", "-ww", "-z"] if shutil.which("groff") else ["man", "--warnings", "-l"]
    done = subprocess.run([*command, PAGE], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["memwatch", "his"], "history"),
        (["memwatch", "tail", "--si"], "--since"),
        (["memwatch", "doctor", "--fix", "do"], "docker"),
        (["memwatch", "completion", "z"], "zsh"),
    ],
)
def test_bash_completes(capsys, words, expected):
    script = printed(capsys, "completion", "bash")
    line = " ".join(f"'{word}'" for word in words)
    script += f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _memwatch; echo \"${{COMPREPLY[*]}}\"\n"
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=60, check=True)
    assert expected in done.stdout.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_it(capsys, shell):
    script = printed(capsys, "completion", shell)
    assert "tail" in script and "since" in script
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n", "/dev/stdin"], input=script, text=True, timeout=60, check=True)


def test_a_shell_that_is_not_known():
    done = subprocess.run(
        [sys.executable, "-m", "memwatch", "completion", "bsh"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and "did you mean 'bash'?" in done.stderr
