"""The C examples, as `make build` has compiled them: what each prints is what its head promises."""

import re
import sqlite3
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, WAIT_S

#: Why a writer may stay unknown on a machine: such a line proves nothing, and names nobody.
UNTOLD = r"\((unavailable|traced|throttled|off|polling|unknown)\)"


def example(name: str, *arguments: object, status: int = 0) -> str:
    done = subprocess.run(
        [ROOT / "build/examples" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def line_of(name: str, code: str) -> int:
    lines = (ROOT / "examples" / f"{name}.c").read_text(encoding="utf-8").splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.strip() == code]
    return number


def skip_if_untold(printed: str) -> None:
    if re.search(UNTOLD, printed):
        pytest.skip("this machine does not tell writers now")


def test_every_example_has_a_test() -> None:
    tested = set(re.findall(r'example\("(\w+)"', Path(__file__).read_text(encoding="utf-8")))
    assert {path.stem for path in (ROOT / "examples").glob("*.c")} <= tested


def test_the_service_names_the_right_lines() -> None:
    printed = example("c_service", 2)
    assert re.match(r"live page   http://127\.0\.0\.1:\d+/#\w+\nmetrics     http://127\.0\.0\.1:\d+/metrics\n", printed)
    told = re.findall(r"^ *\d+  (\w+) +\d+ bytes changed by (\w+), \S*c_service\.c:(\d+)$", printed, re.MULTILINE)
    timeout = line_of("c_service", "config.timeout_ms = 30 + second;")
    limit = line_of("c_service", "config.rate_limit *= 1.1;")
    count = line_of("c_service", "n_requests++;")
    known = {
        "config": {("refresh_limits", timeout), ("refresh_limits", limit)},
        "rate_limit": {("refresh_limits", limit)},
        "requests": {("handle_request", count)},
    }
    for name, function, line in told:
        assert (function, int(line)) in known[name], printed
    skip_if_untold(printed)
    assert {name for name, _, _ in told} == set(known), printed


def test_conditions() -> None:
    printed = example("c_conditions")
    lines = printed.splitlines()  # the callback's thread prints when it comes to it
    assert sum(line.startswith("temperatures[2]: 20 -> 95, ") for line in lines) == 1, printed
    assert "4 found, 1 told, 3 not worth an event" in lines and len(lines) == 2, printed
    skip_if_untold(printed)
    line = line_of("c_conditions", "temperatures[sensor] = value;")
    assert f"written by measure (examples/c_conditions.c:{line})" in printed


def test_history_and_blame() -> None:
    versions, _, blame = example("c_history").partition("bytes 0 to ")
    assert versions.splitlines() == [
        "after event 0: balance 100, limit 500",
        "after event 1: balance 150, limit 500",
        "after event 2: balance 150, limit 900",
        "after event 3: balance 120, limit 900",
    ]
    runs = re.findall(r"(\d+): (?:event (\d), ([\w ]+)|as they were at first)", blame)
    assert [(end, seq) for end, seq, _ in runs] == [("0", "3"), ("7", ""), ("9", "2"), ("15", "")]
    assert {name for _, _, name in runs} <= {"", "withdraw", "raise_limit", "writer unknown"}


def test_a_sink_of_ones_own() -> None:
    printed = example("c_sink")
    assert 'sink "pass-on" missed 0\n' in printed
    assert "passed on 20 events until the watcher closed; the last: counter: 19 -> 20, " in printed


def test_the_recorder(tmp_path: Path) -> None:
    path = tmp_path / "changes.memwatch"
    assert f"{path}: run 1, 10 events written, 0 missed\n" in example("c_recorder", path)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM changes").fetchone() == (10,)


def test_a_recorder_that_has_no_file(tmp_path: Path) -> None:
    printed = example("c_recorder", tmp_path / "nowhere" / "changes.memwatch", status=1)
    assert "run 0, 0 events written" in printed and "nowhere" in printed
