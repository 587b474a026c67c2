"""The interface of adapters, and of what they are bound to."""

from __future__ import annotations

from collections.abc import Sequence

from memwatch._typing import Any, Optional, Protocol


class Emitter(Protocol):
    """What an adapter is bound to: its way into the watcher's log."""

    def add(self, name: str, *, values: Optional[str] = None) -> int:
        """Registers a region without memory; its id. ValueError when the name is in use."""

    def remove(self, region_id: int) -> None: ...

    def post(
        self,
        region_id: int,
        *,
        old: Optional[bytes],
        new: Optional[bytes],
        old_object: object = None,
        new_object: object = None,
        attribution: str = "exact",
        reason: str = "none",
        frames: Sequence[tuple[str, str, int]] = (),
        thread_id: int = 0,
        thread_name: str = "",
        backend: str = "trace",
        time_ns: int = 0,
        note: str = "",
    ) -> int: ...


class TrackerAdapter:
    """Something that finds changes by means of its own and reports them through the watcher's log.

    A watcher that was opened with an adapter binds it to an emitter, then passes it what is to be watched. What an
    adapter finds it posts with `self.emitter.post(region_id, old=..., new=...)`, from any thread; callbacks, feeds,
    metrics and history take it from there. What an adapter must keep is tested by `memwatch.testing`:

    - `track` returns the id that `emitter.add(metadata["name"])` gave, or None to let the watcher add the region;
      it raises TypeError for what it cannot watch, and has then changed nothing.
    - after `untrack(region_id)` has returned, no event of that region is posted.
    - a value that did not change is not posted; the last posted value is what the object holds when its writers rest
      and `check_changes` has returned.
    - `close` ends its threads and is allowed twice.
    """

    name = "custom"
    """What stats call it."""
    emitter: Optional[Emitter] = None
    native_backend: Optional[str] = None
    """Set by adapters that are a native backend under a name: objects with a buffer go to the core, not to `track`."""

    def bind(self, emitter: Emitter) -> None:
        """Called once, before the first `track`."""
        self.emitter = emitter

    def track(self, obj: object, metadata: dict[str, Any]) -> Optional[int]:
        """Begins to watch. `metadata` has `name` and `values` (for `emitter.add`), and what else `watch` was given."""
        raise NotImplementedError(f"{type(self).__name__} does not implement track()")

    def untrack(self, region_id: int) -> None:
        """Stops watching. An unknown id is ignored: the name may just have ended by itself."""

    def check_changes(self) -> list[int]:
        """Looks for changes now and posts them; the ids of the regions that had changed. `watcher.flush()` calls it."""
        return []

    def get_stats(self) -> dict[str, Any]:
        """Numbers for `watcher.get_stats()`; `adapter` is the adapter's name."""
        return {"adapter": self.name}

    def close(self) -> None:
        """Ends everything. Twice is allowed."""
