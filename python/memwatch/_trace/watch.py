"""One watched name: what it held, whether that changed, and the event that says so.

DESIGN  `check` is called by an engine right after an instruction or line that can have changed the name, on the thread
that ran it, and by the sweep on the adapter's own thread. It reads, compares, posts, and remembers, under the watch's
lock: two threads that check at the same time report one after the other, and the last event is what the name holds.
Comparing the inside of containers costs time in the user's thread, so it runs under a budget: past it the comparison
is left to the sweep, whose events say `throttled`.
"""

from __future__ import annotations

import signal
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from types import FrameType

from memwatch._native import core
from memwatch._threads import RLock
from memwatch._trace.code import Kind, Site
from memwatch._trace.frames import locations, thread_name
from memwatch._trace.targets import ELSEWHERE, Target, resolve
from memwatch._trace.values import (
    BUFFER_LIMIT,
    DEPTH,
    LIMIT,
    MISSING,
    WHOLE,
    Attributes,
    Deep,
    Frozen,
    freeze,
    same,
    same_value,
    shown_bytes,
)
from memwatch._tracker import Emitter
from memwatch._typing import Any, Optional

TRACKS = ("value", "binding")

_CREDIT_NS = 20_000_000
_CHARGE_NS = 200_000  # at most, for a thousand items: what is more is another thread's or process's time
_SHARE = 0.5  # of the elapsed time that comparisons may use
_MEMORY = ("last", "inplace", "_frozen", "_deep", "_copy", "_shown")
_EXACT_CONTAINERS = (list, dict, set, deque, bytearray, array)


class Options:
    """How one name is watched: the arguments of watch_name and its like."""

    __slots__ = ("cmp", "copy", "deep", "stack_depth", "track", "when")

    def __init__(
        self,
        track: str = "value",
        cmp: Optional[Callable[[Any, Any], object]] = None,
        copy: Optional[Callable[[Any], Any]] = None,
        deep: bool = False,
        when: Optional[Callable[[Any], object]] = None,
        stack_depth: int = 1,
    ) -> None:
        if type(track) is not str:
            raise TypeError("track must be a string: 'value' or 'binding'")
        if track not in TRACKS:
            raise ValueError(f"track must be 'value' or 'binding', not {track!r}")
        for argument, function in (("cmp", cmp), ("copy", copy), ("when", when)):
            if function is not None and not callable(function):
                raise TypeError(f"{argument} must be callable")
        self.track = track
        self.cmp = cmp
        self.copy = copy
        self.deep = deep
        self.when = when
        self.stack_depth = stack_depth


class Counters:
    """An adapter's account, shared by its watches. Written under their locks; a lost increment is no loss of data."""

    __slots__ = ("ended", "errors", "filtered", "posted", "throttled")

    def __init__(self) -> None:
        self.posted = 0
        self.filtered = 0
        self.throttled = 0
        self.errors = 0
        self.ended = 0


