"""The Makefile tells what it can do, and does it quietly."""

import os
import re
import subprocess

import pytest

from .conftest import ROOT, WAIT_S

PROMISED = [
    "build",
    "install",
    "test",
    "demo",
    "examples",
    "bench",
    "lint",
    "clean",
    "help",
    "asan",
    "ubsan",
    "tsan",
    "fuzz",
    "soak",
    "stress",
    "stack",
]


def make(*arguments: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=5 * WAIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def documented() -> set[str]:
    return set(re.findall(r"^  make ([a-z0-9-]+) +\S", make("help"), re.MULTILINE))


@pytest.mark.parametrize("target", PROMISED)
def test_help_explains(target: str) -> None:
    assert target in documented()


def test_help_lists_every_target_that_is_for_people() -> None:
    makefile = (ROOT / "Makefile").read_text()
    people = makefile[: makefile.index("# --- what the targets above build")]
    phony = {name for line in re.findall(r"^\.PHONY: (.*)$", people, re.MULTILINE) for name in line.split()}
    assert phony == documented()


def test_a_second_build_does_nothing_and_says_nothing() -> None:
    make("build")
    assert make("build") == ""


def test_verbose_shows_the_commands(tmp_path) -> None:
    target = f"{tmp_path}/obj/native/src/base/base.o"
    assert make(f"B={tmp_path}", target).splitlines() == ["  CC     native/src/base/base.c"]
    os.unlink(target)
    assert " -o " in make(f"B={tmp_path}", "V=1", target)


def test_other_flags_build_again(tmp_path) -> None:
    target = f"{tmp_path}/obj/native/src/base/base.o"
    make(f"B={tmp_path}", target)
    assert make(f"B={tmp_path}", target) == ""
    assert "CC" in make(f"B={tmp_path}", "CFLAGS=-O0", target)
