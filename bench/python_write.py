"""The first write to a page by a Python writer, beside the bare signal: what reading the running frames costs.

The same loop writes a byte a page under each of the ways; the bare ones use userfaultfd WP_ASYNC and a perf event that
signals every fault, with a handler that does nothing. The ways take turns, round by round, so that a slow moment of the
machine is everybody's. Prints lines of "name TAB value TAB unit", as the programs in C do.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import memwatch

PAGE = 4096
N_PAGES = 2048
ROUNDS = 60
#: the writer stands that deep in calls
CALLS = 24

LIBC = ctypes.CDLL(None, use_errno=True)

# Linux: numbers of system calls on x86-64, of requests and of flags.
SYS_USERFAULTFD, SYS_PERF_EVENT_OPEN = 323, 298
UFFD_USER_MODE_ONLY = 1
UFFD_API, UFFDIO_API, UFFDIO_REGISTER, UFFDIO_WRITEPROTECT = 0xAA, 0xC018AA3F, 0xC020AA00, 0xC018AA06
FEATURES = 1 << 0 | 1 << 13 | 1 << 15  # PAGEFAULT_FLAG_WP, WP_UNPOPULATED, WP_ASYNC
MODE_WP = 2
PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS = 1, 2
SAMPLE_IP_AND_ADDR = 1 << 0 | 1 << 3
#: inherit, exclude_kernel, exclude_hv, inherit_thread, remove_on_exec, sigtrap
EVENT_BITS = 1 << 1 | 1 << 5 | 1 << 6 | 1 << 35 | 1 << 36 | 1 << 37
SA_SIGINFO, SA_ONSTACK, SA_RESTART = 4, 0x08000000, 0x10000000


class Sigaction(ctypes.Structure):
    """What glibc's sigaction(2) takes."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def check(result: int, what: str) -> int:
    """Returns a system call's result, or raises."""
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def signal_every_fault() -> None:
    """A perf event on this thread, and a function of libc that does nothing as the handler."""
    action = Sigaction(ctypes.cast(LIBC.abs, ctypes.c_void_p), flags=SA_SIGINFO | SA_ONSTACK | SA_RESTART)
    check(LIBC.sigaction(signal.SIGTRAP, ctypes.byref(action), None), "sigaction")
    attributes = struct.pack(
        "IIQQQQQ", PERF_TYPE_SOFTWARE, 136, PERF_COUNT_SW_PAGE_FAULTS, 1, SAMPLE_IP_AND_ADDR, 0, EVENT_BITS
    )
    check(LIBC.syscall(SYS_PERF_EVENT_OPEN, attributes.ljust(136, b"\0"), 0, -1, -1, 0), "perf_event_open")


@dataclass(frozen=True)
class Way:
    """One way to notice a write: `begin` prepares the memory, and returns what arms it before a round."""

    name: str
    begin: Callable[[mmap.mmap], Callable[[], object]]


def bare(data: mmap.mmap) -> Callable[[], object]:
    """The kernel's mechanisms and nothing else."""
    uffd = check(LIBC.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | UFFD_USER_MODE_ONLY), "userfaultfd")
    start = ctypes.addressof(ctypes.c_char.from_buffer(data))
    fcntl.ioctl(uffd, UFFDIO_API, struct.pack("QQQ", UFFD_API, FEATURES, 0))
    fcntl.ioctl(uffd, UFFDIO_REGISTER, struct.pack("QQQQ", start, len(data), MODE_WP, 0))
    arm = struct.pack("QQQ", start, len(data), 1)
    signal_every_fault()
    return lambda: fcntl.ioctl(uffd, UFFDIO_WRITEPROTECT, arm)


def watched(stack_depth: int) -> Callable[[mmap.mmap], Callable[[], object]]:
    """A watcher with attribution, which nothing throttles."""

    def begin(data: mmap.mmap) -> Callable[[], object]:
        watcher = memwatch.MemoryWatcher(backend="uffd", attribution_budget=1, stack_depth=stack_depth)
        watcher.watch(data, "data", values="none")
        return watcher.flush

    return begin


def write_pages(data: mmap.mmap, value: int) -> tuple[int, int]:
    """Writes a byte a page. Returns the CPU's and the wall's nanoseconds."""
    cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
    for at in range(0, N_PAGES * PAGE, PAGE):
        data[at] = value
    return time.thread_time_ns() - cpu, time.perf_counter_ns() - wall


def chain(calls: int) -> Callable[[mmap.mmap, int], tuple[int, int]]:
    """Makes functions that call one another, each of its own code; the last one writes."""
    lines = ["def call_0(data, value): return write_pages(data, value)"]
    lines += [f"def call_{i}(data, value): return call_{i - 1}(data, value)" for i in range(1, calls)]
    names: dict[str, Any] = {"write_pages": write_pages}
    exec(compile("\n".join(lines), __file__, "exec"), names)
    return names[f"call_{calls - 1}"]


def run(way: Way, turns: int, results: int) -> None:
    """A child: a round at each turn."""
    data = mmap.mmap(-1, N_PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    data.madvise(mmap.MADV_NOHUGEPAGE)
    write_pages(data, 255)
    arm, write = way.begin(data), chain(CALLS)
    for number in range(ROUNDS):
        os.read(turns, 1)
        arm()
        os.write(results, struct.pack("QQ", *write(data, number)))


def main() -> int:
    """Measures all ways in turns."""
    ways = [Way("bare.wp_async_sigtrap", bare)]
    ways += [Way(f"memwatch.stack_depth_{depth}", watched(depth)) for depth in (1, 16)]
    children = []
    for way in ways:
        (turns, turn), (result, results) = os.pipe(), os.pipe()
        if os.fork() == 0:
            run(way, turns, results)
            os._exit(0)
        os.close(turns)
        os.close(results)
        children.append((turn, result))
    rounds: list[list[tuple[int, int]]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for i, (turn, result) in enumerate(children):
            os.write(turn, b".")
            rounds[i].append(struct.unpack("QQ", os.read(result, 16)))
    for _ in ways:
        os.wait()
    for unit, suffix in ((0, ""), (1, ".wall")):
        for way, numbers in zip(ways, rounds, strict=True):
            print(f"{way.name}{suffix}\t{median(number[unit] for number in numbers) / N_PAGES:.6g}\tns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
