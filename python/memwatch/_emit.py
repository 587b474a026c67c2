"""How an adapter's events enter: regions without memory, and posts that the log takes like any other event.

    emitter = ...                                # the watcher calls adapter.bind(emitter) once
    region_id = emitter.add("counter")           # ValueError when the name is in use
    emitter.post(region_id, old=b"1", new=b"2", old_object=1, new_object=2, frames=[(file, function, line)])
    emitter.remove(region_id)                    # what was posted before still reaches its callback

`old` and `new` are what feeds and pages show (bounded by the adapter); the objects go to callbacks in this process
only, as `event.old` and `event.new`, and are let go once the callback has run. `post` calls no code of the user's,
never waits for a reader, may be called from a trace function on any thread, and is quiet (0) once the watcher is
closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from memwatch._native import core
from memwatch._threads import RLock
from memwatch._typing import Any, Optional

OBJECTS_MAX = 4096
INLINE_THRESHOLD = 4096  # the option's default
CUT = "\N{HORIZONTAL ELLIPSIS}".encode()


class Objects:
    """What belongs to an event and only callbacks of this process get: objects and a note, by seq, bounded.

    The lock is held from the post until the objects are in, so that the dispatcher, which may be quicker, waits for
    them. The same thread may take it again: a post can run inside a collection that an allocation under it started.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.used = False
        self._by_seq: dict[int, tuple[Optional[tuple[Any, Any]], str]] = {}

    def put(self, seq: int, objects: Optional[tuple[Any, Any]], note: str) -> None:
        """The lock is held."""
        self._by_seq[seq] = (objects, note)
        if len(self._by_seq) > 2 * OBJECTS_MAX:
            for oldest in list(self._by_seq)[:-OBJECTS_MAX]:  # a signal handler may do the same in the midst of it
                self._by_seq.pop(oldest, None)

    def take(self, seq: int) -> tuple[Optional[tuple[Any, Any]], str]:
        """What belongs to the event, and forgets it."""
        if not self.used:
            return None, ""
        with self.lock:
            return self._by_seq.pop(seq, (None, ""))


class Emitter:
    """One adapter's way into one watcher."""

    def __init__(
        self,
        watcher: core.Watcher,
        objects: Objects,
        retire: Callable[[int], None],
        has_callbacks: Callable[[], bool],
        options: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """`retire`: called with the id of a region that has ended. `has_callbacks`: whether anybody wants objects.
        `options`: the watcher's."""
        self._core = watcher
        self._objects = objects
        self._retire = retire
        self._has_callbacks = has_callbacks
        self._text_max: int = (options or {}).get("inline_threshold", INLINE_THRESHOLD)

    def add(self, name: Optional[str], *, values: Optional[str] = None) -> int:
        """A region without memory; its id."""
        return self._core.region_add_external(name, values=values or "auto")

    def show(self, region_id: int, value: object) -> None:
        """What the region holds, before its first event: a number is exported as that."""
        self._core.number_set(region_id, value)

    def remove(self, region_id: int) -> None:
        """Ends the region; KeyError when it is unknown."""
        self._core.region_remove(region_id)
        self._retire(region_id)

    def post(
        self,
        region_id: int,
        *,
        old: Optional[bytes] = None,
        new: Optional[bytes] = None,
        old_object: Any = None,
        new_object: Any = None,
        time_ns: int = 0,
        thread_id: int = 0,
        thread_name: str = "",
        frames: Sequence[tuple[str, str, int]] = (),
        attribution: str = "exact",
        reason: str = "none",
        backend: str = "external",
        note: str = "",
    ) -> int:
        """Appends an event; its seq, 0 when the watcher is closed."""
        objects = self._objects
        if self._core.closed:
            return 0
        if backend == "trace":
            old, new = self._text(old), self._text(new)
        with objects.lock:
            has_objects = self._has_callbacks()
            objects.used = objects.used or has_objects  # before the dispatcher can ask for what comes
            seq = self._core.post(
                region_id,
                old=old,
                new=new,
                time_ns=time_ns,
                thread_id=thread_id,
                thread_name=thread_name,
                frames=frames,
                attribution=attribution,
                reason=reason,
                backend=backend,
                old_number=old_object,
                new_number=new_object,
            )
            if has_objects:
                objects.put(seq, (old_object, new_object), note)
        return seq

    def _text(self, text: Optional[bytes]) -> Optional[bytes]:
        """A name's value as shown, with a mark where the core would cut it: half a number is another number."""
        if text is None or len(text) <= self._text_max:
            return text
        return text[: max(self._text_max - len(CUT), 0)] + CUT
