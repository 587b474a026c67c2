"""Page faults without end on memory that nobody watches, as an ordinary user: no filter in the kernel, default budget.

Two loads: fresh memory touched page by page, and NumPy temporaries of 1 to 8 MB in a loop. Their CPU time, the worker's
included, with a watcher in the process and without. The processes take turns; of each one's rounds the lower quartile
counts, since a busy neighbour of this machine can only slow a round down. Prints lines of "name TAB value TAB unit".
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from statistics import quantiles

import memwatch

try:
    import numpy as np
except ImportError:  # the one load is left out
    np = None

PAGE = 4096
N_ROUNDS = 16
ROUND_S = 0.3  # some periods of the budget
PR_SET_DUMPABLE = 4
NOBODY = 65534


def fresh_memory() -> Iterator[int]:
    """Touches memory that was never used, page by page. Yields how many pages it has touched."""
    n_bytes = 4 << 20
    while True:
        memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, n_bytes, PAGE):
            memory[at] = 1
        memory.close()
        yield n_bytes // PAGE


def numpy_temporaries() -> Iterator[int]:
    """Makes temporaries of 1 to 8 MB. Yields how many pages they had."""
    sources = [np.ones(megabytes << 17) for megabytes in range(1, 9)]
    while True:
        for source in sources:
            source * 2 + source
            yield 2 * source.nbytes // PAGE


def become_nobody() -> None:
    """Gives up the right to load a filter. Without it the process could not look at its own pages any more."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def watch_something() -> memwatch.MemoryWatcher:
    """A watcher with the defaults."""
    watcher = memwatch.MemoryWatcher()
    watcher.watch(memwatch.buffer(PAGE), "data")
    attribution = watcher.get_stats()["attribution"]
    if not attribution["available"] or attribution["filtered"]:
        sys.exit(f"not what is measured here: {attribution}")
    return watcher


def one_round(load: Iterator[int]) -> float:
    """Works for a while. Returns the CPU's nanoseconds a page."""
    end, cpu, n_pages = time.monotonic() + ROUND_S, time.process_time_ns(), 0
    while time.monotonic() < end:
        n_pages += next(load)
    return (time.process_time_ns() - cpu) / n_pages


def start(load: Callable[[], Iterator[int]], watched: bool) -> tuple[int, int]:
    """A child that does a round for each byte it gets. Returns where to write and where to read."""
    (go, turn), (result, done) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(turn)
        become_nobody()
        watcher = watch_something() if watched else None
        working = load()
        while os.read(go, 1):
            os.write(done, struct.pack("d", one_round(working)))
        os._exit(watcher is None)
    os.close(go)
    os.close(done)
    return turn, result


def main() -> int:
    """Measures all in turns."""
    loads = [fresh_memory] + ([numpy_temporaries] if np else [])
    ways = [("unwatched", False), ("memwatch.default_budget", True), ("unwatched.again", False)]
    children = {f"{load.__name__}.{name}": start(load, watched) for load in loads for name, watched in ways}
    rounds: dict[str, list[float]] = {name: [] for name in children}
    for number in range(N_ROUNDS):
        for name in children if number % 2 else reversed(children):
            turn, result = children[name]
            os.write(turn, b".")
            rounds[name].append(struct.unpack("d", os.read(result, 8))[0])
    for name, numbers in rounds.items():
        print(f"{name}\t{quantiles(numbers)[0]:.6g}\tns a page")
    return 0


if __name__ == "__main__":
    sys.exit(main())
