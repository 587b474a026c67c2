"""Keeps open watchers alive until they are closed, closes them at exit, and leaves a forked child without any."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any, Optional, Protocol

from memwatch import _threads
from memwatch._native import core


class Closable(Protocol):
    """What is kept: a watcher."""

    def close(self) -> None: ...
    def _close_until(self, deadline: Optional[float]) -> float: ...


_open: dict[int, Closable] = {}


def keep(watcher: Closable) -> None:
    """The watcher lives until `forget`, whether or not its owner holds it."""
    _open[id(watcher)] = watcher


def forget(watcher: Closable) -> None:
    """The watcher was closed."""
    _open.pop(id(watcher), None)


def close_all() -> None:
    """All of them together wait for callbacks no longer than one would."""
    deadline: Optional[float] = None
    for watcher in list(_open.values()):
        deadline = watcher._close_until(deadline)


_paused: list[Any] = []


def _before_fork() -> None:
    """Ends our threads, where the process has no others: from Python 3.12 on it warns of those that it counts."""
    if not _open or _threads.host_has_threads():
        return
    _paused.extend(_threads.pausable)
    for each in _paused:
        each.pause()
    core.threads_stop()


def _after_fork() -> None:
    core.threads_start()
    while _paused:
        _paused.pop().resume()


def _forked() -> None:
    _open.clear()
    _paused.clear()


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
    if sys.version_info >= (3, 12):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork)
