"""SIGTERM delivers and cleans up where that was asked for, and the process ends as it would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time, memwatch
{before}
watcher = memwatch.MemoryWatcher(window_ms=100)
data = bytearray(100)
watcher.watch(data, "data")
watcher.set_callback(lambda event: print("changed", event.new_value[:1], flush=True))
server = watcher.serve(port=0, runtime_dir=sys.argv[1], sigterm=True)
{after}
data[0] = 7
print("ready", flush=True)
{wait}
"""
WAIT = "while True: time.sleep(0.01)"


def run(directory: Path, before: str = "", after: str = "", wait: str = WAIT) -> tuple[int, str]:
    """Sends SIGTERM when the program is ready; its status and what it printed from then on."""
    source = PROGRAM.format(before=before, after=after, wait=wait)
    with subprocess.Popen(
        [sys.executable, "-c", source, str(directory)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        text = line = process.stdout.readline()
        while "ready" not in line and line:
            line = process.stdout.readline()
            text += line
        process.send_signal(signal.SIGTERM)
        return process.wait(60), text + process.stdout.read()


def test_delivers_and_cleans_up(tmp_path: Path) -> None:
    status, text = run(tmp_path)
    assert status == -signal.SIGTERM
    assert "changed b'\\x07'" in text
    assert list(tmp_path.rglob("*.json")) == []


def test_while_the_program_holds_what_closing_waits_for(tmp_path: Path) -> None:
    """The signal may come in the middle of any call of the watcher's."""
    busy = "while True: watcher.unwatch(watcher.watch(bytearray(9), 'other')); watcher.flush(1)"
    status, _ = run(tmp_path, wait=busy)
    assert status == -signal.SIGTERM
    assert list(tmp_path.rglob("*.json")) == []


def test_a_handler_of_the_program_stays(tmp_path: Path) -> None:
    mine = "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))"
    for place in ("before", "after"):
        status, text = run(tmp_path, **{place: mine})
        assert status == 3, text
        assert "changed b'\\x07'" in text
        assert list(tmp_path.rglob("*.json")) == []


def test_ignored_stays_ignored(tmp_path: Path) -> None:
    check = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.05); print('alive'); os._exit(4)"
    status, text = run(tmp_path, before="signal.signal(signal.SIGTERM, signal.SIG_IGN)", wait=check)
    assert (status, "alive" in text) == (4, True)


def test_a_forked_child_just_ends(tmp_path: Path) -> None:
    fork = """
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
assert os.path.exists(server.discovery_file)
"""
    status, _ = run(tmp_path, after=fork)
    assert status == -signal.SIGTERM


def test_not_asked_for_nothing_is_installed() -> None:
    memwatch = pytest.importorskip("memwatch")
    before = signal.getsignal(signal.SIGTERM)
    with memwatch.MemoryWatcher() as watcher, watcher.serve(port=0, runtime_dir=""):
        assert signal.getsignal(signal.SIGTERM) is before
    assert os.getpid()


def test_only_on_the_main_thread(tmp_path: Path) -> None:
    thread = """
import threading
def serve():
    try: watcher.serve(port=0, runtime_dir="", sigterm=True)
    except ValueError as error: print(error, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
thread = threading.Thread(target=serve)
thread.start()
thread.join()
"""
    assert "main thread only" in run(tmp_path, after=thread)[1]
