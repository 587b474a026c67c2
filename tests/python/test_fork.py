"""A fork of the host, which from Python 3.12 on warns of threads: watching is no reason for it."""

import sys
import threading

import pytest
from tests.conftest import run_python

import memwatch
from memwatch._native import core

PROGRAM = """
import os, sys, time
import memwatch
class Thing: pass
thing, data, seen = Thing(), memwatch.buffer(4096), []
thing.n = 0
watcher = memwatch.MemoryWatcher()
watcher.watch(data, "data")
watcher.watch_attr(thing, "n", alias="n")
watcher.set_callback(lambda event: seen.append((event.variable_name, event.new_value)))
for i in range(1, 11):
    data[0] = thing.n = i
    process = os.fork()
    if process == 0:
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0
    assert watcher.flush()
watcher.close()
assert [value[0] for name, value in seen if name == "data"] == list(range(1, 11)), seen
assert [int(value) for name, value in seen if name == "n"] == list(range(1, 11)), seen
"""


def test_a_fork_is_not_warned_of():
    result = run_python(PROGRAM, options=("-W", "error"))
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older versions do not count threads")
def test_threads_of_the_host_are_its_own_matter():
    code = """
import os, threading, warnings
import memwatch
watcher, data, seen = memwatch.MemoryWatcher(), memwatch.buffer(4096), []
watcher.watch(data, "data")
watcher.set_callback(lambda event: seen.append(event.new_value[0]))
ours = set(os.listdir("/proc/self/task"))
done = threading.Event()
thread = threading.Thread(target=done.wait)
thread.start()
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    process = os.fork()
    if process == 0:
        os._exit(0)
os.waitpid(process, 0)
assert any("multi-threaded" in str(warning.message) for warning in told)
assert ours <= set(os.listdir("/proc/self/task"))
data[0] = 1
assert watcher.flush() and seen == [1]
done.set()
thread.join()
watcher.close()
"""
    result = run_python(code, options=())
    assert result.returncode == 0, result.stderr


def test_a_fork_in_a_callback(recorder):
    code = PROGRAM.replace("seen.append(", "fork() or seen.append(").replace(
        "class Thing",
        "def fork():\n    process = os.fork()\n    process or os._exit(0)\n    os.waitpid(process, 0)\nclass Thing",
    )
    result = run_python(code, options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr


def test_what_is_written_while_the_threads_rest_is_told_afterwards(watched, recorder):
    data = memwatch.buffer(4096)
    watched.watch(data, "data")
    core.threads_stop()
    core.threads_stop()
    data[0] = 1
    assert not watched.flush(0.05)
    core.threads_start()
    core.threads_start()
    assert watched.flush()
    assert [event.new_value[0] for event in recorder] == [1]


def test_a_watcher_that_comes_and_goes_while_the_threads_rest():
    watcher = memwatch.MemoryWatcher()
    core.threads_stop()
    closing = threading.Thread(target=watcher.close)
    closing.start()
    core.threads_start()
    closing.join(10)
    assert watcher._core.closed
    with memwatch.MemoryWatcher() as another:
        assert another.flush()
