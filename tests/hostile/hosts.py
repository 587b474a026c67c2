"""Python hosts of the hostile table: `hosts.py BEHAVIOUR BACKEND` is one cell, in a process of its own.

A host ends with status 0, or dies of the signal that it would have died of anyway.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import memwatch

BACKENDS = ("auto", "uffd", "mprotect", "poll")
SKIPPED = 77


@dataclass(frozen=True)
class Behaviour:
    """What a host does, and the signal that it dies of (0: none)."""

    host: Callable[[memwatch.MemoryWatcher, memoryview], None]
    dies_of: int = 0


BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(dies_of: int = 0) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Puts a host into the table."""

    def put(host: Callable[..., None]) -> Callable[..., None]:
        BEHAVIOURS[host.__name__] = Behaviour(host, dies_of)
        return host

    return put


@behaviour()
def resets_sigtrap_and_writes(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    for i in range(50):
        signal.signal(signal.SIGTRAP, signal.SIG_DFL)
        data[i * 4096] = i + 1
        if i % 10 == 0:
            assert watcher.flush()


@behaviour()
def enables_faulthandler_later(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    for i in range(20):
        faulthandler.enable()
        data[i * 4096] = i + 1
        if i % 5 == 0:
            assert watcher.flush()
        faulthandler.disable()
        data[i * 4096] = i + 2


@behaviour(dies_of=signal.SIGSEGV)
def crashes_after_faulthandler_came_and_went(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    for i in range(3):
        faulthandler.enable()
        time.sleep(0.1)
        data[0] = i + 1
        assert watcher.flush()
        faulthandler.disable()
    signal.alarm(10)
    ctypes.string_at(0)


@behaviour(dies_of=signal.SIGSEGV)
def crashes_under_faulthandler(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    faulthandler.enable()
    data[0] = 1
    assert watcher.flush()
    signal.alarm(10)
    ctypes.string_at(0)


@behaviour()
def closes_all_descriptors_and_opens_its_own(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    ours = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    os.closerange(3, max(ours) + 1)
    pairs = [socket.socketpair() for _ in range(10)]
    for left, _ in pairs:
        left.sendall(b"0123456789" * 10)
    put = [number for number in ours[3:] if not os.path.exists(f"/proc/self/fd/{number}")]
    for number in put:  # the host's wherever one of the library's was
        os.dup2(pairs[0][1].fileno(), number)
    data[0] = 1
    assert watcher.flush()
    if (child := os.fork()) == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    watcher.close()
    for _, right in pairs:
        right.setblocking(False)
        assert len(right.recv(1000)) == 100
    for number in put:
        assert os.fstat(number).st_ino == os.fstat(pairs[0][1].fileno()).st_ino


@behaviour()
def has_a_thousand_sockets_and_selects(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    data[0] = 1
    assert watcher.flush()
    pairs[-1][0].send(b"x")
    assert select.select([pairs[-1][1]], [], [], 5)[0]


def main() -> int:
    name, backend = sys.argv[1:]
    try:
        watcher = memwatch.MemoryWatcher(backend=backend)
    except memwatch.Error as error:
        print(error)
        return SKIPPED
    data = memoryview(memwatch.buffer(1 << 20))
    watcher.watch(data, "data")
    BEHAVIOURS[name].host(watcher, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
