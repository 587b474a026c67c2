"""In the program that is watched without having been written for it: watches by a plan, and stays out of its way.

DESIGN  Modules are watched when they have been imported: a finder in front of the others lets them find, and wraps
the loader's exec_module. Names that are not there yet, and what globs may come to mean, are looked for with the
sweep of the trace adapter. The watcher is opened when the first variable is found, so that processes that have none
stay as they are, and a server's forked worker opens one of its own. Nothing here may raise into the program: what
goes wrong is one line on stderr.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.abc
import os
import signal
import sys
import threading
import time
import weakref
from fnmatch import fnmatchcase
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, Iterator, Optional, Sequence

MAIN = "__main__"
_MEMORY_ONLY = ("max_rate", "metric")
_GLOB = "*?["
TRAP_S = 2.0


def _say(sentence: str) -> None:
    from memwatch._errors import printable

    with contextlib.suppress(Exception):
        print(f"memwatch: {printable(sentence)}", file=sys.__stderr__, flush=True)


class Inside:
    """One plan in this process."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._main_names: list[str] = plan.get("main", [])
        self.watched: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._following = False
        self.trap_was_default = False
        self.watcher: Any = None
        self.server: Any = None

    # --- what is meant ---

    def names_of(self, module: str) -> list[str]:
        """By which names a plan may call it: what runs as __main__ has its file's name, too."""
        return [module, *self._main_names] if module == MAIN else [module]

    def _entries(self, module: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for entry in self._plan["variables"]:
            for wanted, variable in entry["watch"]:
                for name in self.names_of(module):
                    if fnmatchcase(name, wanted):
                        yield name, variable, entry
                        break

    def wants(self, module: str) -> bool:
        """Whether anything of a module is to be watched."""
        return any(True for _ in self._entries(module))

    def missing(self) -> list[str]:
        """What was asked for by its very name, and never found."""
        asked = [":".join(pair) for entry in self._plan["variables"] for pair in entry["watch"]]
        names = [text for text in asked if not any(each in text for each in _GLOB)]
        return [text for text in names if text.replace(":", ".") not in self.watched or self._is_unbound(text)]

    def _is_unbound(self, text: str) -> bool:
        """Of a name of the script that was watched before it was bound: whether it still is not."""
        module, _, variable = text.partition(":")
        main = sys.modules.get(MAIN)
        return main is not None and module in self.names_of(MAIN) and variable.split(".")[0] not in vars(main)

    # --- watching ---

    def look_at(self, module: ModuleType) -> None:
        """Watches what is there and is not watched yet."""
        with self._lock:
            wanted = sorted(self._entries(module.__name__), key=lambda each: any(glob in each[1] for glob in _GLOB))
            for name, variable, entry in wanted:  # the options of a name by itself go before those of a glob
                if any(each in variable for each in _GLOB):
                    self._look_for_globs(module, name, variable, entry)
                else:
                    self._watch(module, name, variable, entry["options"])

    def _look_for_globs(self, module: ModuleType, name: str, variable: str, entry: dict[str, Any]) -> None:
        from memwatch._scope import Rules

        rules = Rules(variable, entry["exclude"] or None, None, None)
        for attribute, value in list(vars(module).items()):
            if type(attribute) is str and rules.why_not(attribute, value, False) is None:
                self._watch(module, name, attribute, entry["options"], quiet=True)

    def _watch(
        self, module: ModuleType, module_name: str, variable: str, options: dict[str, Any], quiet: bool = False
    ) -> None:
        alias = f"{module_name}.{variable}"
        if alias in self.watched or alias in self.refused:
            return
        *path, last = variable.split(".")
        owner: Any = module
        for part in path:
            owner = vars(owner).get(part, _NOTHING) if isinstance(owner, ModuleType) else getattr(owner, part, _NOTHING)
        unbound = owner is module and last not in vars(module)
        if owner is _NOTHING or (unbound and module.__name__ != MAIN):
            return
        try:
            watch = self._watch_unbound if unbound else self._watch_attr
            self.watched[alias] = watch(owner, last, alias, dict(options))
        except (TypeError, ValueError, OSError) as error:
            self.refused[alias] = str(error)
            if not quiet:
                _say(f"{alias} is not watched: {error}")

    def _watch_unbound(self, module: ModuleType, last: str, alias: str, options: dict[str, Any]) -> int:
        """A name of the script before it runs, so that its first binding is seen, and by whom, on this very thread."""
        from memwatch import _scope
        from memwatch._trace.targets import NamespaceTarget

        for option in _MEMORY_ONLY:
            options.pop(option, None)
        values = options.pop("values", None)
        return _scope._track(self.open(), NamespaceTarget(vars(module), last), alias, None, values, options)

    def _watch_attr(self, owner: Any, last: str, alias: str, options: dict[str, Any]) -> int:
        if isinstance(options.get("when"), list):
            options["when"] = tuple(options["when"])
        watcher = self.open()
        try:
            region_id: int = watcher.watch_attr(owner, last, alias=alias, **options)
        except TypeError:
            if not any(option in options for option in _MEMORY_ONLY):
                raise
            for option in _MEMORY_ONLY:  # of a glob that means memory and other names
                options.pop(option, None)
            region_id = watcher.watch_attr(owner, last, alias=alias, **options)
        return region_id

    def open(self) -> Any:
        """The watcher and its exporter; opened once in a process."""
        if self.watcher is None:
            from memwatch import MemoryWatcher

            options = dict(self._plan["watcher"])
            path = options.get("history_path")
            if path and os.getpid() != self._plan.get("pid", os.getpid()):
                options["history_path"] = f"{path}.{os.getpid()}"  # a recording has one writer
            self.watcher = MemoryWatcher(**options)
            self._serve()
            if self._plan.get("print"):
                self.watcher.set_callback(lambda event: _say(f"{event.summary}  by {event.where}"))
        return self.watcher

    def _serve(self) -> None:
        exporter = dict(self._plan["exporter"])
        if exporter.pop("serve", True) is False:
            return
        first = os.getpid() == self._plan.get("pid", os.getpid())
        if not first:
            exporter["port"] = 0
        try:
            self.server = self.watcher.serve(**exporter)
        except (OSError, ValueError, TypeError) as error:
            _say(f"there is no exporter: {error}")
            return
        if first and not self._plan.get("quiet"):
            _say(f"watching in process {os.getpid()}, {self.server.url}")

    @property
    def is_closed(self) -> bool:
        """Whether the program has closed the watcher, as at a fork."""
        return bool(self.watcher is None or self.watcher._core.closed)

    def extend(self, plan: dict[str, Any]) -> None:
        """Watches by another plan, too: its variables; watcher and exporter are there already."""
        self._plan["variables"] += plan["variables"]
        self.refused.clear()

    # --- names that come later ---

    def look_again(self) -> bool:
        """Called with each sweep; False when there is nothing left to look for."""
        try:
            for name in list(sys.modules):
                module = sys.modules.get(name)
                if isinstance(module, ModuleType) and module.__name__ == name and self.wants(name):
                    spec = getattr(module, "__spec__", None)
                    if not getattr(spec, "_initializing", False):
                        self.look_at(module)
        except Exception as error:
            _say(f"looking for variables failed: {error!r}")
            return False
        return self._may_find_more()

    def _may_find_more(self) -> bool:
        return bool(self.missing()) or any(
            each in pair[1] for entry in self._plan["variables"] for pair in entry["watch"] for each in _GLOB
        )

    def follow(self) -> None:
        """Looks again with each sweep, for as long as there may be more."""
        if self._following or self.watcher is None or not self._may_find_more():
            return
        self._following = True
        this = weakref.ref(self)

        def look() -> bool:
            inside = this()
            return inside is not None and inside.look_again()

        self.watcher._adapter_named("trace").follow(look)

    def begin(self) -> None:
        """Watches what is imported already, and prepares for what comes."""
        if self.wants(MAIN):
            self.open()
        self.look_again()
        self.follow()
        sys.meta_path.insert(0, Finder(self))

    def arrived(self, module: ModuleType) -> None:
        """A module has been imported."""
        try:
            self.look_at(module)
            self.follow()
        except Exception as error:
            _say(f"{module.__name__} is not watched: {error!r}")

    def tell_missing(self) -> None:
        """At exit: a name that was mistyped must not stay a secret."""
        if os.getpid() == self._pid == self._plan.get("pid", self._pid):
            for text in self.missing():
                why = self.refused.get(text.replace(":", "."))
                if why is None:
                    _say(f"{text} was never found: no module of that name was imported, or it has no such variable")

    def close(self) -> None:
        """Ends all of it: as if nothing had been."""
        self._plan["variables"] = []
        sys.meta_path[:] = [each for each in sys.meta_path if not (isinstance(each, Finder) and each.inside is self)]
        atexit.unregister(self.tell_missing)
        if self.watcher is not None:
            self.watcher.close()


_NOTHING = object()


class Finder(importlib.abc.MetaPathFinder):
    """Lets the others find, and wants to know when a module has been executed."""

    def __init__(self, inside: Inside) -> None:
        self.inside = inside
        self._busy = threading.local()

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        """None for all that is not watched, and for what nobody finds."""
        if getattr(self._busy, "now", False) or not self.inside.wants(fullname):
            return None
        self._busy.now = True
        try:
            spec = next(filter(None, (self._ask(each, fullname, path, target) for each in self._others())), None)
        finally:
            self._busy.now = False
        loader = None if spec is None else spec.loader
        if loader is not None and not isinstance(loader, type) and hasattr(loader, "exec_module"):
            with contextlib.suppress(AttributeError):
                self._wrap(loader)
        return spec

    def _others(self) -> list[Any]:
        return [each for each in sys.meta_path if each is not self]

    @staticmethod
    def _ask(finder: Any, fullname: str, path: Optional[Sequence[str]], target: Any) -> Optional[ModuleSpec]:
        find: Optional[Callable[..., Optional[ModuleSpec]]] = getattr(finder, "find_spec", None)
        return None if find is None else find(fullname, path, target)

    def _wrap(self, loader: Any) -> None:
        """For this once: the loader is as it was when the module is there."""
        execute = loader.exec_module
        inside = self.inside

        def exec_module(module: ModuleType) -> None:
            loader.__dict__.pop("exec_module", None)
            execute(module)
            inside.arrived(module)

        loader.exec_module = exec_module


current: Optional[Inside] = None


def begin(plan: dict[str, Any]) -> Inside:
    """Watches by a plan from now on."""
    global current
    current = Inside(plan)
    atexit.register(current.tell_missing)
    current.begin()
    return current


# --- of a process that runs already -----------------------------------------------------------------------------------


def attach(plan: dict[str, Any]) -> dict[str, Any]:
    """Watches by a plan, beside what an earlier one watches; what became of it, for who asked."""
    global current
    if current is None or current.is_closed:
        current = Inside({**plan, "main": _main_names(), "pid": os.getpid()})
        current.trap_was_default = not _catches_trap()
        sys.meta_path.insert(0, Finder(current))
    else:
        current.extend(plan)
    current.open()
    current.look_again()
    current.follow()
    from memwatch import _native

    return {
        "pid": os.getpid(),
        "watched": list(current.watched),
        "refused": current.refused,
        "missing": current.missing(),
        "page": current.server.url if current.server is not None else None,
        "note": f"its memwatch has no C extension: {_native.missing['native']}" if "native" in _native.missing else "",
    }


def _main_names() -> list[str]:
    """What a user calls the module that runs as __main__."""
    main = sys.modules.get(MAIN)
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return [str(spec.name).removesuffix(".__main__")]
    return [os.path.splitext(os.path.basename(file))[0]] if isinstance(file, str) else []


def detach(_: object) -> dict[str, Any]:
    """Ends what `attach` began."""
    global current
    ended, current = current, None
    if ended is not None:
        ended.close()
        if ended.trap_was_default:
            _give_back_trap()
    return {"pid": os.getpid(), "was_attached": ended is not None}


def _catches_trap() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        caught = next((line for line in file if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) >> (signal.SIGTRAP - 1) & 1)


def _threads_seen() -> dict[str, tuple[str, str]]:
    """By thread: its state, and how long it has run in user mode."""
    seen = {}
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError, IndexError), open(f"/proc/self/task/{task}/stat", encoding="utf-8") as file:
            words = file.read().rpartition(")")[2].split()
            seen[task] = (words[0], words[11])
    return seen


def _give_back_trap() -> None:
    """The signal's own action, once nothing of ours can be on its way to a thread: a late one would end the process.

    A thread that sleeps in a call has none on its way; one that has run on in user mode since has had it.
    """
    from memwatch._native import core

    if not core.NATIVE or not _catches_trap() or signal.getsignal(signal.SIGTRAP) is not signal.SIG_DFL:
        return
    waiting = _threads_seen()
    waiting.pop(str(threading.get_native_id()), None)
    end = time.monotonic() + TRAP_S
    while waiting and time.monotonic() < end:
        now = _threads_seen()
        waiting = {task: was for task, was in waiting.items() if task in now and now[task] == was and was[0] == "R"}
        time.sleep(0.02)
    if not waiting:
        core.signal_default(signal.SIGTRAP)
