"""PollingAdapter: a thread that compares copies.

DESIGN  Pure Python, any platform, no native core. One thread per adapter compares each object with the copy that it
keeps, at an interval that grows with what the comparisons cost. Who wrote cannot be told: `where` says `none` with the
reason `polling`. Two changes between two looks are one event; a change that is taken back in between is none.
"""

from __future__ import annotations

import errno

from memwatch._decode import Layout, Shown
from memwatch._errors import Error
from memwatch._native import core
from memwatch._threads import Periodic, RLock
from memwatch._trace.values import WHOLE, Frozen, freeze, same, shown_bytes
from memwatch._tracker import TrackerAdapter
from memwatch._typing import Any, Callable, Optional

_SHARE = 0.1  # of one core that the comparisons may use
_INLINE = 4096  # bytes of a buffer that an event carries


class _Bytes:
    """An object with a buffer: its bytes are compared. Holds the export, so that the memory cannot vanish."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.copy = view.tobytes()

    def look(self) -> Optional[tuple[object, object]]:
        """(old, new) when they differ; the new is remembered."""
        now = self._view.tobytes()
        if now == self.copy:
            return None
        old, self.copy = self.copy, now
        return old, now

    layout = None

    def shown(self, value: object) -> Optional[bytes]:
        assert isinstance(value, bytes)
        return value[:_INLINE]

    def release(self) -> None:
        self._view.release()


class _Object:
    """A container or a plain object: a bounded copy is compared."""

    layout = Shown()

    def __init__(self, obj: object, frozen: Frozen) -> None:
        self._obj = obj
        self._frozen = frozen

    def look(self) -> Optional[tuple[object, object]]:
        if same(self._frozen, self._obj):
            return None
        now = freeze(self._obj, WHOLE)
        assert now is not None
        old, self._frozen = self._frozen, now
        return old.value, now.value

    def shown(self, value: object) -> Optional[bytes]:
        return shown_bytes(value)

    def release(self) -> None:
        pass


class _Polled:
    def __init__(self, state: Any, when: Optional[Callable[[Any], object]]) -> None:
        self.state = state
        self.when = when
        self.lock = RLock()
        self.removed = False
        self._failed = False

    def wants(self, new: object) -> bool:
        """The user's `when`. Its failure is reported once and counts as yes."""
        try:
            return self.when is None or bool(self.when(new))
        except Exception as error:
            if not self._failed:
                core.unraisable(error, self.when)
            self._failed = True
            return True


class PollingAdapter(TrackerAdapter):
    """Watches buffers, lists, dicts, sets and plain objects by comparing copies at an interval."""

    name = "polling"

    def __init__(self, *, interval_s: float = 0.05) -> None:
        if not interval_s > 0:
            raise ValueError("interval_s must be greater than 0")
        self._interval_s = interval_s
        self._polled: dict[int, _Polled] = {}
        self._lock = RLock()
        self._thread: Optional[Periodic] = None
        self._closed = False
        self._posted = self._filtered = self._looks = 0

    def track(self, obj: object, metadata: dict[str, Any]) -> Optional[int]:
        emitter = self.emitter
        if emitter is None or self._closed:
            raise Error(errno.EBADF, "the adapter is closed or belongs to no watcher: MemoryWatcher(adapter=...)")
        polled = _Polled(_state(obj), metadata.get("when"))
        region_id = emitter.add(metadata["name"], values=metadata.get("values"))
        with self._lock:
            self._polled[region_id] = polled
            if self._thread is None:
                self._thread = Periodic(self, self._interval_s, _SHARE, "memwatch-polling")
        return region_id

    def untrack(self, region_id: int) -> None:
        with self._lock:
            polled = self._polled.pop(region_id, None)
        if polled is None or self.emitter is None:
            return
        self._look(region_id, polled)
        with polled.lock:
            polled.removed = True
            polled.state.release()
        self.emitter.remove(region_id)

    def check_changes(self) -> list[int]:
        return [region_id for region_id, polled in self._polled.copy().items() if self._look(region_id, polled)]

    def get_stats(self) -> dict[str, Any]:
        return {
            "adapter": self.name,
            "tracked": len(self._polled),
            "posted": self._posted,
            "filtered": self._filtered,
            "looks": self._looks,
            "interval_s": self._interval_s if self._thread is None else self._thread.pause_s,
        }

    def close(self) -> None:
        self._closed = True
        if self._thread is not None:
            self._thread.stop()
        for region_id in list(self._polled):
            self.untrack(region_id)

    def layout_of(self, region_id: int) -> Optional[Layout]:
        """How the region's events read."""
        polled = self._polled.get(region_id)
        return None if polled is None else polled.state.layout

    def _look(self, region_id: int, polled: _Polled) -> bool:
        """Posts the change, if there is one."""
        with polled.lock:
            if polled.removed:
                return False
            self._looks += 1
            change = polled.state.look()
            if change is None:
                return False
            old, new = change
            if not polled.wants(new):
                self._filtered += 1
                return False
            assert self.emitter is not None
            self._posted += 1
            self.emitter.post(
                region_id,
                old=polled.state.shown(old),
                new=polled.state.shown(new),
                old_object=old,
                new_object=new,
                attribution="none",
                reason="polling",
                backend="polling",
            )
            return True


def _state(obj: object) -> Any:
    """What is compared; TypeError when there is nothing in the object that can change."""
    try:
        view = memoryview(obj)  # type: ignore[arg-type]
    except TypeError:
        frozen = freeze(obj, WHOLE)
        if frozen is None:
            raise TypeError(f"a {type(obj).__name__} object does not change in place: use watch_name()") from None
        return _Object(obj, frozen)
    if not view.nbytes:
        raise ValueError("the buffer is empty: there is nothing to watch")
    return _Bytes(view)
