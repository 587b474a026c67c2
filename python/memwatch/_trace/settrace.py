"""The engine for Python before 3.12: `sys.settrace` and `threading.settrace`.

DESIGN  The trace function is called for each new frame; only frames whose code can change something watched get a line
function. A line function keeps the checks of the line that runs, and makes them at the frame's next event: by then
the line has run, and the line that it names is the one of the assignment. A tracer that was there before (coverage, a
debugger) is called first with every event that it would have had, and is put back at the close.
Code that concerns nothing runs untraced where the core can see to it (trace_gate.c): only the rest pays for tracing. It
cannot where a `__getitem__` is to be traced, since the interpreter begins its frames by itself.
LIMITS  A line that binds a name twice is one event, with what the line left there. Threads that already ran when the
first name was watched are not traced: nothing in Python before 3.12 can make them. A tracer that is installed later by
another replaces this one in its thread; `stats` counts how often that was seen. Without the C extension the trace
function is one more call of Python: at the end of the stack, and where a signal handler raises in it, Python ends the
thread's tracing. A line that holds an inlined comprehension (3.12+) may show the comprehension's variable as the name's
value. What changes without being traced is found by the sweep.
"""

from __future__ import annotations

import dis
import sys
import threading
import weakref
from types import CodeType, FrameType

from memwatch._lifetime import forked_first
from memwatch._native import core
from memwatch._threads import RLock
from memwatch._trace.code import Site
from memwatch._trace.frames import other_frames, runs, stack, user_frames
from memwatch._trace.index import LOOK_CLOSER, Entry, Index, Pair, mentions, words_of
from memwatch._trace.watch import Watch
from memwatch._typing import Any, Callable, Optional

Tracer = Callable[[FrameType, str, Any], Any]
_SETTLE = object()  # the argument of an event that is ours alone
_YIELDS = frozenset(("YIELD_VALUE", "SEND", "RESUME", "RETURN_GENERATOR"))


