"""Chooses the core: the C extension, or its stand-in in pure Python where the extension could not be built."""

from __future__ import annotations

import importlib
import os
import threading
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memwatch import _core as core
else:

    def _load() -> ModuleType:
        try:
            _core = importlib.import_module("memwatch._core")
        except ImportError as error:
            from memwatch import _pure

            warnings.warn(
                f"memwatch runs without its C extension ({error}): it polls, in pure Python, and cannot say who wrote",
                RuntimeWarning,
                stacklevel=4,
            )
            return _pure
        _core.own_set(os.path.dirname(__file__), threading.__file__)
        if not _core.FRAMES:
            warnings.warn(f"memwatch names no lines of Python: {_core.FRAMES_NOTE}", RuntimeWarning, stacklevel=4)
        return _core

    core = _load()


def backends() -> list[dict[str, Any]]:
    """The ways to notice a write that this machine has, best first: name, usable, chosen (never, here) and a note."""
    return core.probe()


__all__ = ["backends", "core"]
