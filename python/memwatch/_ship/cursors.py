"""The saved cursors: how far each watcher's events are delivered.

DESIGN  One small JSON file, replaced whole: written beside, flushed to the disk, renamed. A crash leaves the old one or
the new one. A lock file keeps a second shipper with the same cursors out.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from typing import Any, Optional

from memwatch._ship import files

#: Cursors of watchers that nobody has seen for so long, or beyond so many, are forgotten.
KEPT_S, KEPT = 30 * 86400, 10_000


def default_path(destination: str) -> str:
    """Where the cursors of a destination are kept."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        base = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "memwatch", f"ship-{hashlib.sha256(destination.encode()).hexdigest()[:12]}.json")


def _is_cursor(said: dict[str, Any]) -> bool:
    seq, moment = said["seq"], said["time"]
    is_seq = type(seq) is int and 0 <= seq < 2**64
    return is_seq and isinstance(said["source"], str) and type(moment) in (int, float) and math.isfinite(moment)


class Cursors:
    """By epoch, the seq up to which all is delivered; and which epoch a source had last. Any thread may ask."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._mutex = threading.Lock()
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        self._lock = files.open_own(f"{path}.lock", os.O_RDWR)
        try:
            import fcntl  # Windows has none, and the command line imports this

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ValueError(f"{path} is another shipper's now: give this one a --state of its own") from None
        try:
            self._cursors: dict[str, dict[str, Any]] = self._read()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Lets others have them."""
        os.close(self._lock)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            with open(self.path, encoding="utf-8") as file:
                said = json.load(file)
            cursors = said["cursors"]
            if not all(map(_is_cursor, cursors.values())):
                raise ValueError
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(
                f"{self.path} holds no cursors: move it away, and everything that is kept is shipped again"
            ) from None
        return dict(cursors)

    def get(self, epoch: str) -> Optional[int]:
        """How far that watcher's events are delivered; None: nothing is known of it."""
        with self._mutex:
            cursor = self._cursors.get(epoch)
            return None if cursor is None else int(cursor["seq"])

    def epoch_before(self, source: str, epoch: str) -> Optional[tuple[str, int]]:
        """The watcher that was at this source before, and how far it was delivered."""
        with self._mutex:
            of_source = [(each["time"], key) for key, each in self._cursors.items() if each["source"] == source]
            newest = max(of_source, default=(0, epoch))[1]
            return None if newest == epoch else (newest, int(self._cursors[newest]["seq"]))

    def save(self, epoch: str, seq: int, source: str) -> None:
        """All up to `seq` is delivered, and stays so after a crash."""
        with self._mutex:
            self._cursors[epoch] = {"seq": seq, "source": source, "time": time.time()}
            self._forget()
            self._write()

    def _forget(self) -> None:
        oldest = time.time() - KEPT_S
        if len(self._cursors) > KEPT or any(each["time"] < oldest for each in self._cursors.values()):
            kept = sorted(self._cursors.items(), key=lambda item: -item[1]["time"])[:KEPT]
            self._cursors = {epoch: each for epoch, each in kept if each["time"] >= oldest}

    def _write(self) -> None:
        files.replace(self.path, json.dumps({"version": 1, "cursors": self._cursors}), mode=0o600, synced=True)
