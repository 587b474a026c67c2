"""When to try again, and when to give up."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from typing import Optional

FIRST_S, LONGEST_S, TOLD_LONGEST_S = 0.5, 30.0, 3600.0


class Stopped(Exception):
    """The shipper is to end: what is not acknowledged comes again next time."""


class GaveUp(Exception):
    """The destination could not be reached for as long as one was ready to wait."""


class Waiting:
    """The pauses between tries of one delivery: they grow, with chance in them, unless the other side says how long."""

    def __init__(self, stop: threading.Event, give_up_s: Optional[float]) -> None:
        self._stop = stop
        self._end = None if give_up_s is None else time.monotonic() + give_up_s
        self._next_s = FIRST_S

    def pause(self, sentence: str, told_s: Optional[float] = None) -> None:
        """Waits. `Stopped` when the shipper ends meanwhile; `GaveUp`, with the sentence, when it takes too long."""
        pause_s = self._next_s * random.uniform(0.5, 1.5)
        self._next_s = min(self._next_s * 2, LONGEST_S)
        if told_s is not None:
            pause_s = min(max(told_s, 0), TOLD_LONGEST_S)
        if self._end is not None and time.monotonic() + pause_s > self._end:
            raise GaveUp(sentence)
        if self._stop.wait(pause_s):
            raise Stopped


def retry_after(value: Optional[str]) -> Optional[float]:
    """A Retry-After header in seconds from now, in both its forms; None: there is none, or it says nothing."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0)
    except (TypeError, ValueError):
        return None
