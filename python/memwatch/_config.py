"""A watcher's options: the argument, else the environment variable MEMWATCH_<NAME>, else the core's default."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, Optional, Union

Value = Union[str, int, float, bool]

_SUFFIXES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _size(text: str) -> int:
    """A number of bytes: 65536, 64k, 64KiB, 64 MiB."""
    number = text.strip().lower()
    for ending in ("ib", "b"):
        if number.endswith(ending):
            number = number[: -len(ending)].rstrip()
            break
    factor = _SUFFIXES.get(number[-1:], 1)
    return int(number[:-1] if factor > 1 else number) * factor


def _flag(text: str) -> bool:
    """1, true, yes, on; 0, false, no, off."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


OPTIONS: Mapping[str, Callable[[str], Value]] = {
    "backend": str,
    "window_ms": int,
    "ring_capacity": _size,
    "attribution_budget": float,
    "poll_budget": float,
    "stack_depth": int,
    "inline_threshold": _size,
    "preview_size": _size,
    "event_capacity": _size,
    "event_budget": _size,
    "history_budget": _size,
    "follow_fork": _flag,
    "history_path": str,
    "history_path_bytes": _size,
}


def resolve(given: Mapping[str, Optional[Value]], environ: Optional[Mapping[str, str]] = None) -> dict[str, Any]:
    """The options that were given or stand in the environment; the others are left to the core."""
    environ = os.environ if environ is None else environ
    resolved: dict[str, Any] = {}
    for name, parse in OPTIONS.items():
        value = given.get(name)
        if value is None:
            value = _from_environment(name, parse, environ)
        if value is not None:
            resolved[name] = value
    return resolved


def _from_environment(name: str, parse: Callable[[str], Value], environ: Mapping[str, str]) -> Optional[Value]:
    variable = f"MEMWATCH_{name.upper()}"
    text = environ.get(variable, "")
    if not text:
        return None
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"environment variable {variable}={text!r} is not a {parse.__name__.strip('_')}") from None
