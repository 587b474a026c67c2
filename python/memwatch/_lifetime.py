"""Keeps open watchers alive until they are closed, closes them at exit, and leaves a forked child without any."""

from __future__ import annotations

import atexit
import os
from typing import Optional, Protocol


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


def _close_all() -> None:
    """All of them together wait for callbacks no longer than one would."""
    deadline: Optional[float] = None
    for watcher in list(_open.values()):
        deadline = watcher._close_until(deadline)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open.clear)
