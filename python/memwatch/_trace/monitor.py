"""The engine for Python 3.12 and later: `sys.monitoring` with events of single code objects.

DESIGN  A global PY_START event sees each code object once (it answers DISABLE) and asks the index whether the code can
change something watched. If so, the code alone gets INSTRUCTION events, of which all are disabled at their first
occurrence but those at the instructions right after a site. So a loop that binds no watched name runs at full speed,
and a name is compared right after the instruction that bound it, on the thread that did, with no other instruction in
between: that is what makes the line exact. The functions that Python calls are `_on_*`; while one runs, Python
sends no events for the code that it calls. Plans are kept as long as their code object and no longer.
LIMITS  Where another tool switches a LINE event off (coverage's `sysmon` core does, the first time a line runs), Python
3.12 and 3.13 leave out the INSTRUCTION event of that place that once: a later look finds the change. Beside any tool
with PY_START events, this one or another, pdb.set_trace() of Python 3.13.0 stops one line later.
"""

from __future__ import annotations

import errno
import sys
import weakref
from types import CodeType, FrameType

from memwatch._errors import Error
from memwatch._lifetime import forked_first
from memwatch._native import core
from memwatch._threads import RLock
from memwatch._trace.frames import other_frames, runs, user_frames
from memwatch._trace.index import LOOK_CLOSER, Entry, Index, Pair, mentions, words_of
from memwatch._trace.watch import Watch
from memwatch._typing import Any, Optional

_TOOL_NAME = "memwatch"
_TOOL_IDS = (5, 4, 3, 2, 1, 0)
_HELPER_IDS = (4, 3)  # 0 to 2 belong to debuggers, coverage and profilers, which take them at any time


