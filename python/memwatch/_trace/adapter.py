"""TraceAdapter: names bound to any object.

DESIGN  One engine serves all adapters of the process (sys.monitoring from Python 3.12 on, sys.settrace before). An
adapter owns its watches and one sweep thread, which compares what no engine can see: changes made by C code, through
aliases in code that mentions no watched name, in threads without a tracer, or past the comparison budget. The sweep's
interval grows with its cost, so that it uses at most half a percent of a core.
"""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from memwatch._errors import Error
from memwatch._threads import Periodic, RLock
from memwatch._trace.frames import is_dead, user_frame
from memwatch._trace.monitor import MonitoringEngine
from memwatch._trace.settrace import SettraceEngine
from memwatch._trace.targets import ObjectTarget, Target, names_of_object
from memwatch._trace.values import freeze
from memwatch._trace.watch import Counters, Options, Watch
from memwatch._tracker import TrackerAdapter
from memwatch._typing import Any, Optional, Protocol

_SWEEP_SHARE = 0.005
_OPTIONS = ("track", "cmp", "copy", "deep", "when", "stack_depth")


class _Engine(Protocol):
    def add(self, watches: list[Watch]) -> None: ...
    def remove(self, watch: Watch) -> None: ...
    def refresh(self, watch: Watch) -> None: ...
    def contended(self, watch: Watch) -> bool: ...
    def settle(self) -> None: ...
    def stats(self) -> dict[str, Any]: ...


_engines: dict[str, _Engine] = {}
_engines_lock = RLock()


def _engine(kind: str) -> _Engine:
    """The process's engine of that kind."""
    if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
        raise Error(errno.ENOTSUP, "names are traced on CPython 3.11 and later: use PollingAdapter for what they hold")
    if kind == "auto":
        kind = "monitoring" if hasattr(sys, "monitoring") else "settrace"
    if kind == "monitoring" and not hasattr(sys, "monitoring"):
        raise Error(errno.ENOTSUP, "sys.monitoring needs Python 3.12 or later: use engine='settrace'")
    if kind not in ("monitoring", "settrace"):
        raise ValueError(f"engine must be 'auto', 'monitoring' or 'settrace', not {kind!r}")
    with _engines_lock:
        if kind not in _engines:
            _engines[kind] = MonitoringEngine() if kind == "monitoring" else SettraceEngine()
        return _engines[kind]


