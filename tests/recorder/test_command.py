"""`python -m memwatch history` and `python -m memwatch doctor`."""

import array
import csv
import io
import json
import subprocess
import sys

import pytest

import memwatch
from memwatch import _doctor
from memwatch.__main__ import main
from memwatch._cli.clock import moment


@pytest.fixture
def recording(watch, path):
    watched = watch()
    weights, data = memwatch.empty((2, 3)), bytearray(4)  # on pages of its own: its writer is known
    watched.add(weights, "weights")
    watched.add(data, "data")
    weights[1, 2] = 0.5
    watched.settle()
    data[1] = 255
    watched.commit()
    watched.close()
    return str(path)


def test_events(recording, capsys):
    assert main(["history", recording]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "1:1  weights[1, 2]: 0.0 -> 0.5  by recording (test_command.py:" in lines[0]


def test_events_as_json_by_name_and_time(recording, capsys):
    assert main(["history", recording, "--json", "--name", "w*", "--since", "10m"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert (event["name"], event["elements"]) == ("weights", [[[1, 2], 0.0, 0.5]])
    assert event["where"]["function"] == "recording"
    assert main(["history", recording, "--until", "1h"]) == 0
    assert capsys.readouterr().out == ""


def test_runs_regions_and_values(recording, capsys):
    assert main(["history", recording, "--runs"]) == 0
    assert "events kept: 1 to 2" in capsys.readouterr().out
    assert main(["history", recording, "--regions"]) == 0
    assert "1  weights  d[2, 3]  48 bytes  events 1 to 1" in capsys.readouterr().out
    assert main(["history", recording, "--value", "data"]) == 0
    assert capsys.readouterr().out == "b'\\x00\\xff\\x00\\x00'\n"
    assert main(["history", recording, "--value", "data", "--seq", "1"]) == 0
    assert capsys.readouterr().out == "b'\\x00\\x00\\x00\\x00'\n"


def test_what_goes_wrong_is_a_sentence(recording, capsys, tmp_path):
    assert main(["history", str(tmp_path / "nothing")]) == 1
    assert "nothing cannot be opened: No such file" in capsys.readouterr().err
    assert main(["history", recording, "--value", "nobody"]) == 1
    assert 'memwatch: no region named "nobody" is recorded' in capsys.readouterr().err


def test_a_table(recording, capsys):
    assert main(["history", recording, "--csv"]) == 0
    weights, data = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (weights["name"], weights["index"], weights["old"], weights["new"]) == ("weights", "1, 2", "0.0", "0.5")
    assert (weights["function"], weights["attribution"]) == ("recording", "exact")
    assert (data["name"], data["new"]) == ("data", "b'\\x00\\xff\\x00\\x00'")


def test_the_file_is_checked(recording, capsys):
    assert main(["history", recording, "--check"]) == 0
    assert capsys.readouterr().out == "ok\n"
    with open(recording, "r+b") as file:
        file.seek(4096 + 8)
        file.write(b"\xff" * 64)
    assert main(["history", recording, "--check"]) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--run", "99"], 1, "there is no run 99"),
        (["--run", "99", "--regions"], 1, "there is no run 99"),
        (["--run", "99", "--value", "data"], 1, "there is no run 99"),
        (["--run", "-1"], 2, "not a number of a run"),
        (["--seq", "1"], 2, "for --value"),
        (["--at", "1h"], 2, "for --value"),
        (["--runs", "--csv"], 2, "--csv lists events"),
        (["--runs", "--name", "x"], 2, "choose events"),
        (["--runs", "--run", "1"], 2, "--run goes with"),
        (["--json", "--csv"], 2, "not allowed with"),
        (["--since", "nan"], 2, "is not a time"),
        (["--since", "1e300"], 2, "is not a time"),
        (["--value", "data", "--seq", "99999999"], 0, ""),
    ],
)
def test_misuse_is_an_error(recording, capsys, arguments, status, sentence):
    if status == 2:
        with pytest.raises(SystemExit, match="2"):
            main(["history", recording, *arguments])
    else:
        assert main(["history", recording, *arguments]) == status
    assert sentence in capsys.readouterr().err


def test_what_a_terminal_would_act_on_is_escaped(watch, path, capsys):
    watched = watch()
    data = bytearray(4)
    watched.add(data, "\x1b]0;owned\x07\n\u202ename")
    data[0] = 1
    watched.commit()
    for option in ([], ["--regions"], ["--csv"]):
        assert main(["history", str(path), *option]) == 0
        out = capsys.readouterr().out
        assert "\\x1b]0;owned\\x07\\n\\u202ename" in out
        assert not set(out) & set("\x1b\x07\u202e")


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-2+3", "@SUM(A1)", " =1", "\t=1", "plain", "a=1"])
def test_no_cell_of_a_table_is_a_formula(watch, path, capsys, name):
    watched = watch()
    data = array.array("i", [0])
    watched.add(data, name)
    data[0] = -5
    watched.commit()
    assert main(["history", str(path), "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    shown = repr(name)[1:-1] if "\t" in name else name
    assert row["name"] == (shown if name in ("plain", "a=1") else f"'{shown}")
    assert row["new"] == "-5", "a number is none"


def test_times():
    assert moment("1795384800") == 1795384800
    assert moment("2026-11-22T22:00:00+00:00") == 1795384800
    with pytest.raises(Exception, match="is not a time"):
        moment("yesterday")


def test_doctor():
    run = subprocess.run(
        [sys.executable, "-m", "memwatch", "doctor"], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stderr == ""
    assert "backends, in the order in which they are tried" in run.stdout
    again = subprocess.run(
        [sys.executable, "-m", "memwatch", "doctor", "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    report = json.loads(again.stdout)
    assert run.returncode == again.returncode == _doctor.status(report)
    assert [backend["name"] for backend in report["backends"] if backend["chosen"]] == [report["backend"]]
