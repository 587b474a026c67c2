"""Opens a watcher's watches again in a forked child: the same objects, names, callbacks; an epoch of its own.

DESIGN  The child of a fork has the parent's memory and none of its threads, so the native watcher there is dead. What
Python knows of it is alive: the objects, their names and options. From these a new native watcher is filled, behind the
same `MemoryWatcher`, before `os.fork()` returns. What cannot be had again is left out and told, never an error: the
child has work to do.
"""

from __future__ import annotations

import importlib
import os
import sys

from memwatch import _lifetime, _threads
from memwatch._emit import Objects
from memwatch._entry import Again, Entry
from memwatch._native import core
from memwatch._polled import PolledBytes
from memwatch._recorder import open_recorder
from memwatch._typing import Any

RECORDINGS = 64
"""Numbers that a child tries for a recording of its own."""


def reopen(watcher: Any) -> list[str]:
    """In a forked child, whose only thread this is. What could not be had again, as sentences."""
    regions: dict[int, Entry] = watcher._regions
    watcher._core = core.Watcher(**watcher._options, patches=watcher._recording is not None, follows_forks=True)
    watcher._lock = _threads.RLock()
    watcher._objects = Objects()
    before, watcher._moved = watcher._moved, {}
    watcher._regions, watcher._retired = {}, {}
    watcher._callback_since = watcher._callback_errors = watcher._callback_filtered = 0
    adapters, watcher._adapters = watcher._adapters, {}
    watcher._dispatcher = None
    if watcher._callback is not None or any(entry.callback is not None for entry in regions.values()):
        watcher._start_dispatcher()  # before a region is: its first event has to be waited for
    watcher._polled = PolledBytes(watcher._core)
    for log in watcher._logs:
        log.begin(watcher._core)
    lost = [f"the adapter {name!r} is not followed" for name in adapters if name not in ("trace", "polling")]
    for old_id, entry in sorted(regions.items()):
        try:
            if entry.again is not None:
                watcher._moved[old_id] = _watch_again(watcher, entry, entry.again)
        except Exception as error:  # whatever stands in the way of one region, the others are watched
            lost.append(f"region {old_id} is not watched: {error}")
    _follow_names(watcher, regions)
    for oldest_id, old_id in before.items():
        if old_id in watcher._moved:
            watcher._moved.setdefault(oldest_id, watcher._moved[old_id])
    watcher._moved = {old: new for old, new in watcher._moved.items() if old != new}
    lost += _record_again(watcher)
    return lost + _serve_again(watcher)


def _watch_again(watcher: Any, entry: Entry, again: Again) -> int:
    if again.adapter:
        found: int = watcher._track_with(
            watcher._adapter_named(again.adapter), again.obj, again.name, callback=entry.callback, **again.options
        )
    else:
        with watcher._lock:
            found = watcher._core.region_add(again.obj, again.name, **again.options)
    entry.adapter = watcher._regions[found].adapter if again.adapter else None
    watcher._regions[found] = entry
    return found


def _follow_names(watcher: Any, regions: dict[int, Entry]) -> None:
    """The buffers behind names: they go on following."""
    for bound in {id(entry.bound): entry.bound for entry in regions.values() if entry.bound is not None}.values():
        bound.moved(watcher._moved)
        adapter = watcher._adapters.get("trace")
        if adapter is not None:
            adapter.attach(bound.binding_id, bound)


def _record_again(watcher: Any) -> list[str]:
    """A file of the child's own: the parent goes on writing into the other. Numbers of children that are gone come
    again, so that workers that are replaced day and night fill no disk."""
    watcher._recorder = None
    if watcher._recording is None:
        return []
    path, path_bytes = watcher._recording
    for number in range(1, RECORDINGS + 1):
        recorder = open_recorder(watcher._core, f"{path}.{number}", path_bytes, warn=False)
        if recorder.stats()["state"] != "failing":
            watcher._recorder = recorder
            return []
        message = recorder.stats()["message"]
        recorder.close()
    return [f"nothing is recorded: {message}"]


def _serve_again(watcher: Any) -> list[str]:
    lost = []
    for server in watcher._servers:
        try:
            server._follow(watcher._core, os.getpid())
        except Exception as error:
            lost.append(f"there is no exporter: {error}")
    return lost


def hook_uwsgi() -> None:
    """uWSGI forks without Python's hooks; it has one of its own. Only inside uWSGI."""
    if "uwsgi" not in sys.modules or _hooked:
        return
    try:
        postfork = importlib.import_module("uwsgidecorators").postfork
    except Exception:  # no master process: nothing will fork
        return
    _hooked.append(True)
    postfork(_lifetime.forked_silently)


_hooked: list[bool] = []
