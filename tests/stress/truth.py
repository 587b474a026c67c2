"""Thousands of authors, known beforehand: what each event says of who, and from what to what, is held against them.

Each write is eight bytes: its number in its region and its author. A lock a region makes the order of the writes that
of the numbers, so an event's old and new value say whose writes it holds. Authors are functions on lines of their own,
in Python, NumPy and C (with and without the GIL), and system calls. Six threads write, one flushes, one watches and
unwatches neighbours.

    python tests/stress/truth.py [SECONDS] [--budget 0.01] [--window 5]

Prints the counts as one line of JSON. Exit status 1: something untrue was said.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
import numpy as np

import memwatch

AUTHORS, C_FUNCTIONS, THREADS = 3000, 100, 6
OWN, SHARED, HEAP = 12, 8, 40
NUMBER = struct.Struct("<Q")
FORMS = (
    "r.words[0] = v",
    "r.array[0] = v",
    "r.bytes[0:8] = pack(v)",
    "copyto(r.array, v)",
    "add(zero, v, out=r.array)",
    "memmove(r.address, pack(v), 8)",
    "nogil.f{c}(r.address, v)",
    "gil.f{c}(r.address, v)",
)
KERNEL = "readv(r.bytes, v)"
STORES = ("*p = v;", "__atomic_exchange_n(p, v, 5);", "__builtin_memcpy(p, &v, 8);", "__builtin_ia32_movnti64(p, v);")


def compile_library(folder: str) -> str:
    text = "".join(
        f"void f{i}(long long *p, long long v) {{ {STORES[i % len(STORES)]} }}\n" for i in range(C_FUNCTIONS)
    )
    source, library = Path(folder, "authors.c"), Path(folder, "authors.so")
    source.write_text(text)
    subprocess.run(["cc", "-g", "-O1", "-msse2", "-shared", "-fPIC", "-o", library, source], check=True)
    return str(library)


class Kernel:
    """A system call that writes: a pipe a thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __call__(self, target: memoryview, value: int) -> None:
        if not hasattr(self._local, "ends"):
            self._local.ends = os.pipe()
        reader, writer = self._local.ends
        os.write(writer, NUMBER.pack(value))
        os.readv(reader, [target[:8]])


class Region:
    """A watched variable, with what was written to it and what events have told."""

    def __init__(self, name: str, kind: str, memory: Any) -> None:
        self.name, self.kind, self.memory = name, kind, memory
        self.bytes = memoryview(memory).cast("B")
        self.words = self.bytes[:8].cast("q")
        self.array = np.frombuffer(memory, "i8", count=1)
        self.address = self.array.ctypes.data
        self.lock = threading.Lock()
        self.authors = [0]  # by number
        self.told: Optional[bytes] = bytes(self.bytes)  # None: not known


def make_authors(library: str) -> tuple[list[Any], list[bool]]:
    """The functions, and whether each is a system call's."""
    forms = [KERNEL if i % 40 == 39 else FORMS[i % len(FORMS)].format(c=i % C_FUNCTIONS) for i in range(AUTHORS)]
    names = {
        "copyto": np.copyto, "add": np.add, "zero": np.zeros(1, "i8"), "memmove": ctypes.memmove, "pack": NUMBER.pack,
        "readv": Kernel(), "nogil": ctypes.CDLL(library), "gil": ctypes.PyDLL(library),
    }  # fmt: skip
    for lib in (names["nogil"], names["gil"]):
        for i in range(C_FUNCTIONS):
            getattr(lib, f"f{i}").argtypes = (ctypes.c_void_p, ctypes.c_longlong)
    text = "\n".join(f"def author_{i}(r, v): {form}" for i, form in enumerate(forms))
    exec(compile(text, "authors.py", "exec"), names)
    return [names[f"author_{i}"] for i in range(AUTHORS)], [form == KERNEL for form in forms]


def make_regions() -> list[Region]:
    shared = memoryview(memwatch.buffer(4096))
    regions = [Region(f"own{i}", "own", memwatch.buffer(4096)) for i in range(OWN)]
    regions += [Region(f"shared{i}", "shared", shared[i * 256 : i * 256 + 64]) for i in range(SHARED)]
    return regions + [Region(f"heap{i}", "heap", bytearray(16 + i % 4 * 40)) for i in range(HEAP)]


