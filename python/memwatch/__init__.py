"""memwatch: which variable changed, when, from what to what, and who wrote it.

    watcher = memwatch.MemoryWatcher()
    watcher.watch(array, name="weights")          # memory: bytearray, NumPy, ctypes, mmap, array.array
    watcher.watch_attr(config, "rate")            # a name bound to any object
    watcher.set_callback(print)                   # a ChangeEvent for every change
    print(watcher.serve().url)                    # the live page; /metrics for Prometheus

`event.where` says who wrote. `event.where.attribution` says how sure that is: only "exact" names a function, a file
and a line; "page" keeps what is no more than a hint in `event.where.page_writer`; "none" has a reason.

`memwatch.buffer(n)` and `memwatch.empty(shape, dtype)` give memory on pages of its own, where no neighbour's writes
hide the writer.
`python -m memwatch doctor` says what works on this machine; docs/ has a tutorial and every option.
"""

from memwatch._errors import Error
from memwatch._event import Change, ChangeEvent, Frame, Where
from memwatch._memory import buffer, empty
from memwatch._native import backends
from memwatch._stream import EventStream
from memwatch._typing import TYPE_CHECKING, Any
from memwatch._watcher import MemoryWatcher

if TYPE_CHECKING:
    from memwatch import adapters
    from memwatch._recorded import History, open_history
    from memwatch._serve import ServeOptions, Server
    from memwatch._stats import Stats
    from memwatch.integrations.asgi import AsgiApp as asgi_app
    from memwatch.integrations.wsgi import WsgiApp as wsgi_app

__version__ = "0.1.0"

__all__ = [
    "Change",
    "ChangeEvent",
    "Error",
    "EventStream",
    "Frame",
    "History",
    "MemoryWatcher",
    "ServeOptions",
    "Server",
    "Stats",
    "Where",
    "adapters",
    "asgi_app",
    "backends",
    "buffer",
    "empty",
    "open_history",
    "wsgi_app",
]


#: What few programs need is imported when it is asked for: the module that has it, and its name there.
_LATER = {
    "History": ("memwatch._recorded", "History"),
    "ServeOptions": ("memwatch._serve", "ServeOptions"),
    "Server": ("memwatch._serve", "Server"),
    "Stats": ("memwatch._stats", "Stats"),
    "adapters": ("memwatch.adapters", ""),
    "asgi_app": ("memwatch.integrations.asgi", "AsgiApp"),
    "load_ipython_extension": ("memwatch.integrations.ipython", "load_ipython_extension"),
    "open_history": ("memwatch._recorded", "open_history"),
    "unload_ipython_extension": ("memwatch.integrations.ipython", "unload_ipython_extension"),
    "wsgi_app": ("memwatch.integrations.wsgi", "WsgiApp"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'memwatch' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LATER[name]
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
