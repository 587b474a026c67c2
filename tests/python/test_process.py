"""What a watched process must not notice: forks, blocked signals, crashes, the interpreter's own checks."""

import errno
import os
import re
import signal
import threading
import warnings

import pytest

import memwatch

BACKENDS = [each["name"] for each in memwatch.backends() if each["usable"]]


def fork(child):
    """Runs `child` in a forked process, which must end with 0 within a limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside other threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(20)
            child()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_twenty_forks_whose_children_write(backend, recorder):
    with memwatch.MemoryWatcher(backend=backend) as watcher:
        data = memwatch.buffer(3 * 4096)
        watcher.watch(data, "data", callback=recorder)

        def child():
            for offset in range(0, len(data), 1000):
                data[offset] = 99

        for value in range(1, 21):
            fork(child)
            data[0] = value
            assert watcher.flush()
        assert [event.new_value[0] if event.new_value else event.new_preview[0] for event in recorder] == list(
            range(1, 21)
        )
        assert bytes(data[1000:1001]) == b"\0"


def test_a_childs_watcher_is_inert(watched, recorder):
    data = memwatch.buffer(4096)
    region_id = watched.watch(data, "data")
    stream = watched.events()

    def child():
        for call in (
            watched.flush,
            watched.get_stats,
            watched.events,
            lambda: watched.watch(data, "more"),
            lambda: watched.unwatch(region_id),
            lambda: watched.set_callback(print),
            lambda: next(stream),
        ):
            with pytest.raises(memwatch.Error, match="parent") as caught:
                call()
            assert caught.value.errno == errno.ECHILD
        watched.close()

    fork(child)
    data[0] = 1
    assert watched.flush()
    assert len(recorder) == 1


def test_a_child_may_have_its_own_watcher(watched, recorder):
    data = memwatch.buffer(4096)
    watched.watch(data, "data")

    def child():
        seen = []
        with memwatch.MemoryWatcher() as own:
            own.watch(data, "data", callback=seen.append)
            data[0] = 5
            assert own.flush()
        assert [event.new_value[0] for event in seen] == [5], seen
        assert seen[0].where.line

    fork(child)
    data[0] = 1
    assert watched.flush()
    assert [event.new_value[0] for event in recorder] == [1]


def test_a_forked_child_that_ends_normally(run_python):
    code = """
import os, sys, warnings
import memwatch
warnings.simplefilter("ignore", DeprecationWarning)
data = bytearray(8)
watcher = memwatch.MemoryWatcher()
watcher.watch(data, "data", callback=lambda event: print("parent saw", event.new_value[0], flush=True))
if os.fork() == 0:
    data[0] = 9
    sys.exit(0)  # runs atexit, finalises the interpreter
assert os.wait()[1] == 0
data[0] = 1
"""
    run = run_python(code)
    assert (run.stdout, run.returncode) == ("parent saw 1\n", 0), run.stderr
    assert re.fullmatch(r"process \d+ was forked from .*\n", run.stderr), "one record of the logger, and no more"


def test_multiprocessing(run_python, tmp_path):
    path = tmp_path / "program.py"
    path.write_text("""
import multiprocessing, warnings
import memwatch

data = memwatch.buffer(4096)

def child(number):
    data[0] = number
    return data[0]

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    with memwatch.MemoryWatcher() as watcher:
        seen = []
        watcher.watch(data, "data", callback=seen.append)
        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert pool.map(child, range(1, 10)) == list(range(1, 10))
        data[0] = 77
        assert watcher.flush()
        assert [event.new_value[0] for event in seen] == [77]
        print("well")
""")
    import subprocess
    import sys

    run = subprocess.run(
        [sys.executable, "-X", "dev", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout, run.returncode) == ("well\n", 0), run.stderr


def test_subprocesses_run_as_ever(watched):
    import subprocess

    data = memwatch.buffer(4096)
    watched.watch(data, "data")
    for _ in range(5):
        run = subprocess.run(
            ["/bin/sh", "-c", "kill -TRAP $$; echo survived"], capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stdout) == (-signal.SIGTRAP, "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_thread_that_blocks_every_signal(backend, recorder, in_thread):
    if backend == "mprotect":
        pytest.skip("a blocked SIGSEGV ends the process: docs/limits.md says so")
    with memwatch.MemoryWatcher(backend=backend) as watcher:
        data = memwatch.buffer(4096)
        watcher.watch(data, "data", callback=recorder)

        def write():
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            for value in range(1, 6):
                data[0] = value
                assert watcher.flush()

        in_thread(write)
        assert [event.new_value[0] for event in recorder] == [1, 2, 3, 4, 5]


#: The interpreter's own memory is watched, a word of this thread's state or of a generator at a time. What calls leave
#: on the C stack stands in records that the interpreter has published and not yet filled in when it writes there.
WATCH_THE_INTERPRETER = """
import ctypes, json, re, sys, threading, memwatch

class Key:
    def __lt__(self, other):
        return False

    def __repr__(self):
        return "key"

def count():
    n = 0
    while True:
        n += 1
        yield n

compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda a, b: 0)
numbers, counter, decode = (ctypes.c_int * 20)(), count(), json.JSONDecoder(object_hook=len).decode
state = ctypes.pythonapi.PyThreadState_Get
state.restype = ctypes.c_void_p
calls = [
    lambda: sorted(map(float, range(9)), key=lambda x: -x),
    lambda: re.sub("a", lambda match: str(next(counter)), "banana"),
    lambda: decode('[{"a": 1.5}, {"b": {"c": 2}}]'),
    lambda: ctypes.CDLL(None).qsort(numbers, 20, 4, compare),
    lambda: sorted([Key(), Key(), Key()]),
    lambda: "%.17g %r %s" % (next(counter) / 7, Key(), [Key(), {1: Key()}]),
    lambda: float(sum(map(next, [counter] * 5))),
    lambda: max(range(9), key=lambda x: next(counter)),
]

