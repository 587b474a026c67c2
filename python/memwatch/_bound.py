"""The buffers behind a watched name: the core watches them, and follows when the name is bound to others.

DESIGN  A name that holds a buffer is two regions. The one with the name's own name is the buffer's memory; the name's
binding is told of under "NAME (binding)". When the name is bound to another buffer, the first gives way to a new one.
With `deep=True` the buffers inside lists, tuples, dicts and plain objects are watched likewise, as "NAME[3]",
"NAME['w']", "NAME.w". The trace adapter tells what a name holds after each change, on the thread that made it.
"""

from __future__ import annotations

import weakref
from typing import Any, Iterator, NamedTuple, Optional

from memwatch import _buffers
from memwatch._threads import RLock
from memwatch._trace.values import DEPTH, LIMIT, MISSING, instance_attributes, slot_attributes

BINDING = " (binding)"


class _Watched(NamedTuple):
    region_id: int
    value: object
    """Keeps the identity that it is known by."""


class Bound:
    """One name's buffers."""

    def __init__(self, watcher: Any, name: str, deep: bool, arguments: dict[str, Any]) -> None:
        self._watcher = weakref.ref(watcher)
        self._name = name
        self._deep = deep
        self._arguments = arguments
        self._lock = RLock()
        self._ended = False
        self._watched: dict[str, _Watched] = {}
        self.binding_id = 0

    @property
    def region_id(self) -> int:
        """Of the buffer that the name itself holds; of the binding when it holds none."""
        watched = self._watched.get("")
        return self.binding_id if watched is None else watched.region_id

    def __call__(self, value: object) -> None:
        """The name holds that now. What cannot be watched is left out, since nobody can be told."""
        try:
            self.follow(value)
        except (ValueError, TypeError, OSError):
            return

    def follow(self, value: object) -> None:
        """Watches the buffers that there are now, and no others."""
        watcher = self._watcher()
        if watcher is None:
            return
        with self._lock:
            found = {} if self._ended else dict(self._buffers(value))
            for path, watched in list(self._watched.items()):
                if path not in found or found[path][0] is not watched.value:
                    del self._watched[path]
                    watcher._unwatch_region(watched.region_id)
            for path, (held, buffer) in found.items():
                if path not in self._watched:
                    region_id = watcher._watch_behind(self, buffer, self._name + path, **self._arguments)
                    self._watched[path] = _Watched(region_id, held)

    def moved(self, ids: dict[int, int]) -> None:
        """After a fork: the regions have other ids."""
        self._lock = RLock()
        self.binding_id = ids.get(self.binding_id, self.binding_id)
        self._watched = {
            path: _Watched(ids[watched.region_id], watched.value)
            for path, watched in self._watched.items()
            if watched.region_id in ids
        }

    def end(self) -> None:
        """Watches nothing more."""
        with self._lock:
            self._ended = True
            self.follow(MISSING)

    def _buffers(self, value: object) -> Iterator[tuple[str, tuple[object, object]]]:
        """(path, (object, what the core takes of it))."""
        buffer = None if value is MISSING else _buffers.behind_name(value)
        if buffer is not None:
            yield "", (value, buffer)
        elif self._deep:
            left = [LIMIT]
            yield from _inside("", value, DEPTH, left, set())


def _inside(
    path: str, value: object, depth: int, left: list[int], seen: set[int]
) -> Iterator[tuple[str, tuple[object, object]]]:
    if id(value) in seen or depth == 0:
        return
    seen.add(id(value))
    for name, item in _items(value):
        left[0] -= 1
        if left[0] < 0:
            return
        buffer = _buffers.behind_name(item)
        if buffer is not None:
            yield path + name, (item, buffer)
        else:
            yield from _inside(path + name, item, depth - 1, left, seen)


def _items(value: object) -> Iterator[tuple[str, object]]:
    kind = type(value)
    if kind in (list, tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(list(value)))  # type: ignore[call-overload]
    elif kind is dict:
        items: list[tuple[Any, Any]] = list(dict.items(value))  # type: ignore[arg-type]
        yield from ((f"[{key!r}]", item) for key, item in items if type(key) in (str, int))
    elif not issubclass(kind, (type, str, bytes, int, float)):
        found: Optional[dict[str, Any]] = instance_attributes(value)
        yield from ((f".{name}", item) for name, item in {**(found or {}), **slot_attributes(value)}.items())
