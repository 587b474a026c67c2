"""Runs the stress of known authors in its short form; `make soak` runs it for as long as it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRUTH = Path(__file__).resolve().parent / "truth.py"
SECONDS = 20 if os.environ.get("MEMWATCH_STRESS") else 6
LIMIT_S = 300


@pytest.mark.timeout(LIMIT_S + 10)
@pytest.mark.parametrize("budget", ["0.01", "0"])
def test_what_is_said_of_a_write_is_true(budget: str) -> None:
    pytest.importorskip("numpy")
    command = [sys.executable, TRUTH, str(SECONDS), "--window", "5", "--budget", budget]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"
    runs = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(run["events"] > 0 for run in runs)
    for run in runs:
        if float(budget) and run["available"]:  # of variables with pages of their own, what one author has written
            assert run["single own exact"] > 0.85 * run["single own"], run
