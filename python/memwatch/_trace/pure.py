"""What the engines call while nothing changes, in pure Python: the surface of `trace_glance.c` and `trace_spot.c`.

DESIGN  Functions that Python calls for each line or instruction have all they need in their closures. A name of a
namespace, the most common, is compared here; for every other a `Glance` is never certain, and what looks closer is
asked each time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FrameType

from memwatch._typing import Any, Optional

Tracer = Callable[[FrameType, str, Any], Any]

_UNSURE = object()
"""What no name holds."""


class Glance:
    """Whether a name certainly holds what it held."""

    __slots__ = ("key", "last", "namespace")

    def __init__(self, kind: str, holder: object = None, key: object = None) -> None:
        self.namespace: Optional[dict[object, Any]] = holder if kind == "namespace" else None  # type: ignore[assignment]
        self.key = key
        self.last: object = _UNSURE

    def remember(self, value: object, keys: Optional[list[Any]] = None, items: Optional[list[Any]] = None) -> None:
        """What the name holds now. With the items of what can change in place it is not compared here."""
        self.last = value if items is None else _UNSURE

    def forget(self) -> None:
        """Nothing is certain from now on."""
        self.last = _UNSURE

    def unchanged(self, frame: FrameType) -> bool:
        return self.namespace is not None and self.namespace.get(self.key, self) is self.last


class Spot:
    """What is checked at one place: a glance for each name, and what looks closer when one is not certain."""

    __slots__ = ("check", "look_closer", "name")

    def __init__(self, glances: tuple[Glance, ...], look_closer: Callable[[FrameType], object]) -> None:
        def _look_closer(frame: FrameType) -> None:
            with suppress(RecursionError, MemoryError):  # what has changed is found by a later look
                look_closer(frame)

        def _check(frame: FrameType) -> None:
            for glance in glances:
                if not glance.unchanged(frame):
                    _look_closer(frame)
                    return

        comparable = all(glance.namespace is not None for glance in glances)
        self.look_closer = _look_closer
        self.check = _check if comparable else _look_closer
        self.name = glances[0] if comparable and len(glances) == 1 else None
        """The glance where it is the only one, at a name of a namespace."""


def line_step(
    lines: dict[int, Any],
    spot: Optional[Spot] = None,
    idle: Optional[Tracer] = None,
    on_return: Optional[Callable[[FrameType], object]] = None,
) -> Tracer:
    """A frame's trace function: checks the spot of the line that has run, answers with the step for the next."""
    if spot is None or idle is None:
        return _idle_step(lines, on_return)
    if spot.name is not None and spot.name.namespace is not None:
        return _name_step(lines, spot, spot.name, spot.name.namespace, idle, on_return)
    check = spot.check

    def _on_line(frame: FrameType, event: str, arg: Any) -> Any:
        check(frame)
        if event == "line":
            return lines.get(frame.f_lineno, idle)
        if event == "return":
            if on_return is not None:
                on_return(frame)
            return idle
        return _on_line  # an exception that may be caught in this very line, which goes on

    return _on_line


def _idle_step(lines: dict[int, Any], on_return: Optional[Callable[[FrameType], object]]) -> Tracer:
    def _on_idle_line(frame: FrameType, event: str, arg: Any) -> Any:
        line = frame.f_lineno
        if line in lines and event == "line":
            return lines[line]
        if on_return is not None and event == "return":
            on_return(frame)
        return _on_idle_line

    return _on_idle_line


def _name_step(
    lines: dict[int, Any],
    spot: Spot,
    glance: Glance,
    namespace: dict[object, Any],
    idle: Tracer,
    on_return: Optional[Callable[[FrameType], object]],
) -> Tracer:
    key = glance.key

    def _on_name_line(frame: FrameType, event: str, arg: Any) -> Any:
        if key not in namespace or namespace[key] is not glance.last:
            spot.look_closer(frame)
        if event == "line":
            return lines.get(frame.f_lineno, idle)
        if event == "return":
            if on_return is not None:
                on_return(frame)
            return idle
        return _on_name_line

    return _on_name_line


def call_step(steps: dict[int, Optional[Tracer]], watches: dict[int, Any], slow: Tracer) -> Tracer:
    """A thread's trace function; here the slow one, which knows all."""
    return slow


def gate(steps: Optional[dict[int, Optional[Tracer]]], inspect: Optional[Callable[[CodeType], object]]) -> None:
    """Pure Python cannot switch tracing off for a frame."""


def guarded(function: Callable[..., object]) -> Callable[..., object]:
    """Pure Python cannot put off what a signal handler raises: it is raised where it is."""
    return function


def _functions_of(*functions: Callable[..., object]) -> frozenset[CodeType]:
    """The code objects of the functions that these make."""
    return frozenset(
        const for function in functions for const in function.__code__.co_consts if type(const) is CodeType
    )


_STEPS = _functions_of(line_step, _idle_step, _name_step)


def is_line_step(function: object) -> bool:
    return getattr(function, "__code__", None) in _STEPS


def instruction_callback(table: dict[int, Spot], disable: object) -> Callable[[CodeType, int], object]:
    """A function for sys.monitoring's INSTRUCTION events."""
    get_frame = sys._getframe

    def _on_instruction(code: CodeType, offset: int) -> object:
        try:
            spot = table[id(code) + offset]
        except KeyError:
            return disable
        glance = spot.name
        if glance is not None and glance.namespace is not None:
            if glance.namespace.get(glance.key, _UNSURE) is not glance.last:
                spot.look_closer(get_frame(1))
        else:
            spot.check(get_frame(1))
        return None

    return _on_instruction