class Watch:
    """The state of one watched name."""

    def __init__(
        self,
        target: Target,
        options: Options,
        emitter: Emitter,
        region_id: int,
        counters: Counters,
        contended: Callable[[Watch], bool],
        on_end: Callable[[Watch], None],
        on_inplace: Callable[[Watch], None],
    ) -> None:
        self.target = target
        self.region_id = region_id
        self.name = target.name
        self.glance = target.glance()
        """What the engines ask first. Written here under the lock."""
        self.ended = False
        self.codes: set[int] = set()
        """The ids of the code objects whose sites the engine checks for this watch. Written by the engine."""
        self._options = options
        self._emitter = emitter
        self._counters = counters
        self._contended = contended
        self._on_end = on_end
        self._on_inplace = on_inplace
        self._lock = RLock()
        self._credit_ns = _CREDIT_NS
        self._refilled_ns = time.perf_counter_ns()
        self.throttled = False
        self.last: object = MISSING
        self.inplace = False
        """Whether what the name holds can change without being rebound."""
        self._frozen: Optional[Frozen] = None
        self._deep: Optional[Deep] = None
        self._copy: object = MISSING
        self._shown: Optional[bytes] = None
        """What was there when it was last looked at, as an event shows it: the next one's old."""
        self.follower: Optional[Callable[[object], None]] = None
        """Told what the name holds after each change."""
        self._remember(target.read(target.frame))
        self._shown = shown_bytes(self._old())

    def check(self, site: Optional[Site], frame: Optional[FrameType]) -> bool:
        """Reports a change, if there is one, and says whether there was. `site` None: nobody knows who made it."""
        try:
            value = self.target.read(frame)
            if value is ELSEWHERE or (value is self.last and not self.inplace):
                return False
            with self._lock:
                value = self.target.read(frame)
                was_inplace = self.inplace
                if self.ended or not self._differs(value, site):
                    return False
                if site is None and self._contended(self):
                    return False  # the thread that made the change is about to report it, and knows more
                self._report(value, site, frame)
            # Outside the lock: these take the engine's and the watcher's.
            if self.follower is not None:
                self.follower(value)
            if value is MISSING:
                self.leave()
            elif self.inplace and not was_inplace:
                self._on_inplace(self)
            return True
        except Exception as error:
            at_the_end = isinstance(error, (RecursionError, MemoryError)) and site is not None
            if at_the_end or _is_of_signal_handler(error):
                raise  # the core looks again: later, or at once
            self._failed(error)
            return False

    def leave(self) -> None:
        """The frame whose local it was has ended: the watch ends without an event."""
        if not self.ended:
            self._counters.ended += 1
            self._on_end(self)

    def end(self) -> None:
        """Stops checking. What the name holds is let go of."""
        with self._lock:
            self.ended = True
            self.glance.forget()
            self.last = self._copy = MISSING
            self._frozen = self._deep = None
            self.inplace = False
            self.target.frame = None

    # --- comparing ------------------------------------------------------------------------------------------------

    def _remember(self, value: object) -> None:
        options = self._options
        self.last = value
        self._frozen = self._deep = None
        if value is not MISSING and options.track != "binding":
            if options.copy is not None:
                self._copy = self._ask(options.copy, value, default=value)
            else:
                self._frozen = None if self._is_of_core(value) else freeze(value, WHOLE)
                self._deep = Deep(value) if options.deep and value is not None else None
            self.inplace = self._frozen is not None or self._deep is not None or options.copy is not None
        self._prepare_glance(value)

    def follow(self, follower: Callable[[object], None]) -> None:
        """Has the follower told what the name holds, now and after each change; large buffers are the follower's."""
        with self._lock:
            self.follower = follower
            value = self.last
            self._remember(value)
        follower(value)

    def _is_of_core(self, value: object) -> bool:
        kind = type(value)
        if self.follower is None or not (kind is bytearray or kind is array):
            return False
        return memoryview(value).nbytes > BUFFER_LIMIT  # type: ignore[arg-type]

    def _prepare_glance(self, value: object) -> None:
        """A glance compares what the name holds, and its items, by identity; it cannot ask the user's functions."""
        frozen, asks = self._frozen, self._options.copy is not None or self._options.cmp is not None
        if value is MISSING or self._deep is not None or (self.inplace and asks):
            self.glance.forget()
        elif frozen is None:
            self.glance.remember(value)
        else:
            self.glance.remember(value, frozen.keys, frozen.items)

    def _old(self) -> object:
        """What the name held, as it was then."""
        if self._options.copy is not None and self._options.track == "value" and self.last is not MISSING:
            return self._copy
        return self.last if self._frozen is None else self._frozen.value

    def _differs(self, value: object, site: Optional[Site]) -> bool:
        if value is MISSING or self.last is MISSING:
            return value is not self.last
        if self._options.track == "binding":
            return value is not self.last
        if value is not self.last:
            return self._differs_rebound(value)
        return self.inplace and self._differs_inside(value, site)

    def _differs_rebound(self, value: object) -> bool:
        if self._options.cmp is not None or self._options.copy is not None:
            differs = self._differs_as_asked(value)
            self._shown = self._shown if differs else None  # the same as asked may be another value
        elif self._frozen is not None and type(value) in _EXACT_CONTAINERS:
            differs = not same(self._frozen, value, DEPTH if self._deep else 2)
        else:
            differs = not same_value(self.last, value, DEPTH if self._deep else 2)
        if not differs:
            self._remember(value)
        return differs

    def _differs_as_asked(self, value: object) -> bool:
        """By the user's `cmp`, which says whether two values differ, and `copy`."""
        if self._options.cmp is not None:
            return bool(self._ask(self._options.cmp, self._old(), value, default=True))
        assert self._options.copy is not None
        return not same_value(self._copy, self._ask(self._options.copy, value, default=value), DEPTH)

    def _differs_inside(self, value: object, site: Optional[Site]) -> bool:
        started_ns = time.perf_counter_ns()
        if site is not None and not self._may_compare(started_ns):
            return False
        if self._options.cmp is not None or self._options.copy is not None:
            differs = self._differs_as_asked(value)
        else:
            differs = (self._frozen is not None and not same(self._frozen, value)) or (
                self._deep is not None and not self._deep.unchanged()
            )
        n_items = self._frozen.length if self._frozen is not None else 0
        charge_ns = _CHARGE_NS * max(1, min(n_items, WHOLE) // LIMIT)
        self._credit_ns -= min(time.perf_counter_ns() - started_ns, charge_ns)
        return differs

    def _may_compare(self, now_ns: int) -> bool:
        earned = int((now_ns - self._refilled_ns) * _SHARE)
        self._refilled_ns = now_ns
        self._credit_ns = min(_CREDIT_NS, self._credit_ns + earned)
        if self._credit_ns > 0:
            return True
        if not self.throttled:
            self._counters.throttled += 1
        self.throttled = True
        return False

    # --- reporting ------------------------------------------------------------------------------------------------

    def _report(self, value: object, site: Optional[Site], frame: Optional[FrameType]) -> None:
        remembered = {name: getattr(self, name) for name in _MEMORY}
        try:
            self._tell(value, site, frame)
        except BaseException:  # a signal handler's: what was not told is found again
            vars(self).update(remembered)
            self._prepare_glance(MISSING)
            raise

    def _tell(self, value: object, site: Optional[Site], frame: Optional[FrameType]) -> None:
        rebound = value is not self.last
        old, old_object = self._shown, self._as_object(rebound)
        if old is None:
            old = shown_bytes(self._old())
        attribution, reason = self._attribution(value, rebound, site, frame)
        self._remember(value)
        when = self._options.when
        if when is not None and value is not MISSING and not self._ask(when, value, default=True):
            self._counters.filtered += 1
            self._shown = shown_bytes(self._old())
        else:
            self._counters.posted += 1
            self._post(old, old_object, self._as_object(rebound), attribution, reason, site, frame)
        self.throttled = False

    def _as_object(self, rebound: bool) -> object:
        """What the callback gets: the object that the name held, or a copy where that may have changed since."""
        shown = self._old()
        if rebound and type(shown) is Attributes:
            return self.last
        return None if shown is MISSING else shown

    def _attribution(
        self, value: object, rebound: bool, site: Optional[Site], frame: Optional[FrameType]
    ) -> tuple[str, str]:
        if site is None:
            return "none", "throttled" if self.throttled else "unknown"
        if self._contended(self):
            return "page", "none"
        if rebound:
            known = self.target.made_by(site, frame)
        else:
            direct = site.kind in (Kind.ITEM, Kind.ATTRIBUTE) or (site.kind is Kind.CALL and site.name != "")
            known = direct and resolve(site.owner, frame) is value
        return "exact" if known else "page", "none"

    def _post(
        self,
        old: Optional[bytes],
        old_object: object,
        new_object: object,
        attribution: str,
        reason: str,
        site: Optional[Site],
        frame: Optional[FrameType],
    ) -> None:
        self._shown = shown_bytes(self._old())
        self._emitter.post(
            self.region_id,
            old=old,
            new=self._shown,
            old_object=old_object,
            new_object=new_object,
            attribution=attribution,
            reason=reason,
            frames=locations(frame, site.line, self._options.stack_depth) if site is not None else (),
            thread_id=threading.get_native_id() if site is not None else 0,
            thread_name=thread_name() if site is not None else "",
            backend="trace",
            note=f"ended: {self.target.noun} deleted" if self.last is MISSING else "",
        )

    # --- the user's functions -------------------------------------------------------------------------------------

    def _ask(self, function: Callable[..., Any], *arguments: object, default: object) -> Any:
        """Calls what the user gave; its failure is reported once and counts as `default`."""
        try:
            return function(*arguments)
        except Exception as error:
            if _is_of_signal_handler(error):
                raise
            self._failed(error)
            return default

    def _failed(self, error: Exception) -> None:
        self._counters.errors += 1
        if self._counters.errors == 1:
            core.unraisable(error, self)

    def __repr__(self) -> str:
        return f"<memwatch watch of {self.name!r}>"


def _is_of_signal_handler(error: BaseException) -> bool:
    """Whether a signal handler raised it: those written in Python run on top of whatever the main thread runs."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {getattr(getattr(handler, "__func__", handler), "__code__", None) for handler in handlers} - {None}
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code not in codes:
        traceback = traceback.tb_next
    return traceback is not None
