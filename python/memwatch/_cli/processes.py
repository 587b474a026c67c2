"""Processes as /proc shows them: namespaces, ids inside containers."""

from __future__ import annotations

import os
import re
from typing import Optional, Union


def my_uid() -> int:
    """The user; -1 where users have no numbers, as on Windows."""
    return os.geteuid() if hasattr(os, "geteuid") else -1


def namespace(pid: Union[int, str], kind: str) -> Optional[str]:
    """The name of a process's namespace; None when it may not be asked."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None


def inner_pid(pid: int) -> int:
    """The process's id in its own pid namespace."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        numbers = re.search(r"^NSpid:\s+(.*)$", file.read(), re.M)
    return int(numbers[1].split()[-1]) if numbers else pid


def pid_seen_from_here(inner: int, neighbour: int) -> int:
    """The id here of a process that its neighbour in the container knows by `inner`; 0 when there is none."""
    wanted = namespace(neighbour, "mnt")
    for pid in processes():
        try:
            if namespace(pid, "mnt") == wanted and inner_pid(pid) == inner:
                return pid
        except (OSError, ValueError):
            continue
    return 0


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def containers() -> dict[str, int]:
    """One process for each set of mounts that is not ours."""
    found: dict[str, int] = {}
    ours = namespace("self", "mnt")
    for pid in processes():
        mounts = namespace(pid, "mnt")
        if mounts is not None and mounts != ours:
            found.setdefault(mounts, pid)
    return found


def is_there(pid: int) -> bool:
    """Whether there is such a process, as far as one can see from here."""
    return pid > 0 and os.path.exists(f"/proc/{pid}")