class Audit:
    """Holds events against what was written."""

    def __init__(self, regions: list[Region], is_kernel: list[bool]) -> None:
        self.regions = {region.name: region for region in regions}
        self.is_kernel = is_kernel
        self.counts: collections.Counter[str] = collections.Counter()
        self.untrue: list[str] = []
        self.seq = 0

    def fail(self, what: str, event: memwatch.ChangeEvent) -> None:
        self.counts["untrue " + what] += 1
        if len(self.untrue) < 20:
            authors = [f"author_{a}" for a in sorted(self.authors(event))]
            self.untrue.append(f"{what}: {event!r} {event.where!r}, held {authors[:4]} of {len(authors)}")

    def authors(self, event: memwatch.ChangeEvent) -> set[int]:
        region = self.regions[event.variable_name]
        old, new = (NUMBER.unpack(bytes(value[:8]))[0] >> 16 for value in (event.old_value, event.new_value))
        return set(region.authors[old + 1 : new + 1])

    def again(self, event: memwatch.ChangeEvent) -> set[int]:
        """The author of the old value, who may have stored it twice: memcpy writes eight bytes as two that overlap."""
        number = NUMBER.unpack(bytes(event.old_value[:8]))[0] >> 16
        region, symbol = self.regions[event.variable_name], event.where.symbol or ""
        return {region.authors[number]} if "mem" in symbol and number < len(region.authors) else set()

    def follows(self, event: memwatch.ChangeEvent) -> bool:
        """Whether it is an event of a region of ours, in order. Those that were missed break the chains."""
        if event.seq <= self.seq:
            self.fail("order", event)
        if event.seq != self.seq + 1:
            self.counts["missed"] += event.seq - self.seq - 1
            for region in self.regions.values():
                region.told = None
        self.seq = event.seq
        return event.variable_name in self.regions

    def __call__(self, event: memwatch.ChangeEvent) -> None:
        if not self.follows(event):
            return
        region = self.regions[event.variable_name]
        where, authors = event.where, self.authors(event)
        old, new = bytes(event.old_value), bytes(event.new_value)
        self.counts["events"] += 1
        self.counts[f"{where.attribution} {where.reason or ''}".strip()] += 1
        if region.told not in (old, None):
            self.fail("chain", event)
        region.told = new
        if event.changed_bytes != sum(a != b for a, b in zip(old, new)) or not event.changed_bytes:
            self.fail("bytes", event)
        users = {a for a in authors if not self.is_kernel[a]}
        if where.attribution == "exact" and where.function not in {f"author_{a}" for a in users | self.again(event)}:
            self.fail("exact", event)
        if where.reason == "kernel" and users == authors:
            self.fail("kernel", event)
        if len(authors) == 1 and users:
            self.counts[f"single {region.kind}"] += 1
            self.counts[f"single {region.kind} {where.attribution} {where.reason or ''}".strip()] += 1


def write_always(regions: list[Region], authors: list[Any], seed: int, end: float) -> None:
    dice = random.Random(seed)
    while time.monotonic() < end:
        region, author = dice.choice(regions), dice.randrange(AUTHORS)
        with region.lock:
            number = len(region.authors)
            region.authors.append(author)
            authors[author](region, number << 16 | author)
        if dice.random() < 0.05:
            time.sleep(dice.random() * 0.01)


def flush_always(watcher: memwatch.MemoryWatcher, end: float) -> None:
    dice = random.Random(1)
    while time.monotonic() < end:
        watcher.flush()
        time.sleep(dice.random() * 0.05)


def neighbours_always(watcher: memwatch.MemoryWatcher, audit: Audit, end: float) -> None:
    while time.monotonic() < end:
        for k in range(8):
            watcher.watch(bytearray(24), f"neighbour{k}", callback=audit)
        time.sleep(0.002)
        for k in range(8):
            watcher.unwatch(f"neighbour{k}")


def check_ledger(watcher: memwatch.MemoryWatcher, audit: Audit) -> None:
    stats = watcher.get_stats()
    ended = sum(stats[key] for key in ("delivered", "coalesced", "unchanged", "filtered"))
    if stats["detected"] != ended + sum(stats["dropped"].values()):
        audit.counts["untrue ledger"] += 1
        audit.untrue.append(f"ledger: {stats}")


def run(seconds: float, budget: float, window_ms: float) -> Audit:
    with tempfile.TemporaryDirectory() as folder:
        authors, is_kernel = make_authors(compile_library(folder))
    regions = make_regions()
    audit = Audit(regions, is_kernel)
    options = {"attribution_budget": budget, "window_ms": window_ms}
    with memwatch.MemoryWatcher(**options) as watcher:
        for region in regions:
            watcher.watch(region.memory, region.name, callback=audit)
        end = time.monotonic() + seconds
        jobs = [(write_always, (regions, authors, seed, end)) for seed in range(THREADS)]
        jobs += [(flush_always, (watcher, end)), (neighbours_always, (watcher, audit, end))]
        threads = [threading.Thread(target=target, args=arguments) for target, arguments in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        watcher.flush(60)
        check_ledger(watcher, audit)
        for region in regions:
            if region.told not in (bytes(region.bytes), None):
                audit.counts["untrue end"] += 1
                audit.untrue.append(f"end: {region.name} holds {bytes(region.bytes[:8])!r}, told {region.told[:8]!r}")
        audit.counts["available"] = int(watcher.get_stats()["attribution"]["available"])
    audit.counts["writes"] = sum(len(region.authors) - 1 for region in regions)
    return audit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=300)
    parser.add_argument("--budget", type=float, help="attribution_budget; all of 0, 0.01 and 1 in turn when left out")
    parser.add_argument("--window", type=int, help="window_ms; all of 1, 5 and 50 in turn when left out")
    given = parser.parse_args()
    budgets = [0.01, 1, 0] if given.budget is None else [given.budget]
    windows = [1, 5, 50] if given.window is None else [given.window]
    runs = [(budget, window) for budget in budgets for window in windows if budget or window == windows[0]]
    failed = False
    for budget, window in runs:
        audit = run(given.seconds / len(runs), budget, window)
        print(json.dumps({"budget": budget, "window_ms": window, **dict(sorted(audit.counts.items()))}), flush=True)
        print("\n".join(audit.untrue), file=sys.stderr, end="\n" if audit.untrue else "")
        failed |= bool(audit.untrue)
    return failed


if __name__ == "__main__":
    sys.exit(main())