class MonitoringEngine:
    """All watches of the process. Any thread."""

    def __init__(self) -> None:
        self._monitoring: Any = sys.__dict__["monitoring"]
        self._events = self._monitoring.events
        self._lock = RLock()
        self._index = Index()
        self._table: dict[int, core.Spot] = {}
        """By the address of the code object plus the offset: the addresses inside an object are its own."""
        self._plans: dict[int, tuple[weakref.ref[CodeType], set[int], int]] = {}
        """By the id of the code: the code, its offsets in the table, its events."""
        self._tool: Optional[int] = None
        self._n_frames = 0
        self._callbacks = self._make_callbacks()
        on_instruction = getattr(self._callbacks[self._events.INSTRUCTION], "__code__", LOOK_CLOSER)
        self._reporting = {id(LOOK_CLOSER), id(on_instruction)}
        """The ids of the code objects of which a thread that runs one may be about to report."""
        forked_first(self._forked)

    # --- the engine's interface -----------------------------------------------------------------------------------

    def add(self, watches: list[Watch]) -> None:
        """Begins to check. memwatch.Error when all tool ids are taken."""
        with self._lock:
            self._open()
            for watch in watches:
                self._index.add(watch)
            self._inspect_all(watches)
            self._select_events()

    def remove(self, watch: Watch) -> None:
        with self._lock:
            self._index.remove(watch)
            for key in list(watch.codes):
                self._replan(key)
            self._select_events()
            if not self._index.watches:
                self._close()

    def refresh(self, watch: Watch) -> None:
        """What it holds can change in place now: more code concerns it."""
        with self._lock:
            if id(watch) in self._index.watches:
                self._inspect_all([watch])

    def contended(self, watch: Watch) -> bool:
        """Whether another thread may have changed something and not yet said so."""
        return any(runs(frame, self._reporting) for frame in other_frames())

    def settle(self) -> None:
        """Nothing waits here: what an instruction has changed is told right after it."""

    def stats(self) -> dict[str, Any]:
        return {"engine": "monitoring", "tool_id": self._tool, "code_objects": len(self._plans)}

    # --- what Python calls ----------------------------------------------------------------------------------------

    def _make_callbacks(self) -> dict[int, Any]:
        disable, get_frame = self._monitoring.DISABLE, sys._getframe

        def _on_start(code: CodeType, offset: int) -> object:
            self._inspect(code)
            return disable

        def _on_return(code: CodeType, offset: int, value: object) -> None:
            self._frame_ended(get_frame(1))

        events, on_start, on_return = self._events, core.guarded(_on_start), core.guarded(_on_return)
        return {
            events.INSTRUCTION: core.instruction_callback(self._table, disable),
            events.PY_START: on_start,
            events.PY_RESUME: on_start,
            events.PY_RETURN: on_return,
            events.PY_UNWIND: on_return,
        }

    def _frame_ended(self, frame: FrameType) -> None:
        if self._n_frames:
            for watch in [watch for watch in self._index.watches.values() if watch.target.frame is frame]:
                watch.leave()

    # --- the tool -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._tool is not None:
            return
        for tool in _TOOL_IDS:
            if self._monitoring.get_tool(tool) != _TOOL_NAME:  # else an interrupt once left it: it is ours
                try:
                    self._monitoring.use_tool_id(tool, _TOOL_NAME)
                except ValueError:
                    continue
            self._tool = tool
            for event, callback in self._callbacks.items():
                self._monitoring.register_callback(tool, event, callback)
            return
        raise Error(
            errno.EBUSY, "every sys.monitoring tool id is in use: free one, or use TraceAdapter(engine='settrace')"
        )

    def _close(self) -> None:
        if self._tool is None:
            return
        for key in list(self._plans):
            self._forget(key)
        tool, self._tool = self._tool, None  # first: an interrupt below must not leave one that is freed
        self._monitoring.set_events(tool, 0)
        for event in self._callbacks:
            self._monitoring.register_callback(tool, event, None)
        self._monitoring.free_tool_id(tool)

    def _select_events(self) -> None:
        """PY_UNWIND cannot be had for single code objects: it is on only while locals of frames are watched."""
        if self._tool is None:
            return
        events = self._events
        self._n_frames = sum(watch.target.frame is not None for watch in self._index.watches.values())
        wanted = events.PY_START | events.PY_RESUME | (events.PY_UNWIND if self._n_frames else 0)
        if self._monitoring.get_events(self._tool) != wanted:
            self._monitoring.set_events(self._tool, wanted)

    def _forked(self) -> None:
        """A forked child has no watches; its lock may have been held by a thread that is not there."""
        self._lock = RLock()
        self._index.clear()
        self._table.clear()
        self._close()

    # --- code objects ---------------------------------------------------------------------------------------------

    def _inspect_all(self, new: list[Watch]) -> None:
        """Looks at known and running code that these watches concern; PY_START comes once more for all other."""
        codes = {id(frame.f_code): frame.f_code for frame in user_frames()}
        codes.update((key, code) for key, (ref, _, _) in self._plans.copy().items() if (code := ref()) is not None)
        codes.update(
            (id(watch.target.frame.f_code), watch.target.frame.f_code)
            for watch in self._index.watches.values()
            if watch.target.frame is not None
        )
        words = words_of(new)
        for code in codes.values():
            if mentions(code, words):
                self._inspect(code)
        self._monitoring.restart_events()

    def _inspect(self, code: CodeType) -> None:
        """Enters what has to be checked in this code into the table, and arms it."""
        with self._lock:
            if self._tool is None:
                return
            pairs = self._index.pairs(code)
            key = id(code)
            if not pairs:
                if key in self._plans:
                    self._forget(key)
                return
            offsets: dict[int, list[Pair]] = {}
            for site, watch in pairs:
                offsets.setdefault(site.after, []).append((site, watch))
                watch.codes.add(key)
            self._enter(code, offsets)

    def _enter(self, code: CodeType, offsets: dict[int, list[Pair]]) -> None:
        key = id(code)
        known = self._plans.get(key)
        old_offsets, old_events = (known[1], known[2]) if known is not None else (set[int](), 0)
        for offset in old_offsets - offsets.keys():
            self._table.pop(key + offset, None)
        for offset, pairs in offsets.items():
            self._table[key + offset] = Entry(pairs).spot()
        events = self._events.INSTRUCTION
        if any(watch.target.frame is not None for pairs in offsets.values() for _, watch in pairs):
            events |= self._events.PY_RETURN
        ref = known[0] if known is not None else weakref.ref(code, lambda _: self._code_gone(key))
        self._plans[key] = (ref, set(offsets), events)
        if old_events and not offsets.keys() <= old_offsets:
            # Instructions that were disabled come back only when the event is switched off and on.
            self._monitoring.set_local_events(self._tool, code, 0)
            old_events = 0
        if not old_events:
            self._arm(code, events)
        elif events != old_events:
            self._monitoring.set_local_events(self._tool, code, events)

    def _arm(self, code: CodeType, events: int) -> None:
        """Python 3.12 and 3.13 forget who wants the INSTRUCTION events of code that one tool looks at, when a second
        begins to (a debugger, coverage): where they keep that begins as nobody's. So a second tool looks first."""
        helper = self._take_helper()
        if helper is not None:
            self._monitoring.set_local_events(helper, code, self._events.INSTRUCTION)
        self._monitoring.set_local_events(self._tool, code, events)
        if helper is not None:
            self._monitoring.set_local_events(helper, code, 0)
            self._monitoring.free_tool_id(helper)

    def _take_helper(self) -> Optional[int]:
        """A tool id for a moment. Where none is free there are other tools, and the trouble is less likely."""
        for tool in _HELPER_IDS:
            try:
                self._monitoring.use_tool_id(tool, _TOOL_NAME)
            except ValueError:
                continue
            return tool
        return None

    def _replan(self, key: int) -> None:
        known = self._plans.get(key)
        code = known[0]() if known is not None else None
        if code is not None:
            self._inspect(code)

    def _forget(self, key: int) -> None:
        ref, offsets, _ = self._plans.pop(key)
        for offset in offsets:
            self._table.pop(key + offset, None)
        code = ref()
        if code is not None and self._tool is not None:
            self._monitoring.set_local_events(self._tool, code, 0)
        for watch in self._index.watches.values():
            watch.codes.discard(key)

    def _code_gone(self, key: int) -> None:
        """Runs where the last reference to the code went; its address may be used again at once."""
        known = self._plans.pop(key, None)
        for offset in known[1] if known is not None else ():
            self._table.pop(key + offset, None)
