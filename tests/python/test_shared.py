"""Memory that another process writes, through every door that Python has; a backend for one region."""

from __future__ import annotations

import mmap
import multiprocessing
import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest

import memwatch

PATIENCE_S = 30.0


def wait_for_event(watcher: memwatch.MemoryWatcher) -> memwatch.Event:
    """Returns the first event; nobody flushes."""
    event = next(watcher.events(since=0, timeout=PATIENCE_S), None)
    assert event is not None
    return event


def write_elsewhere(path: str, offset: int, value: int) -> None:
    code = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(int(sys.argv[2])); f.write(bytes([int(sys.argv[3])]))"
    subprocess.run([sys.executable, "-c", code, path, str(offset), str(value)], check=True)


def check_foreign(event: memwatch.Event) -> None:
    assert event.where.attribution == "none"
    assert event.where.reason in ("foreign", "polling")
    assert event.where.line is None
    assert event.backend == "poll"


def test_a_shared_memory_block() -> None:
    block = shared_memory.SharedMemory(create=True, size=4096)
    table = np.ndarray((64,), dtype="u1", buffer=block.buf)
    table[:] = 0
    with memwatch.MemoryWatcher() as watcher:
        watcher.watch(table, "table")
        write_elsewhere(f"/dev/shm/{block.name}", 24, 7)
        check_foreign(wait_for_event(watcher))
        table[40] = 1
        watcher.flush()
        (blame,) = watcher.blame("table", 24)
        assert blame.event is not None
        check_foreign(blame.event)
    del table
    block.close()
    block.unlink()


def test_a_value_of_multiprocessing() -> None:
    value = multiprocessing.get_context("fork").Value("i", 0, lock=False)
    with memwatch.MemoryWatcher() as watcher:
        watcher.watch(value, "value")
        child = multiprocessing.get_context("fork").Process(target=setattr, args=(value, "value", 5))
        child.start()
        child.join()
        event = wait_for_event(watcher)
        check_foreign(event)
        assert event.new == 5


def test_a_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(bytes(4096))
    numbers = np.memmap(path, dtype="u1", mode="r+")
    with memwatch.MemoryWatcher() as watcher:
        watcher.watch(numbers, "numbers")
        write_elsewhere(str(path), 8, 3)
        check_foreign(wait_for_event(watcher))


def test_a_backend_for_one_region() -> None:
    buffers = [mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2)]
    with memwatch.MemoryWatcher() as watcher:
        for name, backend, buffer in zip(("polled", "own"), ("poll", None), buffers, strict=True):
            watcher.watch(buffer, name, backend=backend)
            buffer[5] = 1
        watcher.flush()
        events = {event.variable_name: event for event in watcher.history("polled") + watcher.history("own")}
        assert events["polled"].backend == "poll"
        assert events["own"].backend == watcher.get_stats()["backend"]
        with pytest.raises(ValueError, match="no backend is named"):
            watcher.watch(bytearray(64), "x", backend="slow")