class SettraceEngine:
    """All watches of the process. Any thread."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._index = Index()
        self._plans: dict[int, tuple[weakref.ref[CodeType], Optional[_Plan]]] = {}
        """By the id of the code; None for code that concerns nothing."""
        self._steps: dict[int, Optional[Tracer]] = {}
        """The idle steps of the plans, for the core. Written where `_plans` is."""
        self._installed: dict[int, tuple[Tracer, Optional[Tracer]]] = {}
        """By thread: the trace function that was installed there, and the one before."""
        self._thread_tracer: Optional[Tracer] = None
        self._previous_threads: Any = None
        self._displaced = 0
        self._n_frames = 0
        self._is_gateless = False
        self._line_codes = {id(LOOK_CLOSER)}
        forked_first(self._forked)

    # --- the engine's interface -----------------------------------------------------------------------------------

    def add(self, watches: list[Watch]) -> None:
        with self._lock:
            for watch in watches:
                self._index.add(watch)
            self._count_frames()
            self._inspect_all(watches)
            self._install()
            self._set_gate()

    def remove(self, watch: Watch) -> None:
        with self._lock:
            self._index.remove(watch)
            self._count_frames()
            for key in list(watch.codes):
                known = self._plans.get(key)
                code = known[0]() if known is not None else None
                if code is not None:
                    self._inspect(code)
            if not self._index.watches:
                self._uninstall()
            self._set_gate()

    def refresh(self, watch: Watch) -> None:
        with self._lock:
            if id(watch) in self._index.watches:
                self._inspect_all([watch])
                self._trace_running()
                self._set_gate()

    def contended(self, watch: Watch) -> bool:
        """Whether another thread may have changed it and not yet said so: it is in a check, or on a line that can."""
        return any(runs(frame, self._line_codes) or self._on_line(frame, watch) for frame in other_frames())

    def settle(self) -> None:
        """What the lines that this thread stands on have changed so far is theirs, and is told now."""
        for frame in stack(sys._getframe(1)):
            if self._is_ours(frame.f_trace):
                frame.f_trace(frame, "exception", _SETTLE)  # type: ignore[misc]  # it leaves the line where it is

    def stats(self) -> dict[str, Any]:
        plans = sum(plan is not None for _, plan in list(self._plans.values()))
        return {"engine": "settrace", "code_objects": plans, "displaced": self._displaced}

    def _count_frames(self) -> None:
        self._n_frames = sum(watch.target.frame is not None for watch in self._index.watches.values())

    def _on_line(self, top: FrameType, watch: Watch) -> bool:
        for frame in stack(top):
            _, plan = self._plans.get(id(frame.f_code), (None, None))
            entry = plan.entries.get(frame.f_lineno or 0) if plan is not None else None
            if entry is not None and any(watch is other and watch.target.binds(site) for site, other in entry.pairs):
                return True
        return False

    # --- trace functions ------------------------------------------------------------------------------------------

    def _make_tracer(self, previous: Optional[Tracer]) -> Tracer:
        plans, watches = self._plans, self._index.watches

        def _on_call(frame: FrameType, event: str, arg: Any) -> Any:
            inner = None
            if not watches:
                sys.settrace(previous)  # closed by another thread, which cannot reach this one's tracer
                return None if previous is None else previous(frame, event, arg)
            if previous is not None:
                inner = previous(frame, event, arg)
                if sys.gettrace() is not _on_call:
                    sys.settrace(_on_call)  # a tracer written in C puts itself in our place when it is called
            known = plans.get(id(frame.f_code))
            plan = self._inspect(frame.f_code) if known is None else known[1]
            if plan is None:
                return inner
            _check_caller(frame.f_back)
            line = frame.f_lineno or 0  # of a generator that goes on, the line in which it does
            return plan.step(line) if inner is None else self._make_line(plan, inner, line)

        self.note_code(_on_call)
        return _on_call if previous is not None else core.call_step(self._steps, watches, _on_call)

    def _make_line(self, plan: _Plan, inner: Tracer, line: int) -> Tracer:
        """A line function that calls a tracer that was there before, for one frame, which stands at `line`."""
        current = plan.step(line)

        def _on_line(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal current, inner
            current = current(frame, event, arg)
            if arg is not _SETTLE:
                inner = inner(frame, event, arg) or inner  # Python too goes on with one that answers None
            return _on_line

        self.note_code(_on_line)
        return _on_line

    def returned(self, frame: FrameType) -> None:
        """A frame's return event. Locals that were watched in it have ended, unless it is a yield."""
        if not self._n_frames:
            return
        watches = [watch for watch in list(self._index.watches.values()) if watch.target.frame is frame]
        if watches and not _is_suspended(frame):
            for watch in watches:
                watch.leave()

    def note_code(self, function: Tracer) -> None:
        """The function is one of the engine's: a thread that runs it may be about to report."""
        code = getattr(function, "__code__", None)
        if code is not None:
            self._line_codes.add(id(code))

    # --- installing -----------------------------------------------------------------------------------------------

    def _install(self) -> None:
        ident = threading.get_ident()
        current: Optional[Tracer] = sys.gettrace()  # type: ignore[assignment]
        known, _ = self._installed.get(ident, (None, None))
        if current is None or current not in (known, self._thread_tracer):
            self._displaced += known is not None
            tracer = self._make_tracer(current)
            self._installed[ident] = tracer, current
            sys.settrace(tracer)
        if self._thread_tracer is None:
            self._previous_threads = threading.gettrace()
            self._thread_tracer = self._make_tracer(self._previous_threads)
            threading.settrace(self._thread_tracer)
        self._trace_running()

    def _trace_running(self) -> None:
        """Frames that run already get their line functions too. In threads without a tracer that has no effect."""
        for frame in user_frames():
            _, plan = self._plans.get(id(frame.f_code), (None, None))
            if plan is None or (self._is_ours(frame.f_trace) and not self._watched_in(frame)):
                continue
            line = frame.f_lineno or 0
            if frame.f_trace is None or core.is_line_step(frame.f_trace):
                frame.f_trace = plan.step(line)
            elif not self._is_ours(frame.f_trace):
                frame.f_trace = self._make_line(plan, frame.f_trace, line)

    def _is_ours(self, function: object) -> bool:
        return core.is_line_step(function) or id(getattr(function, "__code__", function)) in self._line_codes

    def _watched_in(self, frame: FrameType) -> bool:
        return any(watch.target.frame is frame for watch in list(self._index.watches.values()))

    def _uninstall(self) -> None:
        self._is_gateless = False
        core.gate(None, None)
        tracer, previous = self._installed.pop(threading.get_ident(), (None, None))
        if tracer is not None and sys.gettrace() is tracer:
            sys.settrace(previous)
        self._installed.clear()
        if threading.gettrace() is self._thread_tracer:
            threading.settrace(self._previous_threads)
        self._thread_tracer = self._previous_threads = None
        for key, (_, plan) in self._plans.copy().items():
            if plan is None:
                self._forget(key)
            else:
                plan.fill({})  # it is filled again if its code is watched again
        for frame in user_frames():
            if core.is_line_step(frame.f_trace):
                frame.f_trace = None  # what a line has to check holds what was watched

    def _forked(self) -> None:
        self._lock = RLock()
        self._index.clear()
        self._uninstall()

    def _set_gate(self) -> None:
        """Code that concerns nothing runs as if it were not traced, where that can be."""
        if self._index.watches and not self._is_gateless:
            core.gate(self._steps, self._inspect)
        else:
            core.gate(None, None)

    # --- code objects ---------------------------------------------------------------------------------------------

    def _inspect_all(self, new: list[Watch]) -> None:
        """Looks at all code again: plans that frames hold are changed in place, the rest is forgotten."""
        words = words_of(new)
        for key, (ref, plan) in self._plans.copy().items():
            code = ref()
            if plan is None or code is None:
                self._forget(key)
            elif mentions(code, words):
                self._inspect(code)
        for frame in user_frames():
            if mentions(frame.f_code, words):
                self._inspect(frame.f_code)

    def _inspect(self, code: CodeType) -> Optional[_Plan]:
        with self._lock:
            key = id(code)
            known = self._plans.get(key)
            plan = known[1] if known is not None else None
            entries = _by_line(self._index.pairs(code))
            for entry in entries.values():
                for _, watch in entry.pairs:
                    watch.codes.add(key)
            if plan is None and entries:
                plan = _Plan(self)
                self._is_gateless |= code.co_name == "__getitem__"  # the interpreter begins its frames by itself
            if plan is not None:
                plan.fill(entries)
            if known is None or known[1] is not plan:
                self._plans[key] = (weakref.ref(code, lambda _: self._forget(key)), plan)
            self._steps[key] = plan.idle if plan is not None else None
            if self._is_gateless:
                core.gate(None, None)
            return plan

    def _forget(self, key: int) -> None:
        self._plans.pop(key, None)
        self._steps.pop(key, None)


