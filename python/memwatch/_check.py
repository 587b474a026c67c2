"""What is refused before the core is asked: each sentence names the argument, its value and the way out."""

from __future__ import annotations

import math
import os

from memwatch._typing import Any

VALUES = ("full", "preview", "hash", "none", "auto")
NUMBERS = frozenset("?bBhHiIlLqQnNefdg")
CONDITIONS = (
    'when is a function of the event, or a condition on numbers: "changed", "any_nan", ("gt", x) and so ge, lt, le, '
    'eq, ne, delta_gt, or ("outside", low, high) and so inside'
)


def callback(given: object) -> None:
    """Refuses what cannot be called with one event."""
    if given is None:
        return
    if not callable(given):
        raise TypeError(f"a callback is a function of the event, not {type(given).__name__}")
    try:
        from inspect import iscoroutinefunction, signature
    except ImportError:  # who has given up his rights may no longer read Python's own files
        return
    if iscoroutinefunction(given):
        text = f"the callback {getattr(given, '__name__', given)!s} is a coroutine function, and nobody would await it"
        raise TypeError(f"{text}: use `async for event in watcher.events()`")
    try:
        call = signature(given)
    except (TypeError, ValueError):  # of a builtin: nothing tells
        return
    try:
        call.bind(None)
    except TypeError:
        text = f"the callback {getattr(given, '__name__', given)!s}{call} cannot be called with one event"
        raise TypeError(f"{text}: it is callback(event)") from None


def name(given: object) -> None:
    """Refuses names that nobody could read or ask for."""
    if given is None:
        return
    if not isinstance(given, str):
        raise TypeError(f"name={given!r}: a name is text, not {type(given).__name__}: name={str(given)!r}")
    if "\0" in given:
        raise ValueError(f"name={given!r}: a name has no zero character")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ValueError(f"name={given!r}: a name has no lone surrogates; give it without them") from None
    if given and not given.strip():
        raise ValueError(f"name={given!r}: a name is not blank; leave it out to have one made")


def path(given: object, what: str) -> str:
    """A path as text; refuses what no file can be named."""
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{what}={given!r}: it is the path of a file, as text or pathlib.Path")
    text = os.fspath(given)
    if not isinstance(text, str):
        raise TypeError(f"{what}={given!r}: it is text; os.fsdecode(path) makes it of bytes")
    if not text or "\0" in text:
        raise ValueError(f"{what}={given!r}: the path of a file is not empty, and has no zero character")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError(f"{what}={given!r}: no file can be named by lone surrogates") from None
    return text


def is_numeric(obj: object) -> bool:
    """Whether the core sees numbers in the object, and not bytes."""
    try:
        view = memoryview(obj)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        return True  # the core says what is wrong
    plain = isinstance(obj, (bytes, bytearray, memoryview))
    return view.format.lstrip("@=<>!") in NUMBERS and not (plain and view.format == "B")


def condition(when: object, obj: object) -> None:
    """Refuses conditions that no change can meet, and those on numbers where there are none."""
    if when is None or callable(when) or isinstance(when, str):
        return
    if not when:
        raise ValueError(f"when={when!r}: {CONDITIONS}")
    if not isinstance(when, tuple):
        raise TypeError(f"when={when!r}: {CONDITIONS}")
    numbers = [number for number in when[1:] if isinstance(number, (int, float))]
    if any(math.isnan(number) for number in numbers):
        raise ValueError(f'when={when!r}: nothing compares with nan; "any_nan" finds it')
    if when[0] in ("outside", "inside") and len(numbers) == 2 and numbers[0] > numbers[1]:
        raise ValueError(f"when={when!r}: the lower limit comes first: {(when[0], numbers[1], numbers[0])!r}")


def region(obj: object, values: object, when: object, max_rate: object, metric: object) -> None:
    """Refuses what `watch()` of memory cannot do for this object."""
    if values is not None and not isinstance(values, str):
        raise TypeError(f"values={values!r}: it is one of {', '.join(map(repr, VALUES))}")
    condition(when, obj)
    rate(max_rate, "events")
    if metric not in (None, True, False):
        raise TypeError(f"metric={metric!r}: it is True or False")
    wants = "metric=True" if metric else f"when={when!r}" if when is not None and not callable(when) else ""
    if wants and when != "changed" and not is_numeric(obj):
        raise ValueError(
            f"{wants}: this {type(obj).__name__} holds bytes, not numbers: watch an array (NumPy, array.array, ctypes) "
            "or memoryview.cast of it" + ("" if metric else ", or give a function of the event")
        )


def rate(given: object, what: str) -> None:
    """Refuses what is no `max_rate`. How large one may be, the core says."""
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        kind = type(given).__name__
        raise TypeError(f"max_rate={given!r}: it is a number of {what} a second, 0 for no limit, not {kind}")
    if not 0 <= given < math.inf:
        raise ValueError(f"max_rate={given!r}: it is {what} a second, 0 for no limit")


def adapter(given: object) -> None:
    """Refuses what is no adapter: an option that was given by place, most often."""
    if given is not None and not all(callable(getattr(given, method, None)) for method in ("track", "untrack")):
        raise TypeError(
            f"adapter={given!r}: it is a memwatch.adapters.TrackerAdapter; options are given by name, "
            "as in MemoryWatcher(window_ms=5)"
        )


def region_or_name(given: object, function: str) -> None:
    if isinstance(given, bool) or not isinstance(given, (int, str)):
        raise TypeError(f"{function}({given!r}): it takes a region's name, or the id that watch() returned")
    if isinstance(given, int) and not 0 <= given < 1 << 64:
        raise ValueError(f"{function}({given!r}): no watch() returns such an id")


def size(given: object, what: str) -> None:
    """Refuses what is no number of bytes or elements."""
    if isinstance(given, bool) or not hasattr(type(given), "__index__"):
        raise TypeError(f"{what}: it is a whole number, not {type(given).__name__}")


def timeout(given: object, function: str) -> None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, (int, float))):
        raise TypeError(f"{function}(timeout={given!r}): it is a number of seconds, or None")
    if given is not None and not given >= 0:
        raise ValueError(f"{function}(timeout={given!r}): it is a number of seconds from 0, or None")


def since(given: object) -> None:
    """Refuses what is no number of an event. One that is still to come is: what follows it is waited for."""
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"since={given!r}: it is the seq of an event, 0 for all that are kept, or None")
    if not 0 <= given < 1 << 64:
        raise ValueError(f"since={given!r} is out of range: it is the seq of an event, or 0 for all that are kept")


PORT = "it is a number from 0 to 65535, 0 for any free port"


def port(given: Any) -> None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= 65535):
        kind = ValueError if isinstance(given, int) else TypeError
        raise kind(f"port={given!r}: {PORT}")
