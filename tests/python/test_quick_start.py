"""The quick start as users have been promised it."""

QUICK_START = """
from memwatch import MemoryWatcher

watcher = MemoryWatcher()

data = bytearray(b"Hello")
watcher.watch(data, name="data")

def on_change(event):
    print(event.variable_name, event.old_value, event.new_value, event.where.line, event.where["function"],
          event.where["attribution"], event.thread_name)

watcher.set_callback(on_change)

data[0] = ord('J')
"""
LINE = 1 + QUICK_START[: QUICK_START.index("data[0]")].count("\n")
EXPECTED = f"data b'Hello' b'Jello' {LINE} <module> exact MainThread\n"


def test_as_written_and_ended_right_after_the_write(run_python):
    run = run_python(QUICK_START)
    assert (run.stdout, run.stderr, run.returncode) == (EXPECTED, "", 0)


def test_ended_by_an_exception(run_python):
    run = run_python(QUICK_START + "raise SystemExit(3)")
    assert (run.stdout, run.stderr, run.returncode) == (EXPECTED, "", 3)


def test_close_then_end(run_python):
    run = run_python(QUICK_START + "watcher.close()\nwatcher.close()")
    assert (run.stdout, run.stderr, run.returncode) == (EXPECTED, "", 0)


def test_many_watchers_left_open(run_python):
    code = """
from memwatch import MemoryWatcher
seen = []
kept = [bytearray(8) for _ in range(10)]
for number, data in enumerate(kept):
    watcher = MemoryWatcher()
    watcher.watch(data, "data", callback=lambda event, number=number: seen.append(number))
del watcher
for data in kept:
    data[0] = 1
import atexit, memwatch._lifetime
memwatch._lifetime.close_all()
assert sorted(seen) == list(range(10)), seen
"""
    run = run_python(code)
    assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)


def test_a_callback_that_never_returns_does_not_hang_the_end(run_python):
    code = """
import threading
import memwatch._watcher
memwatch._watcher.CLOSE_S = 0.5
data = bytearray(8)
watcher = memwatch.MemoryWatcher()
entered = threading.Event()
def stuck(event):
    entered.set()
    threading.Event().wait()
watcher.watch(data, "data", callback=stuck)
data[0] = 1
assert entered.wait(30)
"""
    run = run_python(code)
    assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)
