"""What SIGTERM does where the process has no say of its own: it delivers and cleans up first, and then ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from types import FrameType
from typing import Optional

from memwatch import _lifetime, _threads

#: How long the process may live on after the signal.
LIMIT_S = 5.0


def _close_all_within_limit() -> None:
    """On another thread: this one may be inside a watcher, and hold what closing waits for."""
    done = _threads.real_lock()
    done.acquire()

    def close_all() -> None:
        try:
            with contextlib.suppress(Exception):
                _lifetime.close_all()
        finally:
            done.release()

    _threads.start(close_all, "memwatch-sigterm")
    done.acquire(timeout=LIMIT_S)


def _terminated(number: int, frame: Optional[FrameType]) -> None:
    signal.signal(number, signal.SIG_DFL)
    try:
        _close_all_within_limit()  # of a forked child those that it follows
    finally:
        os.kill(os.getpid(), number)


def install() -> None:
    """SIGTERM closes all watchers and then ends the process as before, if it would end the process now."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        if signal.getsignal(signal.SIGTERM) is not _terminated:
            logging.getLogger("memwatch").info(
                "SIGTERM is left to the handler that the program has: what it does at exit closes the watchers"
            )
        return
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("sigterm=True works on the main thread only: call serve() there")
    signal.signal(signal.SIGTERM, _terminated)
