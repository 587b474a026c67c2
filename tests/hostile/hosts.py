"""Python hosts of the hostile table: `hosts.py BEHAVIOUR BACKEND` is one cell, in a process of its own.

A host ends with status 0, or dies of the signal that it would have died of anyway.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
def turns_faulthandler_on_and_off_at_any_time(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    with open(os.devnull, "w") as silent:
        for i in range(60):
            (faulthandler.enable if i % 3 else faulthandler.disable)(*([silent] if i % 3 else []))
            data[i * 4096] = i + 1
            if i % 7 == 0:
                faulthandler.dump_traceback_later(0.01, file=silent)
            if i % 7 == 3:
                faulthandler.cancel_dump_traceback_later()
            if i % 5 == 0:
                faulthandler.register(signal.SIGUSR1, silent)
                os.kill(os.getpid(), signal.SIGUSR1)
                faulthandler.unregister(signal.SIGUSR1)
            if i % 10 == 0:
                assert watcher.flush()
        faulthandler.cancel_dump_traceback_later()
        faulthandler.disable()
    data[0] = 200
    assert watcher.flush()
    assert watcher.history("data")[-1].new_preview[0] == 200


@behaviour()
def forks_by_the_c_library(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    fork = ctypes.PyDLL(None).fork  # as uWSGI: with the GIL, and without Python's hooks
    for i in range(10):
        data[0] = i + 1
        if (child := fork()) == 0:
            data[0] = data[4096] = 99
            watched = "watched"
            try:
                watcher.flush(1)
            except memwatch.Error:
                watched = "not watched"
            os._exit(watched != "not watched")
        assert os.waitpid(child, 0)[1] == 0
        assert watcher.flush()
    assert watcher.history("data")[-1].new_preview[0] == 10


@behaviour()
def writes_in_a_sub_interpreter(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found]

        shares_the_gil: dict[str, Any] = {"config": "legacy"}  # the only kind that may import ctypes
    except ImportError:  # before Python 3.13
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]

        shares_the_gil = {"isolated": False}
    address = ctypes.addressof(ctypes.c_char.from_buffer(data))
    code = f"import ctypes\nfor i in range(20): ctypes.memset({address} + i * 4096, i + 1, 1)"
    for _ in range(3):
        interpreter = interpreters.create(**shares_the_gil)
        interpreters.run_string(interpreter, code)
        interpreters.destroy(interpreter)
        assert watcher.flush()
        assert bytes(data[i * 4096] for i in range(20)) == bytes(range(1, 21))
        for i in range(20):
            data[i * 4096] = 0
    assert watcher.flush()
    assert watcher.history("data")


@behaviour()
def grows_and_shrinks_arrays(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    try:
        import numpy as np
    except ImportError:
        sys.exit(SKIPPED)
    if watcher.get_stats()["backend"] == "mprotect":
        sys.exit(SKIPPED)  # mremap(2) fails or keeps pages closed: docs/limits.md
    for i in range(12):
        array = np.zeros(1 << 18)
        watcher.watch(array, f"array{i}")
        array[0] = 1
        for n in (1 << 19, 1 << 16, 1 << 20, 16):
            array.resize(n, refcheck=False)
            array[n - 1] = i
        assert watcher.flush()
    assert watcher.unwatch("array0") in (True, False)
    data[0] = 3
    assert watcher.flush()
    assert watcher.history("data")[-1].new_preview[0] == 3


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


class SignalStack(ctypes.Structure):
    """The C library's stack_t."""

    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size_bytes", ctypes.c_size_t)]


AT_MINSIGSTKSZ = 51
STACK_BYTES, OURS_BYTES, PAINT = 8192, 3 * 1024, 0xA5


@behaviour()
def has_a_small_signal_stack(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    libc = ctypes.CDLL(None)
    libc.getauxval.restype = ctypes.c_ulong
    memory = mmap.mmap(-1, STACK_BYTES)
    memory[:] = bytes([PAINT]) * STACK_BYTES
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.sigaltstack(ctypes.byref(SignalStack(address, 0, STACK_BYTES)), None) == 0
    code = "def write(data, i):\n    data[i * 4096] = i + 1\n"
    scope: dict[str, Callable[[memoryview, int], None]] = {}
    exec(compile(code, f"/{'é' * 300}/{'x' * 300}.py", "exec"), scope)
    for i in range(20):
        scope["write"](data, i)
    assert watcher.flush()
    used = STACK_BYTES - next((i for i, byte in enumerate(memory[:]) if byte != PAINT), STACK_BYTES)
    assert used < libc.getauxval(AT_MINSIGSTKSZ) + OURS_BYTES, used


@behaviour()
def is_at_the_limit_of_mappings(watcher: memwatch.MemoryWatcher, data: memoryview) -> None:
    libc = ctypes.CDLL(None)
    n_pages = 2 * int(Path("/proc/sys/vm/max_map_count").read_text()) + 2
    if n_pages > 1 << 20:
        sys.exit(SKIPPED)
    memory = mmap.mmap(-1, n_pages * 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for i in range(0, n_pages, 2):
        if libc.mprotect(ctypes.c_void_p(address + i * 4096), 4096, mmap.PROT_READ) < 0:
            break
    for i in range(100):
        data[i * 4096] = i + 1
        if i % 10 == 0:
            assert watcher.flush(10)
    assert watcher.flush(10)
    libc.mprotect(ctypes.c_void_p(address), n_pages * 4096, mmap.PROT_READ)
    account = watcher.get_stats()
    assert account["detected"] == sum(
        account[key] for key in ("delivered", "coalesced", "unchanged", "filtered")
    ) + sum(account["dropped"].values())


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