class TraceAdapter(TrackerAdapter):
    """Watches names: locals, globals, closures, attributes, items, and what they hold in place.

    An event comes when a name is bound to another value, or when the list, dict, set or plain object that it holds is
    changed. `where` names the line of the assignment and is `exact`; a change in place is `exact` where the bytecode
    tells which object the line changed, else `page`: it was found right after that line. What the sweep finds is
    `none`.

    Limits: of containers with more than 100,000 items the first and last 50,000 and the length are compared. Code that
    changes an object through another name, and mentions no name by which it was watched, is found when code that
    does runs next, by the sweep, or by flush(). Before Python 3.12, threads that ran before the first watch are seen
    by the sweep only, and so is a thread in which a debugger has taken the trace function since; several changes
    within one line are one event there. A watched local keeps its frame until the frame ends.
    """

    name = "trace"

    def __init__(self, *, engine: str = "auto", sweep_s: Optional[float] = 0.25, stack_depth: int = 1) -> None:
        """`sweep_s`: seconds between two sweeps, None for none. `stack_depth`: frames in `where`."""
        if sweep_s is not None and not sweep_s > 0:
            raise ValueError("sweep_s must be greater than 0, or None for no sweep")
        self._engine = _engine(engine)
        self._sweep_s = sweep_s
        self._stack_depth = stack_depth
        self._watches: dict[int, Watch] = {}
        self._lock = RLock()
        self._counters = Counters()
        self._sweep: Optional[Periodic] = None
        self._followers: list[Callable[[], bool]] = []
        self._batch = threading.local()
        self._closed = False

    def track(self, obj: object, metadata: dict[str, Any]) -> Optional[int]:
        """Watches a target that `watch_name` and its like made, or any object in place."""
        emitter = self.emitter
        if emitter is None or self._closed:
            raise Error(
                errno.EBADF, "the adapter is closed or belongs to no watcher: pass it to MemoryWatcher(adapter=...)"
            )
        options = self._options(metadata)
        target = _target(obj, metadata, sys._getframe(1))
        region_id = emitter.add(metadata["name"], values=metadata.get("values"))
        watch = self._make(target, options, region_id)
        with self._lock:
            self._watches[region_id] = watch
        show = getattr(emitter, "show", None)
        if show is not None:
            show(region_id, watch.last)
        batch = getattr(self._batch, "watches", None)
        if batch is not None:
            batch.append(watch)
            return region_id
        try:
            self._begin([watch])
        except BaseException:
            self.untrack(region_id)
            raise
        return region_id

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Names that this thread tracks inside are looked for in the running code once, at the end."""
        if getattr(self._batch, "watches", None) is not None:
            yield
            return
        watches: list[Watch] = []
        self._batch.watches = watches
        try:
            yield
        finally:
            self._batch.watches = None
            self._begin(watches)

    def follow(self, look: Callable[[], bool]) -> None:
        """Calls `look` with each sweep until it answers False."""
        with self._lock:
            self._followers.append(look)
            self._start_sweep()

    def attach(self, region_id: int, follower: Callable[[object], None]) -> None:
        """Calls `follower` with what the name holds, now and after each change."""
        watch = self._watches.get(region_id)
        if watch is not None:
            watch.follow(follower)

    def _begin(self, watches: list[Watch]) -> None:
        watches = [watch for watch in watches if not watch.ended]
        if not watches:
            return
        self._engine.add(watches)
        with self._lock:
            self._start_sweep()

    def untrack(self, region_id: int) -> None:
        watch = self._watches.get(region_id)
        if watch is not None:
            self._engine.settle()
            self._compare(watch)
            self._drop(region_id)

    def _drop(self, region_id: int) -> None:
        with self._lock:
            watch = self._watches.pop(region_id, None)
        if watch is not None and self.emitter is not None:
            self._engine.remove(watch)
            watch.end()
            try:
                self.emitter.remove(region_id)
            except KeyError:  # by an unwatch() that a signal handler cut short
                return

    def check_changes(self) -> list[int]:
        """Compares everything now. What no engine saw is posted with `where` none."""
        for look in list(self._followers):
            if not look():
                self._followers.remove(look)
        self._engine.settle()
        return [region_id for region_id, watch in self._watches.copy().items() if self._compare(watch)]

    def _compare(self, watch: Watch) -> bool:
        """Whether it had changed, which no engine saw, or its frame has ended."""
        frame = watch.target.frame
        if frame is not None and is_dead(frame, 2):
            watch.leave()
            return False
        return watch.check(None, None)

    def get_stats(self) -> dict[str, Any]:
        counters = {name: getattr(self._counters, name) for name in Counters.__slots__}
        return {"adapter": self.name, "tracked": len(self._watches), **counters, **self._engine.stats()}

    def close(self) -> None:
        self._closed = True
        self._followers.clear()
        if self._sweep is not None:
            self._sweep.stop()
        for region_id in list(self._watches):
            self.untrack(region_id)

    def _options(self, metadata: dict[str, Any]) -> Options:
        given = {name: metadata[name] for name in _OPTIONS if metadata.get(name) is not None}
        given.setdefault("stack_depth", self._stack_depth)
        return Options(**given)

    def _make(self, target: Target, options: Options, region_id: int) -> Watch:
        assert self.emitter is not None
        engine = self._engine
        return Watch(
            target, options, self.emitter, region_id, self._counters, engine.contended, self._ended, engine.refresh
        )

    def _ended(self, watch: Watch) -> None:
        """The name is gone."""
        self._drop(watch.region_id)

    def _start_sweep(self) -> None:
        if self._sweep is None and self._sweep_s is not None:
            self._sweep = Periodic(self, self._sweep_s, _SWEEP_SHARE, "memwatch-sweep")


def _target(obj: object, metadata: dict[str, Any], frame: Optional[FrameType]) -> Target:
    if isinstance(obj, Target):
        return obj
    if freeze(obj) is None:
        raise TypeError(f"a {type(obj).__name__} object does not change in place: use watch_name() for the name")
    names = names_of_object(obj, user_frame(frame)) | {str(metadata["name"])}
    return ObjectTarget(obj, frozenset(names))
