"""Events as an iterator: `for event in watcher.events()` and `async for event in watcher.events()`."""

from __future__ import annotations

import sys
import time
from collections import deque

from memwatch import _check, _threads
from memwatch._event import ChangeEvent
from memwatch._native import core
from memwatch._typing import Any, Callable, Optional

BATCH = 256
NEWEST = 2**64 - 1  # as `since`: nothing older
SLICE_S = 0.25  # how long an async read may keep its helper thread once nobody waits for it


class EventStream:
    """Blocks for the next event and ends when the watcher closes, or after `timeout` seconds without one.

    A slow reader misses the oldest events; `missed` counts them. One reader at a time.
    """

    def __init__(
        self,
        watcher: core.Watcher,
        convert: Callable[[core.Event], ChangeEvent],
        since: Optional[int],
        timeout: Optional[float],
    ) -> None:
        self._convert = convert
        self._timeout = timeout
        self._ready: deque[core.Event] = deque()
        self._reading = _threads.RLock()
        _check.since(since)
        self._seq = watcher.events_read(NEWEST, 0)[1]["newest"] if since is None else since  # of the last event read
        self._sink = core.Sink(watcher, "events", self._seq)
        self._ended = False
        self.missed = 0
        """Events that were gone before this stream came to them."""

    def close(self) -> None:
        """Ends the stream. Twice is allowed."""
        self._sink.close()
        self._ready.clear()

    def _fill(self, wait_s: Optional[float]) -> bool:
        """Waits for events and reads a batch into `_ready`. False once the watcher is closed and all is read."""

        def read(seconds: Optional[float]) -> bool:
            with self._reading:
                if not self._ready and self._sink.read(BATCH, seconds, into=self._ready) is None:
                    self._ended = True
            return self._ended or bool(self._ready)

        _threads.wait(read, wait_s)
        return not self._ended or bool(self._ready)

    def _next(self) -> ChangeEvent:
        event = self._ready.popleft()
        self.missed += event.seq - self._seq - 1
        self._seq = event.seq
        return self._convert(event)

    def __repr__(self) -> str:
        state = "ended" if self._ended else f"after event {self._seq}"
        return f"<EventStream {state}, {self.missed} missed>"

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> ChangeEvent:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._ready:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not self._fill(left) or (left == 0 and not self._ready):
                raise StopIteration
        return self._next()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> ChangeEvent:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._ready:
            left = SLICE_S if deadline is None else min(max(deadline - time.monotonic(), 0), SLICE_S)
            if not await _in_thread(self._fill, left) or (left == 0 and not self._ready):
                raise StopAsyncIteration
        return self._next()


async def _in_thread(function: Callable[[float], bool], seconds: float) -> bool:
    """The function's result, called in a thread of the event loop that runs: asyncio's, or trio's."""
    trio = sys.modules.get("trio")
    if trio is not None and _is_of_trio(trio):
        return bool(await trio.to_thread.run_sync(function, seconds, abandon_on_cancel=True))
    import asyncio  # here, because importing it takes longer than importing all of memwatch

    return await asyncio.get_running_loop().run_in_executor(None, function, seconds)


def _is_of_trio(trio: Any) -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
