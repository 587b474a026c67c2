"""The core in pure Python: the surface of `_core.pyi` for regions without memory.

DESIGN  Where the C extension could not be built, the same log takes the events of adapters (polling, trace): numbered
without holes, bounded by a count and a budget, read by sinks with a cursor and an account each. One lock guards a
watcher; a post never waits for a reader, and what the log evicts before a sink came to it is that sink's `missed`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import time
from collections import deque
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final, Optional

from memwatch import _threads
from memwatch._errors import Error
from memwatch._trace.pure import Glance, Spot, call_step, gate, guarded, instruction_callback, is_line_step, line_step

__all__ = ["Glance", "Spot", "call_step", "gate", "guarded", "instruction_callback", "is_line_step", "line_step"]

NATIVE: Final = False
FRAMES: Final = False
FRAMES_NOTE: Final = "the C extension is not there"
VERSION: Final = "0.1.0"
STACK_MAX: Final = 32

_NAME_MAX = 255
_REASONS = (
    "none", "kernel", "throttled", "unavailable", "ring-full", "off", "traced", "blocked", "polling", "unknown",
    "own", "foreign",
)  # fmt: skip
_ATTRIBUTIONS = ("exact", "page", "none")
_VALUES = ("full", "preview", "hash", "none")
# The lists of native/src/base/secret.c.
_SECRET_PARTS = (
    "password", "passwd", "passwort", "secret", "apikey", "credential", "privatekey", "privkey", "masterkey",
    "enckey", "signkey", "databaseurl", "redisurl", "webhookurl", "connstr", "connectionstring", "csrf",
    "seedphrase", "recoverycode", "backupcode", "cardnumber", "refreshtok",
)  # fmt: skip
_SECRET_WORDS = frozenset((
    "auth", "authn", "authorization", "authz", "bearer", "cookie", "cookies", "cred", "creds", "cvc", "cvv", "dsn",
    "hmac", "iban", "jwt", "kennwort", "key", "keys", "keystore", "mdp", "mfa", "mnemonic", "nonce", "oauth", "otp",
    "pass", "passcode", "passphrase", "pem", "pepper", "pin", "pincode", "private", "pw", "pwd", "salt", "session",
    "sessionid", "sid", "signature", "ssn", "tkn", "token", "tokens", "totp",
))  # fmt: skip
_SECRET_ENDINGS = (
    "token", "pass", "pwd", "pincode", "cookie", "sessionid", "dsn",
)  # fmt: skip
_HARMLESS = frozenset((
    "bypass", "compass", "encompass", "surpass", "trespass", "overpass", "underpass",
))  # fmt: skip
_WORD_ENDS = re.compile(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_HASH_KEY = os.urandom(16)
_BOUNDS_S = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
_NOTE = "the C extension is not there: nothing but polling and tracing runs"
_NO_VERSIONS = f"no versions are kept: {_NOTE}"
_DEFAULTS = {"inline_threshold": 4096, "preview_size": 256, "event_capacity": 65536, "event_budget": 64 << 20}


class _Histogram:
    def __init__(self) -> None:
        self._buckets = [0] * (len(_BOUNDS_S) + 1)
        self._sum_ns = 0

    def add(self, duration_ns: int) -> None:
        seconds = duration_ns / 1e9
        index = next((index for index, bound in enumerate(_BOUNDS_S) if seconds <= bound), len(_BOUNDS_S))
        self._buckets[index] += 1
        self._sum_ns += duration_ns

    def stats(self) -> dict[str, Any]:
        return {
            "bounds_s": list(_BOUNDS_S),
            "buckets": list(self._buckets),
            "count": sum(self._buckets),
            "sum_s": self._sum_ns / 1e9,
        }


class Event:
    """One event. Immutable by custom."""

    old_hash: Optional[int] = None
    new_hash: Optional[int] = None
    storage_key_old: Optional[str] = None
    storage_key_new: Optional[str] = None
    kind = "change"
    merged = 0
    format = ""
    item_bytes = 1
    fortran_order = False
    fault_ip = 0
    fault_address = 0
    symbol = ""
    object = ""
    offset = 0
    native_file = ""
    native_line = 0
    libc_function = ""

    def __init__(self, region: _Region, seq: int, time_ns: int, post: dict[str, Any], preview: int) -> None:
        old, new = post["old"], post["new"]
        self.seq = seq
        self.time_ns = time_ns
        self.detected_ns = time.time_ns()
        self.region_id = region.id
        self.name = region.name
        self.backend: str = post["backend"]
        self.values = region.values
        self.size_bytes = max(len(old or b""), len(new or b""))
        self.changed_bytes = _n_different(old or b"", new or b"")
        self.changes: list[tuple[int, int]] = [(0, self.size_bytes)] if self.changed_bytes else []
        self.excerpt: list[tuple[int, bytes, bytes]] = []
        self.shape: tuple[int, ...] = (self.size_bytes,)
        self.attribution: str = post["attribution"]
        self.reason: str = post["reason"]
        self.thread_id: int = post["thread_id"]
        self.thread_name: str = post["thread_name"]
        self.frames: list[tuple[str, str, int]] = list(post["frames"])
        self.old_value: Optional[bytes] = old if region.values == "full" else None
        self.new_value: Optional[bytes] = new if region.values == "full" else None
        shown = region.values in ("full", "preview")
        self.old_preview: Optional[bytes] = old[:preview] if shown and old is not None else None
        self.new_preview: Optional[bytes] = new[:preview] if shown and new is not None else None
        if region.values == "hash":
            self.old_hash, self.new_hash = _hash(old), _hash(new)

    @property
    def cost(self) -> int:
        """Bytes that it keeps, about."""
        return 512 + len(self.old_value or b"") + len(self.new_value or b"")


def _hash(value: Optional[bytes]) -> Optional[int]:
    """64 bits of the value, the same within this process, that nobody outside it can compute."""
    if value is None:
        return None
    return int.from_bytes(hashlib.blake2b(value, digest_size=8, key=_HASH_KEY).digest(), "little")


def _n_different(old: bytes, new: bytes) -> int:
    same = sum(map(int.__eq__, old, new)) if old != new else len(old)
    return max(len(old), len(new)) - same


def _looks_secret(name: str) -> bool:
    """Whether the values of such a name are hidden unless they are asked for; as the extension decides."""
    joined = re.sub("[_ -]", "", name.lower())
    parts = [part.lower() for part in _WORD_ENDS.split(name)]
    return (
        any(part in joined for part in _SECRET_PARTS)
        or not _SECRET_WORDS.isdisjoint(parts)
        or any(part.endswith(_SECRET_ENDINGS) and part not in _HARMLESS for part in parts)
    )


class _Region:
    def __init__(self, region_id: int, name: str, values: str, newest: int = 0) -> None:
        self.id = region_id
        self.name = name
        self.values = values
        self.added_ns = time.time_ns()
        self.added_seq = newest
        self.delivered = 0
        self.last_seq = 0
        self.last_time_ns = 0

    def info(self) -> dict[str, Any]:
        return {
            "id": self.id, "name": self.name, "address": 0, "size_bytes": 0, "values": self.values,
            "backend": "external", "format": "", "item_bytes": 1, "shape": (), "metric": False, "pinned": False,
            "precise": False, "external": True, "added_ns": self.added_ns, "added_seq": self.added_seq,
            "last_seq": self.last_seq, "last_time_ns": self.last_time_ns,
            "value": None, "detected": self.delivered, "delivered": self.delivered, "coalesced": 0, "unchanged": 0,
            "filtered": 0, "dropped": 0, "hashed": False,
        }  # fmt: skip


class Watcher:
    """A log, its regions and its sinks. Any thread."""

    def __init__(self, **options: Any) -> None:
        backend = options.get("backend") or "auto"
        if backend not in ("auto", "poll"):
            raise Error(errno.ENOTSUP, f"backend {backend!r}: {_NOTE}")
        given = {name: value for name, value in options.items() if value is not None}
        limits = {name: int(given.get(name, default)) for name, default in _DEFAULTS.items()}
        if min(limits.values()) < 1:
            raise ValueError(f"{', '.join(limits)} must be greater than 0")
        self._inline, self._preview = limits["inline_threshold"], limits["preview_size"]
        self._capacity, self._budget = limits["event_capacity"], limits["event_budget"]
        self._options = given
        self._epoch = random.SystemRandom().getrandbits(63)
        self._start_ns = time.time_ns()
        self._pid = os.getpid()
        self._closed = False
        self._changed = _threads.Changed()
        self._regions: dict[int, _Region] = {}
        self._by_name: dict[str, _Region] = {}
        self._next_id = 1
        self._log: deque[Event] = deque()
        self._bytes = 0
        self._newest = 0
        self._evicted = 0
        self._delivered = 0
        self._attributions = dict.fromkeys(_ATTRIBUTIONS, 0)
        self._reasons = dict.fromkeys(_REASONS, 0)
        self._sinks: list[Sink] = []

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def closed(self) -> bool:
        return self._closed or os.getpid() != self._pid

    # --- regions --------------------------------------------------------------------------------------------------

    def region_add(self, buffer: object, name: Optional[str] = None, **options: Any) -> int:
        raise TypeError(_NOTE)

    def region_add_external(self, name: Optional[str] = None, *, values: str = "auto") -> int:
        self._check_open()
        if name is not None and not isinstance(name, str):
            raise TypeError("the name must be a string")
        if values == "auto":
            values = "hash" if _looks_secret(name or "") else "full"
        if values not in _VALUES:
            raise ValueError(f"values must be one of {', '.join(_VALUES)}, not {values!r}")
        with self._changed.lock:
            region_id = self._next_id
            region = _Region(region_id, f"region-{region_id}" if name is None else name, values, self._newest)
            if not region.name:
                raise ValueError("a name is not empty; leave it out to have one made")
            if len(region.name.encode("utf-8", "surrogateescape")) > _NAME_MAX:
                raise ValueError(f"a name has at most {_NAME_MAX} bytes")
            if region.name in self._by_name:
                raise ValueError(
                    f'a region named "{region.name}" is already watched; unwatch it or choose another name'
                )
            self._next_id += 1
            self._regions[region_id] = self._by_name[region.name] = region
            return region_id

    def region_remove(self, region_id: int) -> None:
        with self._changed.lock:
            region = self._region(region_id)
            del self._regions[region_id], self._by_name[region.name]

    def region_find(self, name: str) -> int:
        with self._changed.lock:
            if name not in self._by_name:
                raise KeyError(f"no region is named {name!r}")
            return self._by_name[name].id

    def region_info(self, region_id: int) -> dict[str, Any]:
        with self._changed.lock:
            return self._region(region_id).info()

    def region_list(self) -> list[dict[str, Any]]:
        with self._changed.lock:
            return [region.info() for region in self._regions.values()]

    def region_read(self, region_id: int) -> bytes:
        raise TypeError("a region without memory has no bytes to read")

    def _region(self, region_id: int) -> _Region:
        if region_id not in self._regions:
            raise KeyError(f"no region has the id {region_id!r}")
        return self._regions[region_id]

    # --- events ---------------------------------------------------------------------------------------------------

    def number_set(self, region_id: int, value: object) -> None:
        """There are no metrics here."""

    def post(
        self,
        region_id: int,
        *,
        old: Optional[bytes] = None,
        new: Optional[bytes] = None,
        time_ns: int = 0,
        thread_id: int = 0,
        thread_name: str = "",
        frames: Sequence[tuple[str, str, int]] = (),
        attribution: str = "exact",
        reason: str = "none",
        backend: str = "external",
        old_number: object = None,
        new_number: object = None,
    ) -> int:
        self._check_open()
        if attribution not in _ATTRIBUTIONS or reason not in _REASONS:
            raise ValueError(f"no such attribution or reason: {attribution!r}, {reason!r}")
        post = {
            "old": self._bounded(old), "new": self._bounded(new), "thread_id": thread_id, "thread_name": thread_name,
            "frames": frames, "attribution": attribution, "reason": reason, "backend": backend,
        }  # fmt: skip
        with self._changed.lock:
            region = self._region(region_id)
            self._newest += 1
            event = Event(region, self._newest, time_ns or time.time_ns(), post, self._preview)
            self._append(event)
            region.delivered += 1
            region.last_seq, region.last_time_ns = event.seq, event.time_ns
            self._delivered += 1
            self._attributions[attribution] += 1
            self._reasons[reason] += 1
            return event.seq

    def _bounded(self, value: Optional[bytes]) -> Optional[bytes]:
        return None if value is None else bytes(value[: self._inline])

    def _append(self, event: Event) -> None:
        self._log.append(event)
        self._bytes += event.cost
        while len(self._log) > self._capacity or (self._bytes > self._budget and len(self._log) > 1):
            self._bytes -= self._log.popleft().cost
            self._evicted += 1
        self._changed.notify_all()

    def events_read(self, since: int, limit: int = 256) -> tuple[list[Event], dict[str, int]]:
        with self._changed.lock:
            oldest = self._log[0].seq if self._log else self._newest + 1
            since = min(since, self._newest)
            first = max(0, since - oldest + 1)  # the log has no holes
            events = [self._log[index] for index in range(first, min(len(self._log), first + limit))]
            cursor = {
                "oldest": oldest,
                "newest": self._newest,
                "missed": max(0, oldest - since - 1),
                "next": events[-1].seq if events else max(since, oldest - 1),
            }
            return events, cursor

    def flush(self, timeout: float = 5.0) -> bool:
        self._check_open()
        return True

    def load(self, key: str, limit: int = -1) -> bytes:
        raise KeyError(f"{key!r}: {_NO_VERSIONS}")

    def version(self, region_id: int, seq: int) -> bytes:
        raise KeyError(f"{seq!r}: {_NO_VERSIONS}")

    def version_at(self, region_id: int, time_ns: int) -> int:
        raise KeyError(f"{time_ns!r}: {_NO_VERSIONS}")

    def history(self, region_id: int, before: int = 0, limit: int = 4096) -> list[Event]:
        return []

    def blame(self, region_id: int, offset: int, size: int) -> list[tuple[int, int, Optional[Event]]]:
        return [(offset, size, None)]

    # --- stats ----------------------------------------------------------------------------------------------------

    def backends(self) -> list[dict[str, Any]]:
        return [dict(info, chosen=info["usable"]) for info in probe()]

    def stats(self) -> dict[str, Any]:
        with self._changed.lock:
            return {**self._own_stats(), **_ENGINE_STATS, "window_ms": self._options.get("window_ms", 5)}

    def _own_stats(self) -> dict[str, Any]:
        oldest = self._log[0].seq if self._log else self._newest + 1
        return {
            "backend": "poll",
            "epoch": self._epoch,
            "start_time_ns": self._start_ns,
            "tracked_regions": len(self._regions),
            "tracked_bytes": 0,
            "detected": self._delivered,
            "delivered": self._delivered,
            "coalesced": 0,
            "unchanged": 0,
            "filtered": 0,
            "dropped": {"ring-full": 0, "no-memory": 0, "vanished": 0, "unreadable": 0},
            "events": {
                "oldest": oldest,
                "newest": self._newest,
                "kept": len(self._log),
                "bytes": self._bytes,
                "evicted": self._evicted,
            },
            "history_bytes": 0,
            "history_budget": self._options.get("history_budget", 64 << 20),
            "history_versions": 0,
            "history_evicted": 0,
            "attribution": {**_ATTRIBUTION_STATS, **self._attributions, "reasons": dict(self._reasons)},
            "latency": _Histogram().stats(),
            "sinks": [sink.stats() for sink in self._sinks],
        }

    # --- the end --------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.closed:
            raise Error(errno.ECHILD if os.getpid() != self._pid else errno.EPIPE, "the watcher is closed")

    def close(self) -> None:
        with self._changed.lock:
            self._closed = True
            self._regions.clear()
            self._by_name.clear()
            self._changed.notify_all()

    # What sinks need; they hold the watcher's lock.

    def _attach(self, sink: Sink) -> int:
        with self._changed.lock:
            self._sinks.append(sink)
            return self._newest

    def _detach(self, sink: Sink) -> None:
        with self._changed.lock:
            if sink in self._sinks:
                self._sinks.remove(sink)


class Sink:
    """A cursor on the events after `since` (None: from now on), with an account in stats. One thread may read."""

    def __init__(self, watcher: Watcher, name: str, since: Optional[int] = None) -> None:
        watcher._check_open()
        self._watcher = watcher
        self._name = name
        self._asked = self._passed = self._seq = 0
        self._ended = self._abandoned = False
        self._received = self._missed = self._failed = 0
        self._durations = _Histogram()
        newest = watcher._attach(self)
        self._since = newest if since is None else since

    def read(
        self, limit: int = 256, timeout: Optional[float] = None, *, into: Optional[Any] = None
    ) -> Optional[list[Event]]:
        watcher = self._watcher
        asked = self._asked
        watcher._changed.wait_for(self._has_news, timeout)
        with watcher._changed.lock:
            events, cursor = watcher.events_read(self._since, limit)
            if into is not None:
                into.extend(events)
            self._since = cursor["next"]
            self._received += len(events)
            self._missed += cursor["missed"]
        if not events:
            self._passed = max(self._passed, asked)
            if watcher._closed and not self._abandoned and asked == self._asked:
                self._ended = True
            watcher._changed.notify_all()
        return None if self._ended or self._abandoned else events

    def _has_news(self) -> bool:
        watcher = self._watcher
        pending = self._asked > self._passed or self._abandoned
        return pending or watcher._closed or watcher._newest > self._since

    def handled(self, seq: int) -> None:
        self._seq = max(self._seq, seq)
        self._watcher._changed.notify_all()

    def end(self) -> None:
        self._ended = True
        self._watcher._changed.notify_all()

    def drain(self, seq: Optional[int], timeout: Optional[float] = None) -> bool:
        changed = self._watcher._changed
        if seq is None:
            return changed.wait_for(lambda: self._ended, timeout)
        with changed.lock:
            self._asked += 1
            barrier = self._asked
        changed.notify_all()
        return changed.wait_for(lambda: self._passed >= barrier or self._seq >= seq or self._ended, timeout)

    def report(self, duration_ns: int, failed: bool) -> None:
        with self._watcher._changed.lock:
            self._durations.add(duration_ns)
            self._failed += failed

    def stats(self) -> dict[str, Any]:
        """The sink's account. Not of the extension's surface."""
        return {
            "name": self._name,
            "received": self._received,
            "missed": self._missed,
            "failed": self._failed,
            "lag": max(self._watcher._newest - self._since, 0),
            "duration": self._durations.stats(),
        }

    def close(self) -> None:
        self._abandoned = True
        self._watcher._detach(self)
        self._watcher._changed.notify_all()


_ENGINE_STATS: dict[str, Any] = {
    "native_memory_bytes": 0, "faults": 0, "ring_capacity": 0, "ring_depth": 0, "ring_high_water": 0,
    "ring_dropped": 0, "armed_pages": 0, "passes": 0, "pages_written": 0, "sweep_ms": 0,
    "polled_bytes": 0, "poll_round_ms": 0, "poll_budget": 0.0,
    "forks_unwatched": 0,
}  # fmt: skip
_ATTRIBUTION_STATS: dict[str, Any] = {
    "available": False, "filtered": False, "note": _NOTE, "budget": 0.0, "signals": 0, "ours": 0, "foreign": 0,
    "stepped": 0, "throttled_s": 0.0, "stack_depth": 1, "locations": 0, "locations_dropped": 0, "handler_lost": 0,
    "watchpoints": 0, "watchpoints_used": 0, "watchpoint_hits": 0, "watchpoint_missed": 0,
}  # fmt: skip


def probe() -> list[dict[str, Any]]:
    """The backends, as the extension lists them."""
    missing = [{"name": name, "usable": False, "chosen": False, "note": _NOTE} for name in ("uffd", "mprotect")]
    poll = {"name": "poll", "usable": True, "chosen": False, "note": "copies are compared in Python"}
    return [missing[0], poll, missing[1]]


def intern(file: str, function: str, line: int, caller: int = 0) -> int:
    """Nothing is interned: 0."""
    return 0


class _Raiser:
    """Raises where nobody can catch it."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __del__(self) -> None:
        raise self._error


def threads_stop() -> None:
    """There are none here."""


def threads_start() -> None:
    """There are none here."""


def signal_default(number: int) -> None:
    """Has the signal do what the system does with it. Without the extension only the main thread may ask."""
    import signal

    signal.signal(number, signal.SIG_DFL)


def unraisable(error: BaseException, culprit: object) -> None:
    """Hands the exception to sys.unraisablehook. Pure Python cannot name the culprit."""
    _Raiser(error)


def frame_slot(frame: FrameType, index: int, missing: object) -> object:
    """No slot can be read."""
    return missing


def frame_has_ended(frame: FrameType) -> bool:
    """That cannot be told."""
    return False


def own_set(package_dir: str, threading_file: str) -> None:
    """Nothing reads frames here."""
