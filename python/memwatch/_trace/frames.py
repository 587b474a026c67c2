"""Frames: their cells, their locations, who runs them.

DESIGN  Python offers no way to ask a running frame for a closure's cell, and a variable that functions share lives
longer than the frame that made it. So the core reads the frame's slots. Where it does not know where they are
(`core.FRAMES`) `cell_of` answers None, and such a name is watched for as long as its frame lives.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from types import CellType, CodeType, FrameType

from memwatch._native import core
from memwatch._trace.code import slot_names
from memwatch._trace.values import MISSING
from memwatch._typing import Any, Optional

Location = tuple[str, str, int]

CO_OPTIMIZED = 1  # of code.co_flags, as inspect has it, which takes its time to import
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def slot_of(frame: FrameType, name: str) -> Optional[int]:
    """The number of a local's slot, for `slot_value`; None when it cannot be told."""
    return slot_names(frame.f_code).index(name) if core.FRAMES and name in frame.f_code.co_varnames else None


def slot_value(frame: FrameType, slot: int) -> object:
    """What the slot holds. Reading it does not refresh `frame.f_locals`, which before Python 3.13 is slow and changes
    the dictionary that the user has from `locals()`."""
    return core.frame_slot(frame, slot, MISSING)


def cell_of(frame: FrameType, name: str) -> Optional[CellType]:
    """The cell of a variable that functions share; None when it cannot be told."""
    if not core.FRAMES:
        return None
    cell = slot_value(frame, slot_names(frame.f_code).index(name))
    return cell if type(cell) is CellType else None


def local_value(frame: FrameType, name: str) -> object:
    """A local's value, also of a variable that functions share; MISSING when there is none.

    Reads the slot as `slot_of` does, and for the same reason: a dictionary of locals, once made, keeps what was in it.
    """
    if not core.FRAMES or not frame.f_code.co_flags & CO_OPTIMIZED:
        return frame.f_locals.get(name, MISSING)
    names = slot_names(frame.f_code)
    if name not in names:
        return MISSING
    found = slot_value(frame, names.index(name))
    is_shared = name in frame.f_code.co_cellvars or name in frame.f_code.co_freevars
    return _cell_value(found) if is_shared and type(found) is CellType else found


def _cell_value(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def local_values(frame: FrameType) -> dict[str, Any]:
    """All locals that have a value."""
    if not core.FRAMES or not frame.f_code.co_flags & CO_OPTIMIZED:
        return dict(frame.f_locals)
    found = {name: local_value(frame, name) for name in slot_names(frame.f_code)}
    return {name: value for name, value in found.items() if value is not MISSING}


def is_dead(frame: FrameType, references: int) -> bool:
    """Whether a frame has ended. Where the core cannot tell, the caller says how many references it alone holds."""
    if core.FRAMES:
        return core.frame_has_ended(frame)
    return sys.getrefcount(frame) <= references + _PASSED_ON


def _passed_on() -> int:
    """How many references a function makes that passes its argument on to getrefcount: none, from Python 3.14 on."""
    probe = object()

    def count(found: object) -> int:
        return sys.getrefcount(found)

    return count(probe) - 1


_PASSED_ON = _passed_on()


def is_own(code: CodeType) -> bool:
    """Whether the code is memwatch's own."""
    return code.co_filename.startswith(_PACKAGE)


def user_frame(frame: Optional[FrameType]) -> Optional[FrameType]:
    """The innermost frame that is not memwatch's own."""
    while frame is not None and is_own(frame.f_code):
        frame = frame.f_back
    return frame


def locations(frame: Optional[FrameType], line: int, depth: int) -> list[Location]:
    """(file, function, line) of the frame at `line` and of up to `depth` - 1 callers."""
    found: list[Location] = []
    while frame is not None and len(found) < depth:
        if not is_own(frame.f_code):
            code = frame.f_code
            found.append((code.co_filename, code.co_qualname, line if not found else frame.f_lineno or 0))
        frame = frame.f_back
    return found


def thread_name() -> str:
    """The running thread's name; never makes a thread object for a thread that has none, as current_thread would."""
    active: dict[int, Any] = getattr(threading, "_active", {})
    thread = active.get(threading.get_ident())
    return "" if thread is None else str(thread.name)


def _running_frames() -> dict[int, FrameType]:
    """The running frame of every thread, by thread.

    Python 3.11 holds a lock of the interpreter meanwhile, and a garbage collection that one of its own allocations
    starts can come to need that lock: the collector has to wait.
    """
    if sys.version_info >= (3, 12) or not gc.isenabled():
        return sys._current_frames()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        gc.enable()


def other_frames() -> list[FrameType]:
    """The running frame of every thread but this one."""
    frames = _running_frames()
    frames.pop(threading.get_ident(), None)
    return list(frames.values())


def user_frames() -> list[FrameType]:
    """Every frame of every thread that is not memwatch's own.

    A variable that held the caller's own frame would be a cycle, which keeps all frames and their locals from ending
    until the garbage is collected: hence the `del`.
    """
    frames = _running_frames()
    found: list[FrameType] = []
    for top in frames.values():
        found.extend(frame for frame in stack(top) if not is_own(frame.f_code))
    frames.clear()
    del top
    return found


def stack(frame: Optional[FrameType]) -> Iterator[FrameType]:
    """The frame and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def runs(frame: FrameType, codes: set[int]) -> bool:
    """Whether the frame, or one of memwatch's own that led to it, runs one of these code objects, by id."""
    for candidate in stack(frame):
        if id(candidate.f_code) in codes:
            return True
        if not is_own(candidate.f_code):
            return False
    return False
