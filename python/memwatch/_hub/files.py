"""Which exporters there are: their discovery files, without those of the dead, which are taken away."""

from __future__ import annotations

import contextlib
import os
from typing import Iterable, Optional

from memwatch._cli.found import Found, in_directory, runtime_dirs


def process_start(pid: int) -> int:
    """When it was started, in clock ticks since boot; 0 where that is not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def is_gone(said: dict[str, object]) -> bool:
    """Whether the process that left the file has certainly ended: as exporter/src/stale.c does it."""
    pid, started, space = said.get("pid"), said.get("process_start_ticks"), said.get("pid_namespace")
    try:
        ours = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return False
    if not isinstance(pid, int) or pid <= 0 or not isinstance(started, int) or space != ours:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    now = process_start(pid)
    return started != 0 and now != 0 and now != started


def candidates(directories: Optional[Iterable[str]] = None) -> list[Found]:
    """What the files say. Whose process is certainly gone is left out, and its file removed."""
    found: list[Found] = []
    for directory in directories or runtime_dirs():
        for each in in_directory(directory, 0, [], False):
            if is_gone(each.said):
                with contextlib.suppress(OSError):
                    os.unlink(each.file)
            else:
                found.append(each)
    return found
