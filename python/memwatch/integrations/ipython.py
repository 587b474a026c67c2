"""Notebooks: `%load_ext memwatch`, then `%memwatch name` watches a variable and says after each cell what changed it.

DESIGN  The magic watches what the name holds. After each cell it is looked at again: a cell that binds the name to
another value makes that the watched one, and the change is told. A cell is named as IPython names it, "In [12]", where
the compiler's own file name is that of a temporary file.
"""

from __future__ import annotations

import os
import re
from typing import Any, Optional

import memwatch
from memwatch import _event

USAGE = """%memwatch NAME ...       watch what these names hold, from this cell on
%memwatch                what is watched
%memwatch -d NAME ...    stop"""


class Notebook:
    """What one interactive shell watches."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.watcher = memwatch.MemoryWatcher()
        self._held: dict[str, Any] = {}
        self._seq = 0

    def magic(self, line: str) -> None:
        """`%memwatch`"""
        words = line.split()
        if words[:1] == ["-d"]:
            for name in words[1:]:
                if self._held.pop(name, None) is None:
                    print(f"memwatch: {name} is not watched")
                self.watcher.unwatch(name)
        elif any(word.startswith("-") for word in words):
            print(USAGE)
        elif not words:
            print("\n".join(f"{name}: {type(value).__name__}" for name, value in self._held.items()) or USAGE)
        else:
            self._skip()
            for name in words:
                self._watch(name)

    def _watch(self, name: str) -> None:
        if name not in self.shell.user_ns:
            print(f"memwatch: there is no variable {name!r}")
            return
        value = self.shell.user_ns[name]
        try:
            self.watcher.watch(value, name, replace=True)
        except (TypeError, ValueError, memwatch.Error) as error:
            print(f"memwatch: {name}: {error.args[-1]}")
            return
        self._held[name] = value

    def _skip(self) -> None:
        self.watcher.flush()
        for event in self.watcher.events(since=self._seq, timeout=0):
            self._seq = event.seq

    def after_cell(self, _: Any = None) -> None:
        """Tells what the cell changed, and follows names that it bound to something else."""
        if not self._held:
            return
        self.watcher.flush()
        for event in self.watcher.events(since=self._seq, timeout=0):
            self._seq = event.seq
            print(f"{event.summary}, by {event.where}")
        for name, value in list(self._held.items()):
            now: Optional[Any] = self.shell.user_ns.get(name)
            if now is not value:
                print(f"{name}: rebound" if name in self.shell.user_ns else f"{name}: deleted")
                del self._held[name]
                self.watcher.unwatch(name)
                if name in self.shell.user_ns:
                    self._watch(name)

    def file_name(self, file: str) -> Optional[str]:
        """ "In [12]" for a cell's file; None: it is of no cell."""
        try:
            label, name = self.shell.compile.format_code_name(file)
        except Exception:
            label, name = "", ""
        if label == "Cell":
            return re.sub(r"^In\[", "In [", name)
        found = re.match(r"<ipython-input-(\d+)-", os.path.basename(file))
        return f"In [{found[1]}]" if found else None


_notebooks: list[Notebook] = []


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext memwatch`"""
    if _notebooks:
        return
    notebook = Notebook(shell)
    _notebooks.append(notebook)
    shell.register_magic_function(notebook.magic, "line", "memwatch")
    shell.events.register("post_run_cell", notebook.after_cell)
    _event.file_names.append(notebook.file_name)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext memwatch`"""
    for notebook in _notebooks:
        shell.events.unregister("post_run_cell", notebook.after_cell)
        _event.file_names.remove(notebook.file_name)
        shell.magics_manager.magics["line"].pop("memwatch", None)
        notebook.watcher.close()
    _notebooks.clear()
