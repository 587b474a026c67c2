"""Runs the table of hostile hosts: what hosts do, times the backends, each cell in a process of its own.

The C hosts are the programs beside this file, one TEST a cell. The Python hosts are in hosts.py, a function each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = ROOT / os.environ.get("MEMWATCH_BUILD", "build")
LIMIT_S = 60

sys.path.insert(0, str(HERE))
import hosts  # noqa: E402


def programs() -> list[Path]:
    """Returns the C programs, built when they are not there."""
    found = [BUILD / "tests" / "hostile" / source.stem for source in sorted(HERE.glob("*.c"))]
    if not all(program.exists() for program in found):
        subprocess.run(["make", "-s", "test-programs"], cwd=ROOT, check=True)
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a host in the repository's root."""
    environment = dict(os.environ, MEMWATCH_TEST_LIMIT_S=str(LIMIT_S), PYTHONPATH=str(ROOT / "python"))
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=2 * LIMIT_S
    )


def c_cells() -> list[tuple[Path, str]]:
    """Returns each program with each of its tests."""
    return [(program, name) for program in programs() for name in run(program, "--list").stdout.split()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes an item of each cell."""
    if "cell" in metafunc.fixturenames:
        metafunc.parametrize("cell", c_cells(), ids=lambda cell: f"{cell[0].name}.{cell[1]}")


@pytest.mark.timeout(LIMIT_S * 3)
def test_c_host(cell: tuple[Path, str]) -> None:
    result = run(*cell)
    if result.stdout.startswith("skip"):
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"


@pytest.mark.timeout(LIMIT_S * 3)
@pytest.mark.parametrize("backend", hosts.BACKENDS)
@pytest.mark.parametrize("behaviour", hosts.BEHAVIOURS)
def test_python_host(behaviour: str, backend: str) -> None:
    result = run(sys.executable, HERE / "hosts.py", behaviour, backend)
    if result.returncode == hosts.SKIPPED:
        pytest.skip(result.stdout.strip())
    wanted = hosts.BEHAVIOURS[behaviour].dies_of
    assert result.returncode == -wanted, f"{result.stdout}{result.stderr}"
