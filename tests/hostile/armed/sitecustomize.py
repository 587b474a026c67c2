"""Arms the whole process: every Python that starts with this folder on its path watches all its anonymous memory.

New mappings are looked for twice a second, on a thread that the threading module does not know, and through a
descriptor that was opened once and lies high, so that none comes and goes. Nobody listens to the events, so that no
objects are made of them. In the end the process leaves a file in $MEMWATCH_ARMED_LOG that says what it watched.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import ctypes
import fcntl
import os
import re
import time

import memwatch

ANONYMOUS = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(\[heap\]|\[anon:[^\]]*\]|)$", re.MULTILINE)
HIGH = 900
RESCAN_S = 0.5
CHUNK = 1 << 16

# No array of ctypes: each length is a class of its own, which tests of the garbage collector count.
WRITABLE = 0x200
view_of = ctypes.pythonapi.PyMemoryView_FromMemory
view_of.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
view_of.restype = ctypes.py_object


class Armed:
    """The process's anonymous memory, watched."""

    def __init__(self) -> None:
        low = os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC)
        self.maps = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, HIGH)
        os.close(low)
        self.pid = os.getpid()
        self.spans: dict[int, tuple[int, int]] = {}
        self.watcher = memwatch.MemoryWatcher(event_capacity=1024)
        self.scan()
        _thread.start_new_thread(self.scan_for_ever, ())

    def scan_for_ever(self) -> None:
        """Looks for what is new, until the process ends."""
        with contextlib.suppress(memwatch.Error):  # closed at exit
            while True:
                time.sleep(RESCAN_S)
                self.scan()

    def mappings(self) -> list[tuple[int, int]]:
        """Returns the anonymous mappings of now."""
        text, offset = b"", 0
        while part := os.pread(self.maps, CHUNK, offset):
            text += part
            offset += len(part)
        return [(int(found[1], 16), int(found[2], 16)) for found in ANONYMOUS.finditer(text)]

    def scan(self) -> None:
        """Forgets what is gone, and watches what is not watched yet."""
        mappings = self.mappings()
        for region_id, (first, last) in list(self.spans.items()):
            if not any(start <= first and last <= end for start, end in mappings):
                self.watcher.unwatch(region_id)
                del self.spans[region_id]
        known = sorted(self.spans.values())
        for start, end in mappings:
            for first, last in [span for span in known if span[0] < end and start < span[1]]:
                if start < first:
                    self.watch(start, first)
                start = max(start, last)
            if start < end:
                self.watch(start, end)

    def watch(self, start: int, end: int) -> None:
        """Watches bytes; the library refuses its own."""
        memory = view_of(start, end - start, WRITABLE)
        try:
            region_id = self.watcher.watch(memory, f"{start:x}", values="none", shadow="hash", precise=False)
        except (memwatch.Error, ValueError):
            return
        self.spans[region_id] = (start, end)

    def leave_word(self) -> None:
        """Says what was watched."""
        if os.getpid() != self.pid:
            return
        stats = self.watcher.get_stats()
        with open(os.path.join(os.environ["MEMWATCH_ARMED_LOG"], str(self.pid)), "w") as log:
            print(stats["backend"], stats["tracked_regions"], stats["tracked_bytes"], stats["detected"], file=log)


# A sub-interpreter starts with this module too: the process is armed once.
if "MEMWATCH_ARMED_LOG" in os.environ and os.environ.get("MEMWATCH_ARMED_PID") != str(os.getpid()):
    os.environ["MEMWATCH_ARMED_PID"] = str(os.getpid())
    armed = Armed()
    atexit.register(armed.leave_word)
