"""memwatch: which variable changed, when, from what to what, and who wrote it."""

from typing import TYPE_CHECKING, Any

from memwatch._errors import Error
from memwatch._event import Change, ChangeEvent, Frame, Where
from memwatch._memory import buffer, empty
from memwatch._native import backends
from memwatch._serve import Server
from memwatch._stream import EventStream
from memwatch._watcher import MemoryWatcher

if TYPE_CHECKING:
    from memwatch import adapters
    from memwatch._recorded import History, open_history

__version__ = "0.1.0"

__all__ = [
    "Change",
    "ChangeEvent",
    "Error",
    "EventStream",
    "Frame",
    "History",
    "MemoryWatcher",
    "Server",
    "Where",
    "adapters",
    "backends",
    "buffer",
    "empty",
    "open_history",
]


def __getattr__(name: str) -> Any:
    """What few programs need is imported when it is asked for."""
    if name in ("History", "open_history"):
        from memwatch import _recorded

        return getattr(_recorded, name)
    if name == "adapters":
        from importlib import import_module

        return import_module("memwatch.adapters")
    raise AttributeError(f"module 'memwatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
