"""Signal handlers written in Python, which run in the midst of any call and may raise: nothing stays locked."""

import gc
import sys
import threading
import time

import pytest
from tests.conftest import run_python

import memwatch

INTERRUPTED = """
import random, signal, sys, time

class Interrupt(Exception): pass
n, armed, rng = 0, False, random.Random(7)
def handler(number, frame):
    global n
    if armed:
        n += 1
        raise Interrupt
signal.signal(signal.SIGALRM, handler)

def interrupted(call, most_s):
    # a signal handler raises somewhere in its midst
    global armed
    try:
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, most_s))
            call()
        finally:
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        pass
"""

STORM = """
import memwatch

watcher = memwatch.MemoryWatcher()
data, other = memwatch.buffer(4096), bytearray(64)
seen = []
watcher.watch(data, "data")
def see(event):
    if event.variable_name == "data":
        seen.append(event.new_value[0])
watcher.set_callback(see)
stream = watcher.events(since=0, timeout=0.001)
names = {"x": 0}

def watch_and_unwatch():
    watcher.unwatch("other")
    watcher.watch(other, "other", callback=lambda event: None)
    watcher.unwatch("other")

def name():
    watcher.unwatch("names[x]")
    watcher.watch_item(names, "x", alias="names[x]")

calls = {
    "flush": lambda: watcher.flush(1),
    "watch": watch_and_unwatch,
    "events": lambda: next(stream, None),
    "stats": watcher.get_stats,
    "callback": lambda: watcher.set_callback(see),
    "name": name,
    "close": lambda: victim.close(),
}
begun = time.monotonic()
rounds = 0
while (spent := time.monotonic() - begun) < float(sys.argv[2]) or (n <= 20 and spent < 60):
    rounds += 1
    if sys.argv[1] == "close":
        victim = memwatch.MemoryWatcher()
        victim.set_callback(see)
    interrupted(calls[sys.argv[1]], 3e-4)
    if sys.argv[1] == "close":
        victim.close()
assert n > 20, (n, rounds)
for i in range(1, 21):
    data[0] = i
    assert watcher.flush(60), i
assert seen[-20:] == list(range(1, 21)), seen[-20:]
start = time.monotonic()
watcher.close()
assert time.monotonic() - start < 2
print(n, rounds)
"""


@pytest.mark.parametrize("call", ["flush", "watch", "events", "stats", "callback", "name", "close"])
def test_a_storm_of_interrupts_leaves_callbacks_alive(call):
    result = run_python(INTERRUPTED + STORM, call, "2", options=(), timeout=110)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_handler_that_raises_leaves_no_lock_held():
    """At each place where Python runs handlers while it enters and leaves a block."""
    code = """
from memwatch._threads import RLock
lock, deadline = RLock(), time.monotonic() + 60
def enter_and_leave():
    while True:
        with lock, lock:
            pass
while n < 500 and time.monotonic() < deadline:
    interrupted(enter_and_leave, 1e-4)
    assert not lock._is_owned(), n
assert n > 20
"""
    result = run_python(INTERRUPTED + code, options=(), timeout=90)
    assert result.returncode == 0, result.stderr


WAITS = {
    "events": "next(watcher.events())",
    "events with a timeout": "next(watcher.events(timeout=60), None)",
    "a flush": "watcher.flush(60)",
}


@pytest.mark.parametrize("wait", WAITS)
def test_an_interrupt_ends_a_wait(wait):
    code = f"""
import os, signal, threading, time, memwatch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
watcher = memwatch.MemoryWatcher()
data, going_on = memwatch.buffer(4096), threading.Event()
watcher.watch(data, "data", callback=lambda event: going_on.wait(30))
data[0] = 1
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
start = time.monotonic()
try:
    {WAITS[wait] if wait == "a flush" else "watcher.flush(0); " + WAITS[wait] + "; " + WAITS[wait]}
except KeyboardInterrupt:
    assert time.monotonic() - start < 10
    going_on.set()
    watcher.close()
else:
    raise SystemExit("no interrupt")
"""
    if wait != "a flush":
        code = code.replace("data[0] = 1\n", "")
    result = run_python(code, options=())
    assert result.returncode == 0, result.stderr


def test_the_same_call_in_a_handler(watched, recorder):
    """A handler, or a finaliser, runs while the same call is under way: here at each line of it, through a trace."""
    data = memwatch.buffer(4096)
    inside = False
    n = 0

    def tracer(frame, event, argument):
        nonlocal inside, n
        if not inside and "memwatch" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename:
            inside = True
            try:
                n += 1
                watched.unwatch("data")
                watched.watch(bytearray(8), f"inner {n}")
                watched.unwatch(f"inner {n}")
                watched.flush(0)
            finally:
                inside = False
        return tracer

    previous = sys.gettrace()
    sys.settrace(tracer)
    try:
        for _ in range(3):
            watched.watch(data, "data")
            watched.unwatch("data")
            watched.flush()
    finally:
        sys.settrace(previous)
    assert n > 20
    watched.watch(data, "data")
    data[0] = 9
    assert watched.flush()
    assert recorder.of("data")[-1].new_value[0] == 9


def test_more_regions_end_than_are_remembered_while_others_do(watcher, monkeypatch):
    monkeypatch.setattr(memwatch._watcher, "RETIRED_MAX", 8)

    class Finalised:
        def __del__(self):
            for number in range(4):
                watcher.watch(bytearray(8), f"finaliser {number}")
                watcher.unwatch(f"finaliser {number}")

    for number in range(40):
        cycle = Finalised()
        cycle.itself = cycle
        del cycle
        watcher.watch(bytearray(8), f"{number}")
        gc.collect()
        assert watcher.unwatch(f"{number}")


def test_a_close_that_was_interrupted_can_be_made_again(recorder):
    watcher = memwatch.MemoryWatcher()
    data = memwatch.buffer(4096)
    watcher.watch(data, "data")
    watcher.set_callback(recorder)

    class Adapter(memwatch.adapters.TrackerAdapter):
        n = 0

        def close(self):
            self.n += 1
            if self.n == 1:
                raise KeyboardInterrupt

    watcher._bind(Adapter())
    with pytest.raises(KeyboardInterrupt):
        watcher.close()
    data[0] = 1
    watcher.close()
    assert [event.new_value[0] for event in recorder] == [1]


@pytest.mark.parametrize("n_watchers", [1, 3])
def test_the_exit_waits_five_seconds_at_most_for_callbacks_that_do_not_end(n_watchers):
    code = """
import sys, threading, time, memwatch
for number in range(int(sys.argv[1])):
    watcher, data, entered = memwatch.MemoryWatcher(), memwatch.buffer(4096), threading.Event()
    watcher.watch(data, "data", callback=lambda event: (entered.set(), threading.Event().wait()))
    data[0] = 1
    assert entered.wait(60)
print(time.monotonic(), flush=True)  # the same clock as here
"""
    result = run_python(code, str(n_watchers), options=())
    ended = time.monotonic()
    assert result.returncode == 0, result.stderr
    took = ended - float(result.stdout)
    assert 4.5 < took < 9, took


def test_a_thread_that_waits_is_woken_by_the_close(watcher):
    ended = []
    stream = watcher.events()

    def read():
        ended.append(list(stream))

    thread = threading.Thread(target=read)
    thread.start()
    watcher.close()
    thread.join(10)
    assert ended == [[]]
