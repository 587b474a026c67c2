"""An interpreter that is laid out otherwise than the headers said: no Python lines, said once, and never wrong ones."""

import sys

import pytest

from memwatch import _core

# The interpreter's own table of offsets: a cookie, its version, whether it has no GIL, then the offsets.
VERSION, OFFSETS = [1], range(3, 70)

PROGRAM = """
import ctypes, sys, warnings
table = (ctypes.c_uint64 * 80).in_dll(ctypes.pythonapi, "_PyRuntime")
for index in map(int, sys.argv[1:]):
    table[index] += 0x10000
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import memwatch
    import memwatch._doctor
print(*(warning.message for warning in caught), sep="\\n")
with memwatch.MemoryWatcher() as watcher:
    events = []
    watcher.set_callback(events.append)
    data = bytearray(8192)
    watcher.watch(data, name="data")
    data[5000] = 1
    value = 1
    watcher.watch_name("value")
    value = 2
    watcher.flush()
print(*sorted((event.variable_name, event.where.file == "<string>") for event in events))
print(memwatch._doctor.text(memwatch._doctor.report()))
"""

known = pytest.mark.skipif(sys.version_info < (3, 13), reason="the table came with 3.13")


def test_this_interpreter_is_as_its_headers_say():
    assert (_core.FRAMES, _core.FRAMES_NOTE) == (True, "")


@known
@pytest.mark.parametrize("moved", [VERSION, OFFSETS], ids=["version", "offsets"])
def test_another_layout(run_python, moved):
    run = run_python(PROGRAM, *map(str, moved))
    assert run.returncode == 0, run.stderr
    warning, *lines = run.stdout.splitlines()
    assert warning.startswith("memwatch names no lines of Python: built for Python 3.")
    assert "build memwatch again" in warning
    assert lines[0].startswith("('data', False) ('value', True)")
    assert any(line.startswith("  - Lines of Python are not known: built for") for line in lines)


@known
def test_the_same_layout(run_python):
    run = run_python(PROGRAM)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[:2] == ["", "('data', True) ('value', True)"]
