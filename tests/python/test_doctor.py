"""What the doctor says. That each sentence is said where it is true, scripts/machines/rows checks in each row."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from memwatch import _doctor
from memwatch.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
CONFINE = ROOT / "tests" / "machines" / "confine.py"


def doctor(*arguments, kind="none"):
    return subprocess.run(
        [sys.executable, CONFINE, kind, "-", sys.executable, "-m", "memwatch", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("kind", ["none", "docker", "podman", "kill"])
def test_the_status_says_what_works(kind):
    run = doctor("--json", kind=kind)
    report = json.loads(run.stdout)
    assert (run.stderr, run.returncode) == ("", _doctor.status(report))
    polled = report["backend"] == "poll"
    writers = report["attribution"]["available"]
    assert run.returncode == (_doctor.POLLED if polled else _doctor.ALL if writers else _doctor.NO_WRITERS)
    [sentence] = [text for text in report["missing"] if text.startswith(("Memory", "Writers"))] or [""]
    assert sentence.startswith("Memory is polled: " if polled else "" if writers else "Writers are not known: ")
    if kind != "none":
        assert not writers
    if os.geteuid() == 0 and not polled and kind != "none":
        assert "`docker run --cap-add PERFMON`" in sentence


def test_no_advice_that_would_change_nothing():
    found = {
        "native": True,
        "exporter": True,
        "recorder": True,
        "frames": True,
        "backend": "poll",
        "poll_round_ms": 1002,
        "why_missing": {},
    }
    note = "this kernel (6.1) cannot tell which pages were written. Linux 6.7 or later can"
    found["backends"] = [{"name": "uffd", "note": note}, {"name": "poll", "note": ""}]
    found["attribution"] = {"available": False, "note": f"memory is polled: {note}"}
    found["settings"] = {"kernel.perf_event_paranoid": 3}
    [sentence] = _doctor._missing(found)
    assert sentence == (
        f"Memory is polled: {note}. Changes are told up to 1002 ms late for each 64 MiB, without their writer."
    )


def test_the_lines_that_help(capsys):
    for target, text in _doctor.FIXES.items():
        assert main(["doctor", "--fix", target]) == 0
        assert capsys.readouterr().out == text + "\n"
    with pytest.raises(SystemExit):
        main(["doctor", "--fix", "windows"])


def test_the_profile_in_the_docs_is_the_one_that_is_printed():
    page = (ROOT / "docs" / "seccomp.md").read_text(encoding="utf-8")
    [entry] = re.findall(r"```json\n(.*?)\n```", page, re.DOTALL)
    assert entry == _doctor.SECCOMP_ENTRY
    assert json.loads(entry) == {"names": ["userfaultfd", "perf_event_open"], "action": "SCMP_ACT_ALLOW"}
    [commands] = re.findall(r"```sh\n(.*?)\n```", page, re.DOTALL)
    assert all(line in _doctor.FIXES["docker"].splitlines() for line in commands.splitlines())
    for target in ("docker", "podman", "kubernetes"):
        assert _doctor.SECCOMP_ENTRY in _doctor.FIXES[target]
    for target in _doctor.FIXES:
        assert f"`{target}`" in page
    for status, meaning in ((0, "writers are known"), (1, "are not"), (3, "polled"), (4, "no C extension")):
        assert re.search(rf"\| {status} \| .*{meaning}", page)
