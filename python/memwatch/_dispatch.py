"""The dispatcher: one thread per watcher that hands events to callbacks.

It waits in a sink without the GIL and takes it for a batch. A callback that is slow delays callbacks only: the worker
never waits for it, and what the log evicts meanwhile is counted as missed by the sink.
"""

from __future__ import annotations

import _thread
import time

from memwatch import _threads
from memwatch._native import core
from memwatch._thread_names import ThreadNames as ThreadNames
from memwatch._typing import Callable

BATCH = 256


SKIPPED, DELIVERED, FAILED = 0, 1, 2


class Dispatcher:
    """Calls `deliver(event, names)` for every event from now on; `names()` maps thread ids to Python thread names.

    `deliver` returns whether a callback ran and whether it failed; what it raises itself is a bug of this package.
    What others wait for, and their waiting, is the sink's.
    """

    def __init__(
        self, watcher: core.Watcher, deliver: Callable[[core.Event, ThreadNames], int], sink: str = "callback"
    ) -> None:
        self._sink = core.Sink(watcher, sink)
        self._deliver = deliver
        self._thread_id = 0
        self._unclaimed = [True]  # taken by the one thread that reads
        self._pausing = False
        _threads.pausable.add(self)

    def start(self) -> None:
        """Starts the thread, if there is none. A start that an interrupt cut short is made good by the next one."""
        if self._unclaimed:
            _threads.start(self._run, "memwatch-dispatch")

    def pause(self) -> None:
        """Ends the thread, once the callback under way has ended; not for long, if that does not."""
        thread_id = self._thread_id
        self._pausing = True
        if thread_id:
            self._sink.drain(0, 0)  # wakes it
            _threads.await_end(thread_id)

    def resume(self) -> None:
        """Goes on where it was."""
        self._pausing = False
        self.start()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller is a callback."""
        return self._thread_id == _thread.get_native_id()

    def drain(self, newest: int, timeout: float) -> bool:
        """Waits until every event up to seq `newest` is delivered. True at once from a callback, which cannot wait."""
        if self.is_current_thread:
            return True
        return bool(_threads.wait(lambda seconds: self._sink.drain(newest, seconds), timeout))

    def join(self, timeout: float) -> None:
        """Once the watcher is closed: waits until all is delivered, but in a callback. No callback begins after it."""
        if not self.is_current_thread:
            _threads.wait(lambda seconds: self._sink.drain(None, seconds), timeout)
        self._sink.close()

    def _run(self) -> None:
        try:
            self._unclaimed.pop()
        except IndexError:
            return  # another thread reads
        self._thread_id = _thread.get_native_id()
        try:
            self._read()
        finally:
            self._thread_id = 0
            if self._pausing:
                self._unclaimed.append(True)
            else:
                self._sink.end()

    def _read(self) -> None:
        names = ThreadNames()
        while not self._pausing and (events := self._sink.read(BATCH)) is not None:
            names.forget()
            for event in events:
                self._one(event, names)

    def _one(self, event: core.Event, names: ThreadNames) -> None:
        start_ns = time.monotonic_ns()
        outcome = self._deliver(event, names)
        if outcome != SKIPPED:
            self._sink.report(time.monotonic_ns() - start_ns, outcome == FAILED)
        self._sink.handled(event.seq)
