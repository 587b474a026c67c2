"""Starts a watcher's recorder, and says at once when its file cannot be had."""

from __future__ import annotations

import time

from memwatch._native import core, recorder
from memwatch._typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from memwatch._core_recorder import Recorder

START_S = 1.0  # the recorder opens its file on a thread of its own; a disk that is slower is not waited for


def open_recorder(watcher: core.Watcher, path: str, max_bytes: Optional[int], *, warn: bool = True) -> Recorder:
    """A recorder that tries for ever. RuntimeWarning, for the caller's caller, when its first attempt failed."""
    opened = recorder()(watcher, path, max_bytes=max_bytes)
    deadline = time.monotonic() + START_S
    stats = opened.stats()
    while stats["state"] == "starting" and time.monotonic() < deadline:
        time.sleep(0.001)
        stats = opened.stats()
    if stats["state"] == "failing" and warn:
        import warnings

        warnings.warn(
            f"nothing is recorded, though it is tried again every second: {stats['message']}",
            RuntimeWarning,
            stacklevel=3,
        )
    return opened
