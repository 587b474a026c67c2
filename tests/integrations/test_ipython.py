"""`%memwatch` in a real IPython shell."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("IPython")

PROGRAM = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in (
    "%load_ext memwatch",
    "import memwatch; data = memwatch.buffer(16); number = 5",
    "%memwatch data",
    "data[3] = 7",
    "x = 1\\n\\ndata[4] = 8",
    "def change():\\n    data[5] = 9\\nchange()",
    "data = bytearray(4)",
    "data[0] = 1",
    "%memwatch",
    "%memwatch nothing number",
    "%memwatch -d data",
    "data[1] = 1",
    "%memwatch --odd",
    "%unload_ext memwatch",
):
    print("---", flush=True)
    shell.run_cell(cell, store_history=True)
"""


def test_says_which_cell() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    cells = [cell.strip() for cell in done.stdout.split("---\n")[1:]]
    assert len(cells) == 14, done.stdout + done.stderr
    assert cells[0:3] == ["", "", ""]
    assert "7" in cells[3] and cells[3].endswith("by In [4], line 1")
    assert cells[4].endswith("by In [5], line 3")
    assert cells[5].endswith("by change in In [6], line 2")
    assert cells[6] == "data: rebound"
    assert "data: " in cells[7] and "->" in cells[7]
    assert cells[8] == "data: bytearray"
    assert "there is no variable 'nothing'" in cells[9] and "number: int has no buffer" in cells[9]
    assert cells[10:12] == ["", ""]
    assert "%memwatch NAME" in cells[12]
    assert done.returncode == 0, done.stderr
