"""docs/limits.md names the test of each of its lines; each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMITS = (ROOT / "docs/limits.md").read_text()
NOT_TESTED = "(not tested)"
C_TESTS = re.compile(r"^(?:BACKEND_)?TEST\((\w+)|^BEHAVIOUR\((\w+)|^BEHAVIOUR_OF\(\w+, (\w+)", re.MULTILINE)
PYTHON_TESTS = re.compile(r"^(?:async )?def (test_\w+)|^@behaviour\(.*\)\ndef (\w+)", re.MULTILINE)


def lines() -> list[str]:
    """Returns each item of a list and each row of the table, on one line."""
    items = re.findall(r"^- .*(?:\n  .*)*", LIMITS, re.MULTILINE)
    rows = [row for row in re.findall(r"^\| .*\|$", LIMITS, re.MULTILINE) if not row.startswith("| |")]
    return [" ".join(item.split()) for item in items + rows]


def there() -> set[str]:
    """Returns the names of all tests and behaviours, and the files that hold them."""
    names: set[str] = set()
    for path in (ROOT / "tests").rglob("*.[cp]*"):
        if path.suffix in (".c", ".py"):
            found = (C_TESTS if path.suffix == ".c" else PYTHON_TESTS).findall(path.read_text())
            names.update(name for match in found for name in match if name)
            if found:
                names.add(str(path.relative_to(ROOT)))
    return names


def named(line: str) -> list[str]:
    """Returns the tests that a line names: in parentheses, or in a cell, of nothing else."""
    groups = re.findall(r"[(|] ?((?:`[\w/.]+`(?:, )?)+) ?[)|]", line)
    names = re.findall(r"`([\w/.]+)`", " ".join(groups))
    return [name for name in names if name.startswith("tests/") or name.count("_") > 1]


def test_each_line_names_its_test() -> None:
    assert len(lines()) > 40
    silent = [line for line in lines() if not named(line) and not line.endswith(NOT_TESTED)]
    assert not silent, "\n".join(silent)


def test_each_test_that_is_named_is_there() -> None:
    known = there()
    missing = [name for line in lines() for name in named(line) if name not in known]
    assert not missing, missing
