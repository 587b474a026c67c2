"""MemoryWatcher: what users hold."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from memwatch import _check, _config, _lifetime, _threads
from memwatch._buffers import exported, why_not
from memwatch._decode import Layout
from memwatch._dispatch import DELIVERED, FAILED, SKIPPED, Dispatcher, ThreadNames
from memwatch._emit import Emitter, Objects
from memwatch._entry import Again, Callback, Condition, Entry
from memwatch._event import ChangeEvent
from memwatch._memory import is_kept
from memwatch._native import core, missing, recorder
from memwatch._polled import PolledBytes
from memwatch._recorder import open_recorder
from memwatch._stream import NEWEST, EventStream
from memwatch._typing import TYPE_CHECKING, Any, Optional, Union

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from memwatch import _history
    from memwatch._log_events import LogEvents
    from memwatch._serve import ServeOptions, Server
    from memwatch._stats import Stats

CLOSE_S = 5.0  # how long closing waits for callbacks
RETIRED_MAX = 4096


class MemoryWatcher:
    """Watches variables: which one changed, when, from what to what, and who wrote it.

    Every option is also an environment variable, MEMWATCH_ and its name in capitals; an argument wins. `adapter` is a
    `memwatch.adapters.TrackerAdapter` that does the watching in place of the native core.

    A watcher lives until it is closed, by `close()`, at the end of a `with` block, or when the process ends; then
    everything written before is still delivered.

    A forked child has no watcher: there its methods raise memwatch.Error, and one record of the logger "memwatch" tells
    of it. With `follow_fork=True` it has one: the same variables, callbacks and exporters (each on a port of its own),
    with events of an epoch of its own, and a recording PATH.1, PATH.2 and so on. Regions keep their names; where some
    had been removed, ids may be others.
    """

    def __init__(
        self,
        adapter: Any = None,
        *,
        backend: Optional[str] = None,
        window_ms: Optional[int] = None,
        ring_capacity: Optional[int] = None,
        inline_threshold: Optional[int] = None,
        preview_size: Optional[int] = None,
        history_budget: Optional[int] = None,
        attribution_budget: Optional[float] = None,
        poll_budget: Optional[float] = None,
        stack_depth: Optional[int] = None,
        event_capacity: Optional[int] = None,
        event_budget: Optional[int] = None,
        history_path: Union[str, os.PathLike[str], None] = None,
        history_path_bytes: Optional[int] = None,
        follow_fork: Optional[bool] = None,
    ) -> None:
        _check.adapter(adapter)
        native_backend: Optional[str] = getattr(adapter, "native_backend", None)
        options = _config.resolve(
            {
                "backend": native_backend or backend,
                "window_ms": window_ms,
                "ring_capacity": ring_capacity,
                "inline_threshold": inline_threshold,
                "preview_size": preview_size,
                "history_budget": history_budget,
                "attribution_budget": attribution_budget,
                "poll_budget": poll_budget,
                "stack_depth": stack_depth,
                "event_capacity": event_capacity,
                "event_budget": event_budget,
                "history_path": None if history_path is None else _check.path(history_path, "history_path"),
                "history_path_bytes": history_path_bytes,
                "follow_fork": follow_fork,
            }
        )
        self._follows = bool(options.pop("follow_fork", False))
        path, path_bytes = options.pop("history_path", None), options.pop("history_path_bytes", None)
        if path is not None:
            recorder()  # says why there is none
        _config.warn_of_hazard(options)
        self._options, self._recording = options, None if path is None else (path, path_bytes)
        self._core = core.Watcher(**options, patches=path is not None, follows_forks=self._follows)
        self._recorder = None if path is None else open_recorder(self._core, path, path_bytes)
        self._lock = _threads.RLock()  # from a region's birth in the core until its entry in _regions
        self._polled = PolledBytes(self._core)
        self._regions: dict[int, Entry] = {}
        self._retired: dict[int, Entry] = {}  # removed, for the events that are still on their way
        self._objects = Objects()
        self._adapters: dict[str, Any] = {}
        self._servers: list[Server] = []
        self._logs: list[LogEvents] = []
        self._callback: Optional[Callback] = None
        self._callback_since = 0
        self._dispatcher: Optional[Dispatcher] = None
        self._callback_errors = 0
        self._callback_filtered = 0
        self._closing = False
        self._moved: dict[int, int] = {}
        """Ids of before a fork, where the region has another one now."""
        self._adapter = None if native_backend else adapter
        if adapter is not None:
            self._bind(adapter)
        _lifetime.keep(self)
        if self._follows:
            from memwatch import _follow  # now: a child that was just forked imports nothing

            _follow.hook_uwsgi()

    # --- watching ---

    def watch(
        self,
        obj: object,
        name: Optional[str] = None,
        *,
        callback: Optional[Callback] = None,
        values: Optional[str] = None,
        metric: Optional[bool] = None,
        when: Condition = None,
        max_rate: Optional[float] = None,
        shadow: str = "full",
        history_budget: Optional[int] = None,
        precise: Union[bool, str] = "auto",
        backend: Optional[str] = None,
        replace: bool = False,
        **metadata: Any,
    ) -> int:
        """Watches an object with a buffer under a name that is unique in this watcher; returns the region's id.

        The watch holds the buffer's export: resizing the object meanwhile raises Python's own BufferError. Where the
        memory goes away all the same (NumPy's resize(refcheck=False), a file that is cut), the region ends with an
        event of kind "lost".

        callback        gets this region's events in place of the watcher's callback
        values          what may leave the process: "full", "preview", "hash" or "none"; by default "hash" if
                        the name looks like a secret's, else "full"
        when            which changes are events: a function of the event, asked before the callback, or a condition
                        that the core judges: "changed", "any_nan", ("gt", x) and so ge, lt, le, eq, ne, delta_gt,
                        ("outside", low, high) and so inside; of numeric regions, any element
        max_rate        events a second; what comes faster is merged
        metric          True: minimum, maximum, mean and NaN count of a numeric array are exported too
        shadow          "hash": 8 bytes a page in place of a copy, for regions too large to copy; old bytes are not seen
        history_budget  bytes of this region's versions, within the watcher's budget
        precise         True: a hardware watchpoint, for 1, 2, 4 or 8 aligned bytes; every write is an event with its
                        own old and new value; the process has four. "auto": a free one for a while when its
                        neighbours' writes cost the region its authors. False: never
        backend         how this region's writes are noticed: "uffd", "poll", "mprotect"; by default as the watcher's
        replace         True: another region of that name gives way to this one, as when a notebook's cell runs again
        metadata        goes to the adapter, where there is one
        """
        _check.callback(callback)
        _check.name(name)
        adapter = self._adapter
        if adapter is None and not core.NATIVE:
            adapter = self._adapter_named("polling")
        if adapter is not None:
            native_only = metric or max_rate is not None or history_budget is not None or precise is True
            if native_only or shadow != "full" or backend is not None:
                raise ValueError(
                    "metric, max_rate, history_budget, shadow, precise and backend need the native core, not an adapter"
                )
            if replace and name is not None:
                self.unwatch(name)
            return self._track_with(adapter, obj, name, callback=callback, when=when, values=values, **metadata)
        if metadata:
            raise TypeError(f"watch() got an unexpected keyword argument {next(iter(metadata))!r}")
        if shadow not in ("full", "hash"):
            raise ValueError(f'shadow={shadow!r}: it is "full" or "hash"')
        if precise not in (True, False, "auto"):
            raise ValueError(f'precise={precise!r}: it is True, False or "auto"')
        refusal = why_not(obj)
        if refusal is not None:
            raise TypeError(refusal)
        _check.region(obj, values, when, max_rate, metric)
        exporter = exported(obj)
        obj = obj if exporter is None else exporter  # a tensor's memory, as an array
        judge = when if callable(when) else None
        layout = Layout.of(obj)
        with self._lock:
            options: dict[str, Any] = {
                "values": values or "auto",
                "metric": bool(metric),
                "pinned": is_kept(obj),
                "when": None if callable(when) else when,
                "max_rate": max_rate,
                "history_budget": history_budget,
                "hashed": shadow == "hash",
                "precise": {"auto": 0, True: 1, False: 2}[precise],
                "format": layout.format or None if layout is not None else None,
                "backend": backend,
            }
            if replace and name is not None:
                self._core.region_remove(self._core.region_add(obj, None, **options))  # what cannot be replaces nothing
                self.unwatch(name)
            region_id = self._core.region_add(obj, name, **options)
            self._added(region_id, Entry(layout, callback, judge), obj, options)
        if callback is not None:
            self._start_dispatcher()
        self._polled.add(region_id)
        return region_id

    def _added(self, region_id: int, entry: Entry, obj: object, options: dict[str, Any], adapter: str = "") -> None:
        """Remembers a new region, and how it can be watched again. The lock is held."""
        if self._follows:
            name = self._core.region_info(region_id)["name"]
            entry.again = Again(obj, name, options, adapter)
        self._moved.pop(region_id, None)
        self._regions[region_id] = entry

    def unwatch(self, id_or_name: Union[int, str]) -> bool:
        """Stops watching a region. What was written before is still delivered. False when there is no such region."""
        _check.region_or_name(id_or_name, "unwatch")
        try:
            region_id = self._id(id_or_name)
            entry = self._regions.get(region_id) or self._retired.get(region_id)
            if entry is not None and entry.bound is not None:
                return self._unwatch_bound(entry.bound)
            entry = self._regions.get(region_id)
            if entry is not None and entry.adapter is None:
                self._core.region_remove(region_id)
            elif entry is not None:
                entry.adapter.untrack(region_id)
                self._remove_left_over(region_id)
            else:  # of a watch() that a signal handler cut short
                for adapter in list(self._adapters.values()):
                    adapter.untrack(region_id)
                self._core.region_remove(region_id)
        except KeyError:
            return False
        self._retire(region_id)
        return True

    def _unwatch_bound(self, bound: Any) -> bool:
        """Stops watching a name and the buffers behind it."""
        bound.end()
        entry = self._regions.get(bound.binding_id)
        if entry is None:
            return False
        entry.bound = None
        return self.unwatch(bound.binding_id)

    def all(self, **options: Any) -> dict[str, int]:
        """Watches every variable in the caller's scope; the ids by name, and `.skipped`: why not the others.

        Options are those of `watch_attr`, for all of them.
        """
        from memwatch import _scope  # here, because few programs need it

        return _scope.watch_all(self, sys._getframe(1), **options)

    def watch_attr(self, obj: object, attr: str, **options: Any) -> int:
        """Watches what an object's attribute is bound to, and holds; the region's id.

        An array or another buffer that it holds is watched as by `watch()`, and the watch follows when it is bound to
        another; that it was is told under "NAME (binding)".

        alias        the region's name; "OBJECT.ATTRIBUTE" by default
        callback     gets these events in place of the watcher's callback
        values       as in `watch()`
        track        "value"; "binding": only that it is bound to another object
        deep         True: also what lists, dicts and objects in it hold, and the buffers there, as "NAME[...][0]"
        when         which changes are events: a function of the new value, or a condition on a number, as in `watch()`
        cmp          cmp(old, new) is true when they differ; in place of memwatch's own comparison
        copy         copy(value) is what is kept for the next comparison
        stack_depth  frames in `where`
        properties   True: the attribute is computed by its class, and may be called to be compared
        max_rate, metric   as in `watch()`, where it holds a buffer
        """
        from memwatch import _scope  # here, because few programs need it

        return _scope.watch_attr(self, obj, attr, **options)

    def watch_item(self, container: Any, key: Any, **options: Any) -> int:
        """Watches what a container holds under a key or an index; options as in `watch_attr`, and

        names        further names by which code that changes the container knows it

        An item of an array is watched as memory. One that its container makes anew at each access is compared by value
        where it is plain data, else refused.
        """
        from memwatch import _scope  # here, because few programs need it

        return _scope.watch_item(self, container, key, **options)

    def watch_name(self, name: str, **options: Any) -> int:
        """Watches what a name in the caller's scope is bound to; options as in `watch_attr`."""
        from memwatch import _scope  # here, because few programs need it

        return _scope.watch_name(self, sys._getframe(1), name, **options)

    # --- what comes of it ---

    def set_callback(self, callback: Optional[Callback]) -> None:
        """From now on `callback(event)` runs for every event, on the watcher's own thread; None stops it.

        Events that are older, also those not delivered yet, are not for the new callback.
        """
        _check.callback(callback)
        self._callback_since = self._core.events_read(NEWEST, 0)[1]["newest"]
        self._callback = callback
        if callback is not None:
            self._start_dispatcher()

    def events(self, since: Optional[int] = None, timeout: Optional[float] = None) -> EventStream:
        """The events from now on, or after seq `since` (0: all that are kept), for `for` and `async for`.

        Ends when the watcher closes, or after `timeout` seconds without an event.
        """
        return EventStream(self._core, self._event, since, timeout)

    def log_events(self, level: Union[int, str] = "INFO", name: str = "*", max_rate: float = 100) -> LogEvents:
        """From now on each event is a record of the logger "memwatch.events"; `close()` of what it returns ends that.

        The record's file, line, time and thread are the writer's; `record.memwatch_event` is the event. `name` is a
        glob. What comes faster than `max_rate` records a second is counted and told in one (0: no limit).
        """
        from memwatch._log_events import LogEvents  # here, because few programs need it

        self._logs.append(LogEvents(self._core, self._event, level, name, max_rate))
        return self._logs[-1]

    def flush(self, timeout: float = 5.0) -> bool:
        """Waits until every write before the call is delivered or accounted for. False when `timeout` was too short.

        In a callback it waits for the events, not for their delivery.
        """
        _check.timeout(timeout, "flush")
        deadline = time.monotonic() + timeout
        for adapter in [each for each in self._adapters.values() if hasattr(each, "check_changes")]:
            adapter.check_changes()
        flushed = bool(_threads.aside(lambda: self._core.flush(timeout)))
        if self._dispatcher is None:
            return flushed
        newest = self._core.events_read(NEWEST, 0)[1]["newest"]
        return self._dispatcher.drain(newest, max(deadline - time.monotonic(), 0)) and flushed

    def load(self, key: str) -> bytes:
        """The bytes that a storage key stands for; KeyError when they are unknown or evicted from the history."""
        return self._core.load(key)

    def history(self, name: Union[int, str]) -> list[ChangeEvent]:
        """The region's events whose versions are kept, the newest last."""
        region_id = self._id(name)
        return [self._event(event) for event in reversed(self._core.history(region_id))]

    def value_at(self, name: Union[int, str], *, seq: Optional[int] = None, time: Optional[float] = None) -> Any:
        """What the region held after the event `seq` (0: before its first), or at a time: bytes, or a NumPy array.

        `time` is in seconds since the epoch, or in nanoseconds as `event.timestamp_ns` has it. KeyError when the
        version was evicted (it names the oldest that is kept), when the region was not watched then, and for a
        seq that is not yet.
        """
        from memwatch._history import time_ns  # here, because few programs need it

        region_id = self._id(name)
        if (seq is None) == (time is None):
            raise TypeError("value_at() takes either seq or time")
        if seq is None:
            seq = self._core.version_at(region_id, time_ns(time or 0))
        data = self._core.version(region_id, seq)
        layout = self._entry(region_id).layout
        return layout.value(data) if layout is not None and layout.is_array else data

    def blame(self, name: Union[int, str], index: Optional[_history.Index] = None) -> list[_history.Blame]:
        """Who last wrote these elements (all, by default), in runs of elements with the same event."""
        from memwatch import _history  # here, because few programs need it

        region_id = self._id(name)
        layout = self._entry(region_id).layout or self._layout_of(region_id)
        return _history.blame(self._core, region_id, layout, index, self._event)

    def serve(self, host: str = "127.0.0.1", port: Optional[int] = None, **options: Unpack[ServeOptions]) -> Server:
        """Serves metrics, feeds and a live page: on port 10764, or any free one where that is in use, as port=0 does.
        `memwatch.Error` when a port was asked for and is in use. The options are those of `memwatch.ServeOptions`.

        `sigterm=True`, on the main thread: SIGTERM first delivers what was written, closes the watchers and removes the
        discovery file, and then ends the process as it would have. A program with a handler of its own keeps that.
        """
        from memwatch._serve import Server  # here, because few programs need it

        server = Server(self._core, host, port, dict(options))
        self._servers.append(server)
        return server

    def get_stats(self, regions: bool = False) -> Stats:
        """What was seen, what was lost and what it cost; `regions=True` adds every region's own account by name."""
        stats: Any = self._core.stats()
        stats["backends"] = self._core.backends()
        callback_missed = sum(sink["missed"] for sink in stats["sinks"] if sink["name"] == "callback")
        stats["callback_errors"] = self._callback_errors
        stats["callback_filtered"] = self._callback_filtered
        stats["callback_missed"] = callback_missed
        stats["dropped_events"] = sum(stats["dropped"].values()) + stats["ring_dropped"] + callback_missed
        stats["recorder"] = None if self._recorder is None else self._recorder.stats()
        stats["missing"] = dict(missing)
        stats["adapters"] = {name: adapter.get_stats() for name, adapter in self._adapters.items()}
        if regions:
            stats["regions"] = {region["name"]: region for region in self._core.region_list()}
        said: Stats = stats
        return said

    def close(self) -> None:
        """Delivers what was written before, then ends the watcher. Twice is allowed.

        Callbacks that do not end are waited for for 5 seconds.
        """
        self._close_until(None)

    def _close_until(self, deadline: Optional[float]) -> float:
        """Closes; the deadline for callbacks, CLOSE_S from now if it was None."""
        deadline = time.monotonic() + CLOSE_S if deadline is None else deadline
        if not self._closing and not self._core.closed:
            self._closing = True
            try:
                self._close_parts(deadline)
            finally:
                self._closing = False  # one that an interrupt cut short can be made again
        return deadline

    def _close_parts(self, deadline: float) -> None:
        for adapter in self._adapters.values():
            close = getattr(adapter, "close", None)
            if close is not None:
                close()
        self.flush(max(deadline - time.monotonic(), 0))
        for server in self._servers:
            server.close()
        if self._recorder is not None:
            self._recorder.close()
        self._core.close()
        if self._dispatcher is not None:
            self._dispatcher.join(max(deadline - time.monotonic(), 0))
        for log in self._logs:
            log.join(max(deadline - time.monotonic(), 0))
        for entry in list(self._regions.values()):
            entry.again = entry.bound = None  # they hold what was watched
        _lifetime.forget(self)

    def __enter__(self) -> MemoryWatcher:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._core.closed:
            return "<MemoryWatcher closed>"
        stats = self._core.stats()
        return f"<MemoryWatcher {len(self._regions)} regions, {stats['delivered']} events, backend {stats['backend']}>"

    def _id(self, name: Union[int, str]) -> int:
        return self._core.region_find(name) if isinstance(name, str) else self._moved.get(name, name)

    def _layout_of(self, region_id: int) -> Layout:
        info = self._core.region_info(region_id)
        return Layout(info["format"], info["item_bytes"] or 1, info["shape"] or (info["size_bytes"],))

    # --- delivery, on the dispatcher's thread ---

    def _follow_fork(self) -> list[str]:
        """In a forked child: watches again. What cannot be, as sentences."""
        from memwatch import _follow

        lost = _follow.reopen(self)
        _lifetime.keep(self)
        return lost

    def _has_callbacks(self) -> bool:
        return self._dispatcher is not None

    def _start_dispatcher(self) -> None:
        with self._lock:
            if self._dispatcher is None:
                self._dispatcher = Dispatcher(self._core, self._deliver)
            self._dispatcher.start()

    def _entry(self, region_id: int) -> Entry:
        """What is known of an event's region; the default for one that is long gone."""
        entry = self._regions.get(region_id) or self._retired.get(region_id)
        if entry is None:
            with self._lock:  # it may be between its birth in the core and its entry
                entry = self._regions.get(region_id)
        return entry or Entry()

    def _event(self, event: core.Event, names: Optional[ThreadNames] = None) -> ChangeEvent:
        return self._make_event(event, self._entry(event.region_id), names or ThreadNames(), (None, ""))

    def _make_event(self, event: core.Event, entry: Entry, names: ThreadNames, extra: tuple[Any, str]) -> ChangeEvent:
        told = event.thread_name
        name = told if told and entry.adapter is not None else names.get(event.thread_id, told)
        return ChangeEvent(event, entry.layout, thread_name=name, objects=extra[0], note=extra[1], load=self._core.load)

    def _deliver(self, event: core.Event, names: ThreadNames) -> int:
        """Runs the event's callback, if it has one, and reports what that raises."""
        extra = self._objects.take(event.seq)
        entry = self._entry(event.region_id)
        callback = entry.callback
        if callback is None and event.seq > self._callback_since:
            callback = self._callback
        if callback is None:
            return SKIPPED
        change = self._make_event(event, entry, names, extra)
        try:
            if entry.when is not None and not entry.when(change):
                self._callback_filtered += 1
                return SKIPPED
            callback(change)
        except BaseException as error:
            self._callback_errors += 1
            core.unraisable(error, callback)
            return FAILED
        return DELIVERED

    # --- adapters ---

    def _bind(self, adapter: Any) -> None:
        bind = getattr(adapter, "bind", None)
        if bind is not None:
            bind(Emitter(self._core, self._objects, self._retire, self._has_callbacks, self._options))
        self._adapters[getattr(adapter, "name", type(adapter).__name__)] = adapter

    def _adapter_named(self, name: str) -> Any:
        """The watcher's own "trace" or "polling" adapter, made when it is first needed."""
        with self._lock:
            if name not in self._adapters:
                from memwatch import adapters  # here, because few programs need it

                adapter = {"trace": adapters.TraceAdapter, "polling": adapters.PollingAdapter}[name]()
                self._bind(adapter)
                self._adapters[name] = adapter
            return self._adapters[name]

    def _track_with(
        self,
        adapter: Any,
        obj: object,
        name: Optional[str],
        *,
        callback: Optional[Callback] = None,
        when: Condition = None,
        values: Optional[str] = None,
        **metadata: Any,
    ) -> int:
        """Has an adapter watch `obj`; it evaluates `when`. One that gives no id gets a region without memory."""
        with self._lock:
            region_id = adapter.track(obj, {"name": name, "values": values, "when": when, **metadata})
            if region_id is None:
                region_id = self._core.region_add_external(name, values=values or "auto")
            entry, options = Entry.of(adapter, region_id, callback), {"when": when, "values": values, **metadata}
            self._added(region_id, entry, obj, options, getattr(adapter, "name", ""))
        if callback is not None:
            self._start_dispatcher()
        return int(region_id)

    def _watch_behind(self, bound: Any, obj: object, name: str, **options: Any) -> int:
        """Watches a buffer that lies behind a name, and remembers behind which."""
        region_id = self.watch(obj, name, **options)
        for each in (region_id, bound.binding_id):
            entry = self._regions.get(each)
            if entry is not None:
                entry.bound = bound
        return region_id

    def _unwatch_region(self, region_id: int) -> None:
        """Stops watching one buffer behind a name."""
        self._remove_left_over(region_id)
        self._retire(region_id)

    def _remove_left_over(self, region_id: int) -> None:
        """Removes a region that its adapter left in place, as one that returned no id does."""
        try:
            self._core.region_remove(region_id)
        except KeyError:
            return

    def _retire(self, region_id: int) -> None:
        entry = self._regions.pop(region_id, None)
        if entry is None:
            return
        entry.again = None  # else a removed region's object would live on
        self._retired[region_id] = entry
        if len(self._retired) > 2 * RETIRED_MAX:
            for oldest in list(self._retired)[:-RETIRED_MAX]:  # a signal handler may do the same in the midst of it
                self._retired.pop(oldest, None)
