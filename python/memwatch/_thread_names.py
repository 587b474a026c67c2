"""The names of Python's threads by their system ids, also of those that have ended by the time their writes are told.

A thread tells its own name as it starts: the method by which `threading` notes a new thread's system id is wrapped,
once a process. It changes nothing else.
"""

from __future__ import annotations

import threading
from collections import deque

from memwatch import _threads
from memwatch._typing import Any

ENDED_MAX = 1024
_active: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]
_started: deque[tuple[int, str]] = deque(maxlen=ENDED_MAX)
_wrapped: list[Any] = []


def remember() -> None:
    """From now on the names of threads that start are kept; those of the last ENDED_MAX ones."""
    original = getattr(threading.Thread, "_set_native_id", None)
    if _wrapped or original is None:
        return

    def _set_native_id(self: threading.Thread) -> None:
        original(self)
        _started.append((self.native_id or 0, self.name))

    _wrapped.append(original)
    threading.Thread._set_native_id = _set_native_id  # type: ignore[attr-defined]


class ThreadNames:
    """Looked up once a batch and only when asked."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._fresh = False

    def forget(self) -> None:
        """The next question looks again."""
        self._fresh = False

    def get(self, thread_id: int, default: str) -> str:
        """The Python name of a thread, or `default`."""
        if not self._fresh:
            # Without the lock that enumerate() takes, which may be a greenlet's. Of greenlets no id tells the name.
            patched = _threads.is_patched()
            self._names = {} if patched else dict(_started.copy())
            threads = [] if patched else list(_active.values())
            self._names.update({thread.native_id or 0: thread.name for thread in threads})
            self._fresh = True
        return self._names.get(thread_id, default) if thread_id else default
