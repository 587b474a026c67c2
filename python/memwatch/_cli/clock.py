"""Times as they are typed and as they are shown."""

from __future__ import annotations

import argparse
import math
import re
import time
from datetime import datetime

END_S = 253_402_300_800  # the year 10000
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(text: str) -> float:
    """A time: "10m" (ago; s, m, h, d), seconds since the epoch, or a date and time in ISO format."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    try:
        at = time.time() - float(ago[1]) * UNITS[ago[2]] if ago else float(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text).timestamp()
        except ValueError:
            at = math.nan
    if not 0 <= at < END_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: 10m, 2h, 2026-11-22T22:00:00, 1795384800")
    return at


def number(text: str) -> int:
    """A run or a seq."""
    if not text.isdecimal() or int(text) >= 1 << 62:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of a run or an event")
    return int(text)


def stamp(ns: int) -> str:
    """Local time to the microsecond."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}.{rest // 1000:06}"


def ago(ms: float, now_ms: float) -> str:
    """How long ago, in a word."""
    seconds = max(now_ms - ms, 0) / 1e3
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit} ago"
    return f"{seconds:.0f}s ago" if seconds >= 1 else "now"
