"""What must hold on every machine, whatever it allows. Prints what is wrong and exits with 1; else a line of facts.

usage: check.py BACKEND WRITER

BACKEND is what `auto` must take here, WRITER "known" or "unknown". Run in each row by scripts/machines/rows.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memwatch

MIB = 1 << 20
POLL_SHARE_MOST = 1.5  # of poll_budget
WATCH_S = 3 if os.environ.get("VM") else 10


def cpu_s() -> float:
    """CPU time of the worker's thread."""
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == "memwatch":
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    raise AssertionError("no thread is named memwatch")


def has_handler(number: int) -> bool:
    """Does this process catch the signal?"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    raise AssertionError("no SigCgt")


def read_into_everything(big: bytearray) -> None:
    """What the kernel writes for the process arrives whole."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.send(b"d" * 5000)
    assert right.recv_into(big) == 5000, "a datagram was cut"
    left, right = socket.socketpair()
    left.send(b"s" * 5000)
    assert right.recv_into(big) == 5000, "a stream was cut"
    reader, writer = os.pipe()
    os.write(writer, b"y" * 100)
    assert os.readv(reader, [memoryview(big)[8192:]]) == 100, "readv was cut"
    with tempfile.TemporaryFile() as file:
        file.write(os.urandom(MIB))
        file.seek(0)
        with open(file.fileno(), "rb", buffering=0, closefd=False) as raw:
            n = raw.readinto(big)
        assert n == MIB, f"readinto gave {n} of {MIB}"


def quick_start(watcher: memwatch.MemoryWatcher, writer: str) -> None:
    """Old and new value, and the writer where that can be known."""
    events: list[memwatch.ChangeEvent] = []
    data = memwatch.buffer(4096)
    watcher.watch(data, name="data", callback=events.append)
    watcher.flush(60)
    data[100] = 7
    assert watcher.flush(60), "the flush did not end"
    [event] = events
    assert (event.old_value[100], event.new_value[100]) == (0, 7), "old and new value"
    known = event.where.attribution == "exact" and event.where.function == "quick_start"
    assert known == (writer == "known"), f"the writer: {event.where}"


def readme(writer: str) -> None:
    """README's first program, as it stands, prints what it promises."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    program = text.partition("```python\n")[2].partition("```")[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "quick_start.py")
        path.write_text(program)
        run = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300)
    line = 1 + program.splitlines().index('data[0] = ord("J")')
    assert "data: b'Hello' -> b'Jello'" in run.stdout, f"README's program printed {run.stdout}{run.stderr}"
    known = f"written by <module>, {path}:{line}" in run.stdout
    assert (run.returncode, known) == (0, writer == "known"), f"README's program: {run.stdout}{run.stderr}"


def told_in_time(watcher: memwatch.MemoryWatcher, big: bytearray) -> None:
    """Polled: a change that lasts is told within the promise, and looking keeps its budget."""
    watcher.flush(60)
    before = watcher.get_stats()["delivered"]
    started, cpu = time.monotonic(), cpu_s()
    big[MIB // 2] ^= 1
    while watcher.get_stats()["delivered"] == before:
        late_ms = (time.monotonic() - started) * 1e3
        promised_ms = watcher.get_stats()["poll_round_ms"]
        assert late_ms < 2 * promised_ms + 5000, f"not told after {late_ms:.0f} ms, promised {promised_ms} ms"
        time.sleep(0.01)
    time.sleep(max(0, started + WATCH_S - time.monotonic()))
    share = (cpu_s() - cpu) / (time.monotonic() - started)
    # Software emulation makes each wake-up dear: there only the order of magnitude can be told.
    most = watcher.get_stats()["poll_budget"] * POLL_SHARE_MOST * (10 if os.environ.get("VM") else 1)
    assert share <= most + 0.002, f"polling took {share:.2%} of a core"


def main(backend: str, writer: str) -> None:
    """All of it."""
    big = bytearray(MIB)
    with memwatch.MemoryWatcher(attribution_budget=1) as watcher:
        stats = watcher.get_stats()
        taken, note = stats["backend"], stats["attribution"]["note"]
        assert taken == backend, f"auto took {taken}, not {backend}: {note}"
        assert not has_handler(signal.SIGSEGV), "SIGSEGV has a handler"
        watcher.watch(big, name="big")
        read_into_everything(big)
        assert watcher.flush(60), "the flush did not end"
        faulthandler.enable()
        big[9000] ^= 1
        watcher.flush(60)
        quick_start(watcher, writer)
        if taken == "poll":
            told_in_time(watcher, big)
    readme(writer)
    print(f"ok {taken}, writer {writer}: {note}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except AssertionError as error:
        print(f"FAIL {error}")
        sys.exit(1)
