"""memwatch: which variable changed, when, from what to what, and who wrote it."""

from memwatch._errors import Error
from memwatch._event import Change, ChangeEvent, Frame, Where
from memwatch._memory import buffer, empty
from memwatch._native import backends
from memwatch._recorded import History, open_history
from memwatch._serve import Server
from memwatch._stream import EventStream
from memwatch._watcher import MemoryWatcher

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
    "backends",
    "buffer",
    "empty",
    "open_history",
]
