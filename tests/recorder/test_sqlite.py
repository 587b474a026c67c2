"""A recording is an ordinary SQLite file: what other tools see of it, and what they may do while it is written."""

import contextlib
import csv
import ctypes
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest

import memwatch

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = [Path(__file__).with_name(f"golden-{version}.memwatch") for version in (1, 2)]
QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/recording.md").read_text(), re.DOTALL)


class Limits(ctypes.Structure):
    _fields_ = [("low", ctypes.c_int), ("high", ctypes.c_double)]


@pytest.fixture
def recording(watch, path):
    """A number that becomes NaN and then 500, an array, and some bytes."""
    watched = watch()
    x, weights, data = numpy.zeros(()), numpy.zeros(32), bytearray(8)
    watched.add(x, "x")
    watched.add(weights, "weights")
    watched.add(data, "data")
    for value in (1.5, 200.0, float("nan"), 500.0):
        x[...] = value
        watched.settle()
    weights[17] = -1
    watched.settle()
    weights[17] = 2
    data[3] = 65
    watched.commit()
    watched.close()
    return path


def ask(path, sql):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_the_view_reads_as_a_person_expects(recording):
    rows = ask(recording, "SELECT variable, element, old, new, who, line IS NOT NULL, kind FROM events ORDER BY id")
    assert rows[:5] == [
        ("x", None, 0.0, 1.5, "recording", 1, "change"),
        ("x", None, 1.5, 200.0, "recording", 1, "change"),
        ("x", None, 200.0, "nan", "recording", 1, "change"),
        ("x", None, "nan", 500.0, "recording", 1, "change"),
        ("weights", 17, 0.0, -1.0, "recording", 1, "change"),
    ]
    assert ("data", None, b"\0", b"A", "recording", 1, "change") in rows


