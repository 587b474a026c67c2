"""Frames: their cells, their locations, who runs them.

DESIGN  Python offers no way to ask a running frame for a closure's cell, and a variable that functions share lives
longer than the frame that made it. So the frame's slots are read where CPython 3.11 to 3.13 keep them, at an offset
that is tried out once at import on a frame whose content is known. Where the trial fails (another implementation, a
debug build) `cell_of` answers None, and such a name is watched for as long as its frame lives.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from types import CellType, CodeType, FrameType
from typing import Any, Optional

from memwatch._trace.code import slot_names
from memwatch._trace.values import MISSING

Location = tuple[str, str, int]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_CO_OPTIMIZED = 1
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_FRAME_DATA = 3 * _POINTER  # PyFrameObject: reference count, type, f_back, then the pointer to the frame's data
_SLOTS = 9 * _POINTER  # of the frame's data: eight pointers and eight bytes of small fields come before the slots


def _slot(frame: FrameType, name: str) -> ctypes.py_object[Any]:
    data = ctypes.c_void_p.from_address(id(frame) + _FRAME_DATA).value or 0
    index = slot_names(frame.f_code).index(name)
    return ctypes.py_object.from_address(data + _SLOTS + index * _POINTER)


def slot_value(slot: ctypes.py_object[Any]) -> object:
    """What the slot holds. Its frame must be running, in this thread: when it ends, its slots move."""
    try:
        return slot.value
    except ValueError:
        return MISSING


def _layout_is_known() -> bool:
    """Whether a frame whose slots are known reads as it should."""
    if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return False
    if hasattr(sys, "gettotalrefcount") or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    mark = object()
    shared = object()

    def inner() -> FrameType:
        return sys._getframe() if shared else sys._getframe(1)

    frame = sys._getframe()
    cell = slot_value(_slot(frame, "shared"))
    inner_frame = inner()
    return (
        slot_value(_slot(frame, "mark")) is mark
        and type(cell) is CellType
        and cell.cell_contents is shared
        and inner_frame.f_code is inner.__code__
    )


_KNOWN = _layout_is_known()


def cell_of(frame: FrameType, name: str) -> Optional[CellType]:
    """The cell of a variable that functions share; None when it cannot be told. The frame must not have ended."""
    if not _KNOWN:
        return None
    cell = slot_value(_slot(frame, name))
    return cell if type(cell) is CellType else None


def slot_of(frame: FrameType, name: str) -> Optional[ctypes.py_object[Any]]:
    """A local's slot, for `slot_value`; None when it cannot be told. Reading it does not refresh
    `frame.f_locals`, which before Python 3.13 is slow and changes the dictionary that the user has from `locals()`."""
    return _slot(frame, name) if _KNOWN and name in frame.f_code.co_varnames else None


def local_value(frame: FrameType, name: str) -> object:
    """A local's value, also of a variable that functions share; MISSING when there is none.

    Reads the slot as `slot_of` does, and for the same reason: a dictionary of locals, once made, keeps what was in it.
    """
    if not _KNOWN or not frame.f_code.co_flags & _CO_OPTIMIZED:
        return frame.f_locals.get(name, MISSING)
    if name not in slot_names(frame.f_code):
        return MISSING
    found = slot_value(_slot(frame, name))
    is_shared = name in frame.f_code.co_cellvars or name in frame.f_code.co_freevars
    return _cell_value(found) if is_shared and type(found) is CellType else found


def _cell_value(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def local_values(frame: FrameType) -> dict[str, Any]:
    """All locals that have a value."""
    if not _KNOWN or not frame.f_code.co_flags & _CO_OPTIMIZED:
        return dict(frame.f_locals)
    found = {name: local_value(frame, name) for name in slot_names(frame.f_code)}
    return {name: value for name, value in found.items() if value is not MISSING}


def is_dead(frame: FrameType, references: int) -> bool:
    """Whether a frame has ended, when the caller alone holds `references` references to it."""
    return sys.getrefcount(frame) <= references + 2  # the arguments of this function and of getrefcount


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
            name: str = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has no qualified names
            found.append((code.co_filename, name, line if not found else frame.f_lineno or 0))
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
