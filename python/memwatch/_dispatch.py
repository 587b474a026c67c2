"""The dispatcher: one thread per watcher that hands events to callbacks.

It waits in a sink without the GIL and takes it for a batch. A callback that is slow delays callbacks only: the worker
never waits for it, and what the log evicts meanwhile is counted as missed by the sink.
"""

from __future__ import annotations

import threading
import time
from typing import Callable

from memwatch._native import core

BATCH = 256


SKIPPED, DELIVERED, FAILED = 0, 1, 2


class ThreadNames:
    """The names of the live Python threads by their system ids, looked up once a batch and only when asked."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._fresh = False

    def forget(self) -> None:
        """The next question looks again."""
        self._fresh = False

    def get(self, thread_id: int, default: str) -> str:
        """The Python name of a thread, or `default`."""
        if not self._fresh:
            self._names = {thread.native_id or 0: thread.name for thread in threading.enumerate()}
            self._fresh = True
        return self._names.get(thread_id, default) if thread_id else default


class Dispatcher:
    """Calls `deliver(event, names)` for every event from now on; `names()` maps thread ids to Python thread names.

    `deliver` returns whether a callback ran and whether it failed; what it raises itself is a bug of this package.
    """

    def __init__(self, watcher: core.Watcher, deliver: Callable[[core.Event, ThreadNames], int]) -> None:
        self._sink = core.Sink(watcher, "callback")
        self._deliver = deliver
        self._changed = threading.Condition()
        self._asked = 0  # barriers asked for, under _changed
        self._passed = 0  # barriers passed: all that was in the sink before them is delivered
        self._seq = 0  # of the last event delivered
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="memwatch-dispatch", daemon=True)
        self._thread.start()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller is a callback."""
        return threading.current_thread() is self._thread

    def drain(self, newest: int, timeout: float) -> bool:
        """Waits until every event up to seq `newest` is delivered. True at once from a callback, which cannot wait."""
        if self.is_current_thread:
            return True
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._sink.wake()
            return self._changed.wait_for(lambda: self._passed >= mine or self._seq >= newest or self._ended, timeout)

    def join(self, timeout: float) -> None:
        """Once the watcher is closed: waits until all is delivered, but in a callback. No callback begins after it."""
        if not self.is_current_thread:
            self._thread.join(timeout)
        self._sink.close()

    def _run(self) -> None:
        try:
            self._read()
        finally:
            self._set(ended=True)

    def _read(self) -> None:
        names = ThreadNames()
        while True:
            asked = self._asked
            events = self._sink.read(BATCH, 0 if asked > self._passed else None)
            if events is None:
                break
            names.forget()
            for event in events:
                self._one(event, names)
            if not events:
                self._set(passed=asked)

    def _one(self, event: core.Event, names: ThreadNames) -> None:
        start_ns = time.monotonic_ns()
        outcome = self._deliver(event, names)
        if outcome != SKIPPED:
            self._sink.report(time.monotonic_ns() - start_ns, outcome == FAILED)
        self._set(seq=event.seq)

    def _set(self, *, passed: int = 0, seq: int = 0, ended: bool = False) -> None:
        with self._changed:
            self._passed = max(self._passed, passed)
            self._seq = max(self._seq, seq)
            self._ended = self._ended or ended
            self._changed.notify_all()