def test_the_command_line_of_sqlite_opens_it(recording):
    if not shutil.which("sqlite3"):
        pytest.skip("sqlite3, the program, is not installed")
    run = subprocess.run(
        ["sqlite3", "-csv", "-header", recording, "SELECT * FROM events LIMIT 5"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = list(csv.DictReader(io.StringIO(run.stdout)))
    assert [row["new"] for row in rows[:3]] == ["1.5", "200.0", "nan"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", row["time"]) for row in rows)


@pytest.mark.parametrize("sql", QUERIES, ids=lambda sql: sql[:40])
def test_each_query_of_the_documentation_answers(recording, sql):
    rows = ask(recording, sql)
    none = "end_ns IS NULL" in sql or "count(DISTINCT thread)" in sql
    assert bool(rows) != none


def test_the_documentation_has_ten_queries():
    assert len(QUERIES) == 10


def test_the_answers_are_right(recording):
    answers = [ask(recording, sql) for sql in QUERIES]
    assert answers[0][0][0] == "recording"
    assert answers[0][0][3] == 4
    assert answers[1][0][1] == 500.0
    assert answers[2][0][1:3] == (200.0, "nan")
    assert [row[1] for row in answers[5]] == [200.0, 500.0]
    assert answers[6][0][1:] == (1.5, 500.0, (1.5 + 200 + 500) / 3)
    assert [row[1:3] for row in answers[8]] == [(0.0, -1.0), (-1.0, 2.0)]


def test_every_table_and_column_is_documented(recording):
    text = (ROOT / "docs/recording.md").read_text()
    tables = text[text.index("## The tables") :]
    for (name,) in ask(recording, "SELECT name FROM sqlite_master WHERE type = 'table'"):
        line = next(line for line in tables.splitlines() if line.startswith(f"| `{name}`"))
        for _, column, *_ in ask(recording, f"PRAGMA table_info({name})"):
            assert f"`{column}`" in line or column.startswith("events_"), (name, column)


def test_a_change_of_a_number_takes_little_room(watch, path):
    watched = watch(window_ms=1)
    numbers = numpy.zeros(1000)
    for at in range(1000):
        watched.add(numbers[at : at + 1], f"number {at}")
    for step in range(1, 21):
        numbers[:] = step * 1.1
        watched.settle()
    watched.commit()
    watched.close()
    (changes,) = ask(path, "SELECT count(*) FROM changes")[0]
    assert changes >= 20_000
    assert path.stat().st_size / changes < 90


EXACT = {
    "i1": [-128, 127], "u8": [2**64 - 1, 2**63, 1], "<i4": [-5], ">i4": [-5], ">f8": [1.5, float("nan")],
    "f2": [0.1, float("inf")], "f4": [0.1, float("nan")], "f8": [-0.0, 5e-324, float("-inf"), float("nan")],
    "?": [True],
}  # fmt: skip


@pytest.mark.parametrize("dtype", EXACT)
def test_numbers_come_back_to_the_bit(watch, path, opened, dtype):
    watched = watch()
    number = numpy.ones(1, dtype) if dtype != "?" else numpy.zeros(1, dtype)
    watched.add(number, "number")
    copies = [number.tobytes()]
    for value in EXACT[dtype]:
        number[0] = value
        copies.append(number.tobytes())
        watched.settle()
    watched.commit()
    history = opened(path)
    assert [history.value_at("number", seq=seq, raw=True) for seq in range(len(copies))] == copies


def test_a_nan_keeps_its_bits(watch, path, opened):
    watched = watch()
    number = numpy.zeros(1)
    watched.add(number, "number")
    number.view("u8")[0] = 0xFFF800000000BEEF
    watched.commit()
    assert opened(path).value_at("number", raw=True) == number.tobytes()
    assert ask(path, "SELECT new FROM events") == [("nan:fff800000000beef",)]


def test_what_is_decoded_live_is_decoded_in_a_recording(path):
    things = {
        "structure": numpy.zeros(2, [("id", "i4"), ("pos", "f4", (2,))]),
        "complex": numpy.zeros(2, "c16"),
        "text": numpy.array(["ab", "cd"]),
        "date": numpy.array(["2026-01-01", "2026-01-02"], "M8[D]"),
        "limits": Limits(1, 2.0),
        "many limits": (Limits * 3)(),
    }
    with memwatch.MemoryWatcher(history_path=path) as watcher:
        live = []
        watcher.set_callback(live.append)
        for name, thing in things.items():
            watcher.watch(thing, name)
        things["structure"]["id"][1], things["complex"][1], things["text"][0] = 5, 1j, "zz"
        things["date"][0], things["limits"].high, things["many limits"][2].low = "2027-05-05", 7.5, 9
        assert watcher.flush(10)
        wanted = {event.variable_name: (event.elements, event.old, event.new, repr(event)) for event in live}
    with memwatch.open_history(path) as history:
        found = list(history.events())
        assert {event.variable_name for event in found} == set(things)
        for event in found:
            elements, old, new, text = wanted[event.variable_name]
            assert repr(event.elements) == repr(elements)
            assert repr(event) == text
            if event.variable_name != "many limits":  # an array of NumPy's, where that is there
                assert (repr(event.old), repr(event.new)) == (repr(old), repr(new))
                assert repr(history.value_at(event.variable_name, seq=event.seq)) == repr(new)


def test_changes_that_a_condition_kept_back_are_in_later_values(watch, path, opened):
    watched = watch()
    large, few, small = numpy.zeros(2000), numpy.zeros(10), numpy.zeros(())
    watched.add(large, "large", when=("gt", 5.0))
    watched.add(few, "few", when=("gt", 5.0))
    watched.add(small, "small", when=("gt", 5.0))
    copies = {}
    for value in (1.0, 6.0, 2.0, 3.0, 7.0):
        large[int(value) * 100], few[int(value)], small[...] = value, value, value
        copies[watched.settle()] = (large.tobytes(), few.tobytes(), small.tobytes())
    watched.commit()
    history = opened(path)
    told = [event.seq for event in history.events()]
    assert len(told) == 6
    for name, copy in zip(("large", "few", "small"), copies[told[-1]]):
        assert history.value_at(name, seq=told[-1], raw=True) == copy, name


def test_merged_changes_are_in_the_value(watch, path, opened):
    watched = watch()
    large = numpy.zeros(2000)
    watched.add(large, "large", max_rate=2.0)
    for step in range(1, 30):
        large[step * 10] = step
        watched.watcher.flush(5)
    watched.commit()
    assert opened(path).value_at("large", raw=True) == large.tobytes()


def test_a_reader_that_stays_holds_nothing_back_for_ever(watch, path, opened, wait_for):
    watched = watch()
    data = bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.commit()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM changes").fetchone() == (1,)
    for value in range(2, 20):
        data[0] = value
        watched.settle()
    wait_for(lambda: "being read" in watched.stats()["message"])
    assert watched.stats()["state"] == "failing"
    assert reader.execute("SELECT count(*) FROM changes").fetchone() == (1,), "it sees what it began with"
    reader.close()
    watched.commit()
    assert watched.stats()["events_missed"] == 0
    assert [event.new_value[0] for event in opened(path).events()] == list(range(1, 20))


def test_a_close_waits_for_a_reader(watch, path, opened):
    watched = watch(commit_ms=1000)
    data = bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.commit()
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM changes").fetchone()
    data[0] = 2
    watched.settle()
    leaves = threading.Timer(0.3, reader.close)
    leaves.start()
    watched.close()
    leaves.join()
    assert opened(path).value_at("data")[0] == 2


def told(history):
    """What is said of each event."""
    return [
        [each.run, each.seq, each.summary, each.where.function, each.where.libc_function] for each in history.events()
    ]


@pytest.mark.parametrize("golden", GOLDEN)
def test_the_golden_files_read_as_ever(golden):
    """Each version of the format has made one. If this breaks, user_version has to rise."""
    expected = json.loads(golden.with_suffix(".json").read_text())
    with memwatch.open_history(golden) as history:
        assert history.check() == []
        assert [[run.run, run.program, run.events_written, run.events_missed] for run in history.runs] == expected[
            "runs"
        ]
        assert [[region.name, region.format, list(region.shape)] for region in history.regions] == expected["regions"]
        assert told(history) == expected["events"]
        values = {name: repr(history.value_at(name)) for name in expected["values"]}
        assert values == expected["values"]


def schema_of(path):
    """Tables, indexes and the view, in SQL."""
    return [" ".join(f"{each}".split()) for each in ask(path, "SELECT name, sql FROM sqlite_master ORDER BY name")]


def test_the_schema_is_the_newest_golden_files(recording):
    """Another schema needs another user_version, and a golden file of its own."""
    assert schema_of(recording) == schema_of(GOLDEN[-1])
    assert ask(recording, "PRAGMA user_version") == ask(GOLDEN[-1], "PRAGMA user_version") == [(len(GOLDEN),)]
    assert ask(recording, "PRAGMA application_id") == [(0x6D656D77,)]


@pytest.mark.parametrize("golden", GOLDEN)
def test_a_recorder_goes_on_with_an_older_file(golden, watch, path, opened):
    """Who has it open reads on, and what was in it is said as before."""
    shutil.copyfile(golden, path)
    with memwatch.open_history(path) as before:
        was_told = told(before)
        watched, data = watch(), bytearray(8)
        watched.add(data, "later")
        data[0] = 1
        watched.commit()
        watched.close()
        assert [event.variable_name for event in before.events()][-1] == "later"
    assert ask(path, "PRAGMA user_version") == [(len(GOLDEN),)]
    assert schema_of(path) == schema_of(GOLDEN[-1])
    after = opened(path)
    assert after.check() == []
    assert told(after)[: len(was_told)] == was_told
    assert after.value_at("later") == b"\1\0\0\0\0\0\0\0"


def test_a_newer_file_is_refused(recording, watch, wait_for):
    with contextlib.closing(sqlite3.connect(recording)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {len(GOLDEN) + 1}")
    before = recording.read_bytes()
    with pytest.raises(memwatch.Error, match="newer memwatch"):
        memwatch.open_history(recording)
    watched = watch()
    wait_for(lambda: "newer memwatch" in watched.stats()["message"])
    watched.close()
    assert recording.read_bytes() == before


def test_another_programs_database_is_not_touched(path, watch, wait_for):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    watched = watch()
    wait_for(lambda: "no recording" in watched.stats()["message"])
    watched.close()
    assert path.read_bytes() == before
    with pytest.raises(memwatch.Error, match="no recording"):
        memwatch.open_history(path)


READER = """
import importlib.util, sys, types
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ("memwatch._core", "numpy"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import warnings
warnings.simplefilter("ignore")
import memwatch
with memwatch.open_history(sys.argv[1]) as history:
    print(history.value_at("x"), len(history.value_at("weights")), history.runs[0].live)
"""


def test_it_is_read_without_the_extension_and_numpy(recording):
    environ = dict(os.environ, PYTHONPATH=str(ROOT / "python"))
    run = subprocess.run(
        [sys.executable, "-c", READER, str(recording)],
        capture_output=True,
        text=True,
        env=environ,
        timeout=60,
        check=False,
    )
    assert run.stdout == "500.0 32 False\n", run.stderr
