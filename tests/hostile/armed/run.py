"""Runs CPython's and NumPy's own suites unarmed and armed, and compares the results test by test.

    run.py [--short] [--python PYTHON]... [SUITE...]

A SUITE is a module of CPython's test package (test_mmap) or one of NumPy's (numpy._core.tests.test_ufunc). Status 1
when a result differs or when nothing was watched. A suite that is not there is left out with a line.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
LIMIT_S = 900
SHOWN = 20

SHORT = ["test_memoryview", "test_mmap", "test_struct", "test_gc", "test_fork1", "test_bytes", "test_ctypes"]
CPYTHON = [
    *SHORT,
    "test_array",
    "test_faulthandler",
    "test_signal",
    "test_threading",
    "test_sys",
    "test_os",
    "test_posix",
    "test_io",
    "test_pickle",
    "test_zlib",
    "test_hashlib",
    "test_zipfile",
    "test_sqlite3",
    "test_tracemalloc",
    "test_asyncio",
    "test_ssl",
    "test_socket",
    "test_buffer",
    "test_generators",
    "test_coroutines",
    "test_sys_settrace",
    "test_subprocess",
    "test_monitoring",
    "test_interpreters",
    "test_free_threading",
    "test_concurrent_futures",
    "test_multiprocessing_fork",
    "test_multiprocessing_forkserver",
]
NUMPY_SHORT = ["numpy._core.tests.test_memmap"]
NUMPY = [
    *NUMPY_SHORT,
    *(f"numpy._core.tests.test_{name}" for name in ("ufunc", "multiarray", "nditer", "mem_overlap")),
    "numpy.random.tests.test_generator_mt19937",
    "numpy.linalg.tests.test_linalg",
    "numpy.lib.tests.test_io",
]
# Fails without us too where there is no such socket, or hangs there.
LEFT_OUT = ["-i", "*VSOCK*", "-i", "*Vsock*"]

# They count what the arming thread allocates, too.
COUNT_OBJECTS = {
    ".test.test_sys.SysModuleTest.test_getallocatedblocks",
    ".test.test_gc.GCTests.test_get_count",
    ".test.test_gc.GCTests.test_get_objects_arguments",
}


@dataclass
class Outcome:
    """What a suite said: its status, and a word for each test."""

    status: int
    tests: dict[str, str]
    output: str


def tests_of(report: Path) -> dict[str, str]:
    """Returns the results in a JUnit report."""
    found: dict[str, str] = {}
    if not report.exists():
        return found
    for case in ET.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        worst = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[name] = worst[0] if worst else "passed"
    return found


def command_of(python: str, suite: str, report: Path) -> list[str] | None:
    """Returns how a suite is run; None when this Python does not have it."""
    module = suite if suite.startswith("numpy.") else f"test.{suite}"
    asked = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    if subprocess.run([python, "-c", asked], capture_output=True, check=False).returncode != 0:
        return None
    if suite.startswith("numpy."):
        return [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", "--pyargs", suite]
    return [python, "-m", "test", f"--junit-xml={report}", "--timeout", str(LIMIT_S), *LEFT_OUT, suite]


def run(python: str, suite: str, log: Path | None) -> Outcome | None:
    """Runs a suite in a folder of its own, armed when there is a log."""
    with tempfile.TemporaryDirectory(prefix="memwatch-suite-") as folder:
        report = Path(folder) / "report.xml"
        command = command_of(python, suite, report)
        if command is None:
            return None
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MEMWATCH_")}
        if log is not None:
            environment["PYTHONPATH"] = f"{HERE}:{ROOT / 'python'}"
            environment["MEMWATCH_ARMED_LOG"] = str(log)
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=LIMIT_S + 60)
            except subprocess.TimeoutExpired as late:
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
                return Outcome(-1, tests_of(report), str(late))
        return Outcome(process.returncode, tests_of(report), output)


def watched(log: Path) -> tuple[int, int]:
    """Returns how many processes were armed, and how many windows they saw."""
    words = [file.read_text().split() for file in log.iterdir()]
    return len(words), sum(int(line[3]) for line in words)


def compare(python: str, suite: str) -> bool:
    """Runs a suite twice and prints a line, or what differs. True when nothing does."""
    plain = run(python, suite, None)
    if plain is None:
        print(f"{python}: {suite} is not there: left out")
        return True
    with tempfile.TemporaryDirectory(prefix="memwatch-armed-") as log:
        armed = run(python, suite, Path(log))
        assert armed is not None
        n_processes, n_windows = watched(Path(log))
    differ = {
        name: (plain.tests.get(name, "missing"), armed.tests.get(name, "missing"))
        for name in sorted(plain.tests.keys() | armed.tests.keys())
        if plain.tests.get(name) != armed.tests.get(name) and name not in COUNT_OBJECTS
    }
    same = not differ and plain.tests.keys() == armed.tests.keys() and bool(plain.tests) and n_windows > 0
    verdict = "same" if same else "DIFFERS" if plain.tests else "proves nothing, without us neither"
    print(
        f"{python}: {suite}: {verdict}, {len(plain.tests)} tests, status {plain.status} and "
        f"{armed.status}, {n_processes} processes armed, {n_windows} windows",
        flush=True,
    )
    for name, (before, after) in list(differ.items())[:SHOWN]:
        print(f"    {name}: {before} unarmed, {after} armed")
    if len(differ) > SHOWN:
        print(f"    and {len(differ) - SHOWN} more")
    if not same:
        print("\n".join(f"    | {line}" for line in armed.output.splitlines()[-60:]), flush=True)
    return same


def main() -> int:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a choice of a minute")
    parser.add_argument("--python", action="append", default=[], help="an interpreter (default: this one)")
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    options = parser.parse_args()
    suites = options.suites or (SHORT + NUMPY_SHORT if options.short else CPYTHON + NUMPY)
    differ = 0
    # Not resolved: a virtual environment is what its link says.
    for python in [str(Path(python).absolute()) for python in options.python or [sys.executable]]:
        for suite in suites:
            differ += not compare(python, suite)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