class _Plan:
    """The line functions of one code object: `idle`, and for each line with something to check the one that does so
    once that line has run. Which one is a frame's trace function is all the state there is, so that frames share them
    and the common case, a line after which nothing is checked, costs one look-up."""

    def __init__(self, engine: SettraceEngine) -> None:
        self.entries: dict[int, Entry] = {}
        self.lines: dict[int, Tracer] = {}
        self._engine = engine
        self._ends = False
        """Whether locals of this code's frames are watched: then its return events matter."""
        self.idle: Tracer = core.line_step(self.lines)
        engine.note_code(self.idle)

    def fill(self, entries: dict[int, Entry]) -> None:
        """In place: frames that run hold the functions."""
        self.entries = entries
        on_return = self._engine.returned
        if not self._ends and any(watch.target.frame for entry in entries.values() for _, watch in entry.pairs):
            self._ends = True
            self.idle = core.line_step(self.lines, None, None, on_return)
        self.lines.clear()
        for line, entry in entries.items():
            step = core.line_step(self.lines, entry.spot(), self.idle, on_return if self._ends else None)
            self._engine.note_code(step)
            self.lines[line] = step

    def step(self, line: int) -> Tracer:
        """The trace function of a frame that stands at the line."""
        return self.lines.get(line, self.idle)


def _by_line(pairs: list[Pair]) -> dict[int, Entry]:
    """One pair for each line and watch: of a line's sites the last that binds the name, else the last that says what
    it changes."""
    best: dict[tuple[int, int], Pair] = {}
    for site, watch in pairs:
        key = site.line, id(watch)
        if key not in best or _rank(site, watch) >= _rank(*best[key]):
            best[key] = site, watch
    pairs_of: dict[int, list[Pair]] = {}
    for (line, _), pair in best.items():
        pairs_of.setdefault(line, []).append(pair)
    return {line: Entry(found) for line, found in pairs_of.items()}


def _rank(site: Site, watch: Watch) -> tuple[bool, bool]:
    return watch.target.binds(site), site.owner is not None


def _check_caller(frame: Optional[FrameType]) -> None:
    """What the caller's line has bound before its call is that line's doing, not the callee's."""
    if frame is not None and core.is_line_step(frame.f_trace):
        frame.f_trace(frame, "exception", None)  # type: ignore[misc]  # the event that leaves the line where it is


def _is_suspended(frame: FrameType) -> bool:
    """Whether a frame's return event is a generator's or coroutine's yield."""
    code = frame.f_code
    if not code.co_flags & 0x2A0 or frame.f_lasti < 0:  # generator, coroutine, asynchronous generator
        return False
    return dis.opname[code.co_code[frame.f_lasti]] in _YIELDS
