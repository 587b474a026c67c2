"""A thousand pairs of a line and the variable that only it writes: no answer that says exact may name another line."""

import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import memwatch

PAIRS = 1000


def writers(variables):
    """A function a variable, each on a line of its own: writer i is on line i + 1."""
    lines = [f"def writer_{i}(): variables[{i}][3] = (variables[{i}][3] + 1) & 255" for i in range(len(variables))]
    names = {"variables": variables}
    exec(compile("\n".join(lines), "truth.py", "exec"), names)
    return [names[f"writer_{i}"] for i in range(len(variables))]


def wrong(events):
    return [
        (event.variable_name, event.where.line, event.where.function)
        for event in events
        if event.where.attribution == "exact" and event.where.line != int(event.variable_name) + 1
    ]


def write_at_random(functions, n, seed):
    dice = random.Random(seed)
    for _ in range(n):
        dice.choice(functions)()


def test_no_exact_line_is_wrong_on_shared_heap_pages():
    """Small objects beside one another, written by three threads without a pause."""
    variables = [bytearray(16) for _ in range(PAIRS)]
    functions = writers(variables)
    events = []
    with memwatch.MemoryWatcher() as watcher:
        watcher.set_callback(events.append)
        for i, variable in enumerate(variables):
            watcher.watch(variable, str(i))
        threads = [threading.Thread(target=write_at_random, args=(functions[k::3], 3000, k)) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert watcher.flush()
        available = watcher.get_stats()["attribution"]["available"]
    assert len(events) > PAIRS / 2
    assert wrong(events) == []
    if not available:
        pytest.skip("nobody can tell who writes here")
    assert any(event.where.attribution == "exact" for event in events)


def test_regions_with_pages_of_their_own_are_exact():
    """At least 99 of 100, when windows are long enough to separate the writers."""
    variables = [memwatch.buffer(4096) for _ in range(PAIRS)]
    functions = writers(variables)
    events = []
    with memwatch.MemoryWatcher(attribution_budget=1) as watcher:
        if not watcher.get_stats()["attribution"]["available"]:
            pytest.skip("nobody can tell who writes here")
        watcher.set_callback(events.append)
        for i, variable in enumerate(variables):
            watcher.watch(variable, str(i))
        for seed in range(20):
            write_at_random(functions, 100, seed)
            assert watcher.flush()
    assert wrong(events) == []
    assert sum(event.where.attribution == "exact" for event in events) >= 0.99 * len(events) > 0


def test_the_program_runs_under_gdb():
    """Traced, it is watched without authors; the debugger stops at nothing of ours."""
    if not shutil.which("gdb"):
        pytest.skip("no gdb here")
    program = (
        "import memwatch\n"
        "events = []\n"
        "with memwatch.MemoryWatcher() as watcher:\n"
        "    data = memwatch.buffer(4096)\n"
        "    watcher.watch(data, 'data')\n"
        "    watcher.set_callback(events.append)\n"
        "    for value in range(1, 4):\n"
        "        data[0] = value\n"
        "        watcher.flush()\n"
        "print(f'saw {[(event.new_value[0], event.where.reason) for event in events]}')\n"
    )
    package = Path(memwatch.__file__).parent.parent
    result = subprocess.run(
        ["gdb", "-nx", "-batch", "-ex", "set print thread-events off", "-ex", f"set env PYTHONPATH {package}",
         "-ex", "run", "--args", sys.executable, "-c", program],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "saw [(1, 'traced'), (2, 'traced'), (3, 'traced')]" in result.stdout, result.stdout + result.stderr
    assert "exited normally" in result.stdout


def test_what_was_polled_says_so(watched, recorder, tmp_path, wait_for):
    """A read-only mapping beside a writable one of the same file: no fault of its own tells of a change."""
    np = pytest.importorskip("numpy")
    path = tmp_path / "mapped"
    path.write_bytes(bytes(8192))
    writable = np.memmap(path, dtype="f4", mode="r+", shape=(16,))
    readable = np.memmap(path, dtype="f4", mode="r", shape=(16,))
    watched.watch(readable, "readable")
    writable[3] = 2.5
    wait_for(lambda: recorder)
    assert [(event.backend, event.where.reason) for event in recorder] == [("poll", "polling")]