def run(backend):
    for what, start, size in ("state", state(), 96), ("generator", id(counter), counter.__sizeof__()):
        for offset in range(0, size, 4):
            with memwatch.MemoryWatcher(backend=backend) as watcher:
                watcher.watch((ctypes.c_ubyte * 4).from_address(start + offset), what)
                for call in calls * 8:
                    call()
                    watcher.flush()

thread = threading.Thread(target=run, args=sys.argv[1:])
thread.start()
thread.join()
print("survived")
"""


@pytest.mark.parametrize("backend", ["auto", "mprotect"])
def test_the_interpreter_is_caught_between_any_two_of_its_instructions(backend, run_python):
    result = run_python(WATCH_THE_INTERPRETER, backend, options=())
    assert (result.returncode, result.stdout) == (0, "survived\n"), result.stderr


CRASH = """
import ctypes, faulthandler, resource, sys, os
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
handler, backend = sys.argv[1:]
if handler == "before":
    faulthandler.enable()
if backend:
    import memwatch
    watcher = memwatch.MemoryWatcher(backend=backend)
    data = memwatch.buffer(4096)
    watcher.watch(data, "data")
    data[0] = 1
    assert watcher.flush()
if handler == "after":
    faulthandler.enable()
if backend == "mprotect" and handler == "after":  # until it has its handler back a write is fatal: docs/limits.md
    import time
    deadline = time.monotonic() + 20
    while not watcher.get_stats()["attribution"]["handler_lost"] and time.monotonic() < deadline:
        watcher.flush()
if backend:
    data[0] = 2
    assert watcher.flush()
print("ready", flush=True)
ctypes.memset(16, 1, 1)
print("survived")
"""


@pytest.mark.parametrize("handler", ["none", "before", "after"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_real_crash_stays_the_same_crash(handler, backend, run_python):
    bare = run_python(CRASH, handler, "", options=())
    watched = run_python(CRASH, handler, backend, options=())
    assert bare.returncode == watched.returncode == -signal.SIGSEGV
    assert bare.stdout == watched.stdout == "ready\n"
    assert ("Fatal Python error: Segmentation fault" in watched.stderr) == (handler != "none")
    assert bare.stderr.splitlines()[:1] == watched.stderr.splitlines()[:1]


def test_signal_handlers_of_the_host_get_what_is_theirs(recorder):
    got = []
    previous = signal.signal(signal.SIGTRAP, lambda number, frame: got.append(number))
    try:
        with memwatch.MemoryWatcher() as watcher:
            data = memwatch.buffer(4096)
            watcher.watch(data, "data", callback=recorder)
            data[0] = 1
            os.kill(os.getpid(), signal.SIGTRAP)
            assert watcher.flush()
        os.kill(os.getpid(), signal.SIGTRAP)
    finally:
        signal.signal(signal.SIGTRAP, previous)
    assert got == [signal.SIGTRAP] * 2
    assert len(recorder) == 1


def test_clean_under_the_interpreters_own_checks(run_python):
    code = """
import array, gc, memwatch, threading
np = None
try:
    import numpy as np
except ImportError:
    pass
seen = []
for _ in range(3):
    with memwatch.MemoryWatcher() as watcher:
        watcher.set_callback(seen.append)
        kept = [bytearray(100), memwatch.buffer(5000), array.array("d", [1.0])] + ([np.zeros((5, 5))] if np else [])
        for index, obj in enumerate(kept):
            watcher.watch(obj, f"it {index}")
            memoryview(obj).cast("B")[3] = 1
        assert watcher.flush()
        repr(seen), [event.elements for event in seen], [dict(event.where) for event in seen]
        watcher.get_stats(regions=True)
        stream = watcher.events(since=0, timeout=0)
        assert len(list(stream)) == len(kept)
        try:
            watcher.watch(5)
        except TypeError:
            pass
    del watcher, stream
    gc.collect()
assert len(seen) == 3 * len(kept)
"""
    run = run_python(code)
    assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)


def test_no_references_are_lost(run_python):
    code = """
import gc, sys, memwatch
data = memwatch.buffer(4096)
def once(watcher):
    region_id = watcher.watch(data, "data", callback=lambda event: (event.where, event.old, repr(event)))
    data[0] ^= 1
    watcher.flush()
    watcher.get_stats(regions=True)
    list(watcher.events(since=0, timeout=0))
    for bad in (5, bytearray(), memoryview(bytes(8))[::2]):
        try:
            watcher.watch(bad, "bad")
        except (TypeError, ValueError):
            pass
    watcher.unwatch(region_id)
with memwatch.MemoryWatcher(event_capacity=16, history_budget=4096) as watcher:
    for _ in range(200):
        once(watcher)
    watcher._retired.clear()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(1000):
        once(watcher)
    watcher._retired.clear()
    gc.collect()
    grown = sys.getallocatedblocks() - before
    assert grown < 500, grown  # one object lost a turn is 1,000; what is cached and under way varies by some hundred
    assert sys.getrefcount(data) < 5
"""
    run = run_python(code, options=())
    assert (run.stderr, run.returncode) == ("", 0)


def test_threads_that_come_and_go(watched, recorder):
    data = memwatch.buffer(64 * 4096)
    watched.watch(data, "data")

    def write(index):
        data[index * 4096] = 1

    for round_number in range(8):
        threads = [threading.Thread(target=write, args=(round_number * 8 + index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert watched.flush()
    assert watched.load(recorder[-1].storage_key_new) == bytes(data)
