"""Every public function has its row in the table CALLS of memwatch.h, and test_calls.c makes the call."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADERS = sorted(ROOT.glob("*/include/memwatch/*.h"))


def public_functions() -> list[str]:
    """As C programs call them: without the prefix, and without the size that the header adds."""
    text = "".join(path.read_text(encoding="utf-8") for path in HEADERS)
    names = re.findall(r"^MEMWATCH_API [^;]*?\bmemwatch_(\w+)\(", text, re.MULTILINE)
    return sorted({name.removesuffix("_sized") for name in names})


def rows() -> list[str]:
    """The first column of the table, where functions are named or their names' beginning or end."""
    text = (ROOT / "native/include/memwatch/memwatch.h").read_text(encoding="utf-8")
    table = re.search(r"^ \*   call  +thread.*?\n(.*?)^ \*\n", text, re.DOTALL | re.MULTILINE)
    assert table, "memwatch.h has no table of calls"
    columns = " ".join(line[2:36] for line in table.group(1).splitlines())
    return re.findall(r"[\w*]+", columns)


def test_the_table_is_read() -> None:
    assert {"open", "region_*", "*_list", "location_intern", "recorder_*"} <= set(rows())
    assert {"open", "region_list", "event_text", "exporter_url", "threads_stop"} <= set(public_functions())


@pytest.mark.parametrize("name", public_functions())
def test_a_public_function(name: str) -> None:
    assert any(fnmatchcase(name, row) for row in rows()), f"memwatch_{name} has no row in CALLS, memwatch.h"
    called = (ROOT / "tests/native/test_calls.c").read_text(encoding="utf-8")
    assert re.search(rf"\bmemwatch_{name}\(", called), f"test_calls.c does not call memwatch_{name}"


@pytest.mark.parametrize("row", rows())
def test_a_row(row: str) -> None:
    assert any(fnmatchcase(name, row) for name in public_functions()), f"CALLS has {row}, and no function is named so"
