"""Keeps open watchers alive until they are closed, closes them at exit, and says what a forked child has of them."""

from __future__ import annotations

import atexit
import os
import sys

from memwatch import _thread_names, _threads
from memwatch._native import core
from memwatch._typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

if TYPE_CHECKING:
    import logging


class Closable(Protocol):
    """What is kept: a watcher."""

    _follows: bool
    _regions: dict[int, Any]

    def close(self) -> None: ...
    def _close_until(self, deadline: Optional[float]) -> float: ...
    def _follow_fork(self) -> list[str]: ...


_open: dict[int, Closable] = {}
_pid = os.getpid()
_told = False
_logger: Optional[logging.Logger] = None
WARNING, ERROR = 30, 40  # as in logging, which few programs need
_begun = _threads.real_lock()
_forked_first: list[Callable[[], None]] = []


def _begin() -> None:
    """With the first watcher or adapter: other programs have no use for it, nor for logging."""
    global _logger, _pid
    _pid = os.getpid()
    # Before our hooks: its own, which make its locks anew in a child, run first. A process that gave up its rights may
    # not read its own library any more: it does without.
    try:
        import logging
    except ImportError:
        pass
    else:
        _logger = logging.getLogger("memwatch")
    atexit.register(close_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked, after_in_parent=_after_in_parent)
        if sys.version_info >= (3, 12):
            os.register_at_fork(before=_before_fork, after_in_parent=_after_fork)


def forked_first(call: Callable[[], None]) -> None:
    """What a forked child does before its watchers are opened again."""
    if _begun.acquire(blocking=False):
        _begin()
    _forked_first.append(call)


def keep(watcher: Closable) -> None:
    """The watcher lives until `forget`, whether or not its owner holds it."""
    if _begun.acquire(blocking=False):
        _begin()
    _thread_names.remember()
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


def _after_in_parent() -> None:
    """The first child has told of it. The others, of which a server may make thousands, need not."""
    global _told
    _told = _told or any(watcher._regions and not watcher._follows for watcher in _open.values())


def _forked() -> None:
    """In a forked child, before `os.fork()` returns."""
    global _pid
    parent, _pid = _pid, os.getpid()
    watchers = list(_open.values())
    _open.clear()
    _paused.clear()
    for call in _forked_first:
        call()
    if not _told and any(watcher._regions and not watcher._follows for watcher in watchers):
        _tell(
            "process %d was forked from %d, whose variables are watched; here they are not: "
            "open the watcher after the fork, or with MemoryWatcher(follow_fork=True)",
            _pid,
            parent,
        )
    for watcher in watchers:
        if watcher._follows:
            _follow(watcher)


def _tell(sentence: str, *arguments: object, exc_info: bool = False) -> None:
    if _logger is not None:
        _logger.log(ERROR if exc_info else WARNING, sentence, *arguments, exc_info=exc_info)


def _follow(watcher: Closable) -> None:
    try:
        for sentence in watcher._follow_fork():
            _tell("in the forked process %d %s", _pid, sentence)
    except Exception:  # the child has work to do, watched or not
        _tell("the forked process %d is not watched", _pid, exc_info=True)


def forked_silently() -> None:
    """After a fork that was made in C, without Python's hooks. Twice is allowed."""
    if os.getpid() != _pid:
        _forked()
