"""A watcher's options: the argument, else the environment variable MEMWATCH_<NAME>, else the core's default."""

from __future__ import annotations

import os

from memwatch._typing import Any, Callable, Mapping, NamedTuple, Optional, Union

Value = Union[str, int, float, bool]

#: What the core's note says of the backend mprotect, for the warning before it is opened.
_HAZARD = (
    "system calls that write into watched memory fail with EFAULT or fill a part of it, datagrams are lost, a thread "
    "that blocks SIGSEGV dies of its next write: docs/limits.md"
)

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


class Option(NamedTuple):
    """An option of a watcher: how its environment variable reads, what it may be, and what it is for."""

    parse: Callable[[str], Value]
    unit: str
    about: str
    low: float = 0
    high: float = 0
    """The greatest value; 0: any."""
    default: str = ""
    """The name of the core's default in native/src/base/base.h, or the default itself."""


OPTIONS: Mapping[str, Option] = {
    "backend": Option(str, "name", "How writes are noticed: auto, uffd, poll or mprotect.", default="auto"),
    "window_ms": Option(int, "ms", "Writes within it are one event.", 1, 10000, "WRITABLE_WINDOW_MS"),
    "ring_capacity": Option(
        _size, "notes", "Notes of writers on their way; a power of two.", 16, 1 << 24, "RING_CAPACITY"
    ),
    "attribution_budget": Option(
        float, "share of a core", "What asking for writers may cost; 0: do not ask.", 0, 1, "ATTRIBUTION_BUDGET"
    ),
    "poll_budget": Option(float, "share of a core", "What comparing may cost.", 0.0001, 1, "POLL_BUDGET"),
    "stack_depth": Option(int, "frames", "Frames in `where.frames`.", 1, 32, "STACK_DEPTH"),
    "inline_threshold": Option(
        _size, "bytes", "Values up to this size are in the event, larger ones have keys.", 0, 1 << 20,
        "SMALL_COPY_THRESHOLD",
    ),
    "preview_size": Option(_size, "bytes", "The first bytes of a value, in every event.", 0, 1 << 20, "PREVIEW_SIZE"),
    "event_capacity": Option(_size, "events", "Events that the log keeps.", 1, 0, "EVENT_CAPACITY"),
    "event_budget": Option(_size, "bytes", "What the log may take.", 0, 0, "EVENT_BUDGET"),
    "history_budget": Option(_size, "bytes", "What older versions of values may take.", 0, 0, "HISTORY_BUDGET"),
    "follow_fork": Option(_flag, "yes or no", "A forked child watches the same variables.", default="no"),
    "history_path": Option(str, "path", "A recording that survives the process.", default="none"),
    "history_path_bytes": Option(_size, "bytes", "How large the recording may grow.", 0, 0, "256 MiB"),
}  # fmt: skip

#: Of the exporter and the tools; they are read elsewhere.
OTHERS = ("MEMWATCH_SERVICE", "MEMWATCH_WORKER", "MEMWATCH_LABELS", "MEMWATCH_TOKEN", "MEMWATCH_HUB_TOKEN")


def checked(name: str, value: object) -> Value:
    """An option's value from a file: KeyError when there is no such option, ValueError when it cannot be that."""
    option = OPTIONS[name]
    wanted = {str: str, _flag: bool}.get(option.parse, (int, float))
    if isinstance(value, str) and option.parse is not str:
        try:
            value = option.parse(value)
        except ValueError:
            raise ValueError(f"{value!r} is none of {option.unit}") from None
    if not isinstance(value, wanted) or (isinstance(value, bool) and option.parse is not _flag):
        raise ValueError(f"{value!r} is none of {option.unit}")
    try:
        _check(name, value, option)  # type: ignore[arg-type]  # what it may be was just seen
    except TypeError as error:
        raise ValueError(str(error)) from None
    return value  # type: ignore[return-value]


def resolve(given: Mapping[str, Optional[Value]], environ: Optional[Mapping[str, str]] = None) -> dict[str, Any]:
    """The options that were given or stand in the environment; the others are left to the core."""
    environ = os.environ if environ is None else environ
    resolved: dict[str, Any] = {}
    _refuse_misspelt(environ)
    for name, option in OPTIONS.items():
        value = given.get(name)
        if value is None:
            value = _from_environment(name, option, environ)
        else:
            _check(name, value, option)
        if value is not None:
            resolved[name] = value
    return resolved


def warn_of_hazard(options: Mapping[str, Value]) -> None:
    """RuntimeWarning, for the caller's caller, when the backend mprotect was asked for."""
    if options.get("backend") == "mprotect":
        import warnings

        warnings.warn(f"the backend mprotect was asked for: {_HAZARD}", RuntimeWarning, stacklevel=3)


def _check(name: str, value: Value, option: Option) -> None:
    """Refuses a value of another kind, or out of its range."""
    if option.parse is _flag and not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: it is True or False, not {type(value).__name__}")
    if option.parse is str and value == "":
        raise ValueError(f"{name}={value!r}: it is a {option.unit}; leave it out for {option.default}")
    if option.parse in (str, _flag):
        return
    whole = option.parse is not float
    if isinstance(value, bool) or not (
        hasattr(type(value), "__index__") or (not whole and hasattr(value, "__float__"))
    ):
        kind = "a whole number" if whole else "a number"
        raise TypeError(f"{name}={value!r}: it is {kind} ({option.unit}), not {type(value).__name__}")
    _check_range(f"{name}={value!r}", float(value), option)


def _check_range(text: str, value: float, option: Option) -> None:
    if not value >= option.low or (option.high and value > option.high):
        bounds = f"from {option.low:g}" + (f" to {option.high:g}" if option.high < 1e5 else f" to {option.high:.0f}")
        raise ValueError(f"{text}: it is {bounds if option.high else f'at least {option.low:g}'} ({option.unit})")


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """A variable that is nearly an option's: an option that would be ignored without a word."""
    known = [f"MEMWATCH_{name.upper()}" for name in OPTIONS]
    for variable in environ:
        if not variable.startswith("MEMWATCH_") or variable in known or variable in OTHERS:
            continue
        try:
            from difflib import get_close_matches
        except ImportError:  # a process that gave up its rights may not read its own library any more
            return
        near = get_close_matches(variable, known, 1, 0.9)
        if near:
            raise ValueError(f"environment variable {variable} is no option of memwatch: {near[0]} is")


def _from_environment(name: str, option: Option, environ: Mapping[str, str]) -> Optional[Value]:
    variable = f"MEMWATCH_{name.upper()}"
    text = environ.get(variable, "")
    if not text:
        return None
    try:
        return option.parse(text)
    except ValueError:
        kind = {float: "a number", _flag: "yes or no"}.get(option.parse, "a whole number")
        raise ValueError(f"environment variable {variable}={text!r}: it is {kind} ({option.unit})") from None
