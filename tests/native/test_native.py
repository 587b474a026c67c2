"""Runs the native tests, one pytest item for each TEST, and tests the runner that they are written with.

MEMWATCH_BUILD names the build tree (default: build); what is missing there is built first.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = os.environ.get("MEMWATCH_BUILD", "build")
SANITIZED = Path(BUILD).name in {"asan", "ubsan", "tsan"}
LIMIT_S = 180 if SANITIZED else 60


def programs() -> list[Path]:
    """Returns the test programs, built when they are not there."""
    found = [ROOT / BUILD / "tests" / "native" / source.stem for source in sorted(HERE.glob("*.c"))]
    if not SANITIZED and not all(program.exists() for program in found):
        subprocess.run(["make", "-s", "test-programs", f"B={BUILD}"], cwd=ROOT, check=True)
    return found


def run(program: Path, *arguments: str, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    """Runs a test program in the repository's root."""
    environment = dict(os.environ, MEMWATCH_TEST_LIMIT_S=str(limit_s))
    return subprocess.run(
        [program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes one item of each TEST of each program."""
    if "test" not in metafunc.fixturenames:
        return
    pairs = [(program, name) for program in programs() for name in run(program, "--list").stdout.split()]
    metafunc.parametrize(("program", "test"), pairs, ids=[f"{program.name}.{name}" for program, name in pairs])


@pytest.mark.timeout(LIMIT_S * 2)
def test_native(program: Path, test: str) -> None:
    result = run(program, test)
    if result.stdout.startswith("skip"):
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"
    assert result.stdout == f"ok {test}\n"


def test_every_program_has_tests() -> None:
    assert [program.name for program in programs() if not run(program, "--list").stdout.split()] == []


# --- the runner -------------------------------------------------------------------------------------------------------


@cache
def sample(directory: str) -> Path:
    """Compiles the program whose tests end in every way."""
    program = Path(directory) / "runner"
    source = HERE / "samples" / "runner.c"
    subprocess.run(["cc", "-std=gnu11", "-D_GNU_SOURCE=", f"-I{HERE}", "-o", program, source], check=True)
    return program


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample(str(tmp_path_factory.mktemp("runner")))


OUTCOMES = {
    "passes": "ok passes",
    "fails": "FAIL fails: exited with 1",
    "exits": "FAIL exits: exited with 3",
    "crashes": "FAIL crashes: died of signal 11 (Segmentation fault)",
    "hangs": "FAIL hangs: still running after 1 s",
    "skips": "skip skips",
    "dies_as_it_should": "ok dies_as_it_should",
    "dies_of_another_signal": "FAIL dies_of_another_signal: died of signal 15 (Terminated)",
    "does_not_die": "FAIL does_not_die: exited with 0, should have died of signal 6",
    "changes_the_process": "ok changes_the_process",
    "has_a_process_of_its_own": "ok has_a_process_of_its_own",
    "waits_in_vain": "FAIL waits_in_vain: exited with 1",
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_runner_tells_how_a_test_ended(runner: Path, name: str) -> None:
    result = run(runner, name, limit_s=1)
    assert result.stdout == OUTCOMES[name] + "\n"
    assert result.returncode == int(OUTCOMES[name].startswith("FAIL"))


def test_the_runner_runs_all_and_goes_on_after_a_failure(runner: Path) -> None:
    result = run(runner, limit_s=1)
    assert result.stdout.splitlines() == list(OUTCOMES.values())
    assert result.returncode == 1
    assert "runner.c:13: 1 + 1 == 3 is false: 2, 3" in result.stderr
    assert "left_by_the_test_before == 5 did not become true" in result.stderr


def test_the_runner_refuses_an_unknown_name(runner: Path) -> None:
    result = run(runner, "passes", "nonsense")
    assert result.returncode == 1
    assert result.stdout == "ok passes\n"
    assert "no such test" in result.stderr


def test_the_runner_lists(runner: Path) -> None:
    assert run(runner, "--list").stdout.split() == list(OUTCOMES)
