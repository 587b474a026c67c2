"""Runs the stress programs in their short form; `make soak` runs them for as long as it is told.

MEMWATCH_BUILD names the build tree (default: build); what is missing there is built first.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = os.environ.get("MEMWATCH_BUILD", "build")
BACKENDS = ("auto", "mprotect", "poll")
SKIPPED = 77
SECONDS = 20 if os.environ.get("MEMWATCH_STRESS") else 3
LIMIT_S = 300


def run(name: str, *arguments: object) -> None:
    """Runs a stress program, and skips where it says that this machine cannot."""
    program = ROOT / BUILD / "tests" / "stress" / name
    if not program.exists():
        subprocess.run(["make", "-s", f"B={BUILD}", program.relative_to(ROOT)], cwd=ROOT, check=True)
    result = subprocess.run(
        [program, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    if result.returncode == SKIPPED:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"


@pytest.mark.timeout(LIMIT_S + 10)
@pytest.mark.parametrize("backend", BACKENDS)
def test_everything_at_once(backend: str) -> None:
    run("race", SECONDS, backend)


@pytest.mark.timeout(LIMIT_S + 10)
@pytest.mark.parametrize("backend", BACKENDS)
def test_watchers_come_and_go_beside_a_thousand_threads(backend: str) -> None:
    run("cycles", 0, backend, 1000, 20)


@pytest.mark.skipif(BUILD.endswith("tsan"), reason="it delays signals, which then tell of another instruction")
@pytest.mark.timeout(LIMIT_S + 10)
def test_a_daemon_stays_flat_and_right() -> None:
    run("daemon", SECONDS)


@pytest.mark.timeout(LIMIT_S + 10)
def test_what_is_known_converges_to_memory() -> None:
    run("converge", SECONDS)
