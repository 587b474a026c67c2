"""Chooses the core: the C extension, or its stand-in in pure Python where the extension could not be built.

The exporter and the recorder are modules of their own, because each needs libraries that may be missing. What is
missing is said once, when the package is imported, with its true cause; `missing` keeps it.
"""

from __future__ import annotations

import errno
import os
import threading
from types import ModuleType

from memwatch._errors import Error
from memwatch._typing import TYPE_CHECKING, Any

missing: dict[str, str] = {}
"""Why a part is not there: "native", "exporter", "recorder"."""

# What Debian calls the package that has a library.
_DEBIAN = {
    "libmicrohttpd": "libmicrohttpd12",
    "libcjson": "libcjson1",
    "libsqlite3": "libsqlite3-0",
    "libdw": "libdw1",
}


def _why_not_built(name: str) -> str:
    """What stood in the way when the package was built: see setup.py. Or it was built for others than this Python."""
    try:
        from memwatch._built import MISSING as why
    except ImportError:
        why = {}
    if name in why:
        return f"not built: {why[name]}"
    module = "_core." if name == "core" else f"_core_{name}."
    files = [file for file in os.listdir(os.path.dirname(__file__)) if file.startswith(module) and file.endswith(".so")]
    others = sorted(file.split(".")[1] for file in files)
    return f"not built for this Python, but for {', '.join(others)}" if others else "not built"


def _why_not_loaded(name: str, error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return _why_not_built(name)
    library = str(error).partition(".so")[0]
    remedy = f" (on Debian: apt-get install {_DEBIAN[library]})" if library in _DEBIAN else ""
    return f"{error}{remedy}"


def _warn(sentence: str) -> None:
    import warnings  # here, because all is well as a rule

    warnings.warn(f"memwatch {sentence}", RuntimeWarning, stacklevel=5)


if TYPE_CHECKING:
    from memwatch import _core as core
    from memwatch import _core_exporter, _core_recorder
else:

    def _load() -> ModuleType:
        try:
            import memwatch._core as _core
        except ImportError as error:
            from memwatch import _pure

            missing["native"] = _why_not_loaded("core", error)
            _warn(f"runs without its C extension: {missing['native']}. It polls, and cannot say who wrote")
            return _pure
        _core.own_set(os.path.dirname(__file__), threading.__file__)
        if not _core.FRAMES:
            _warn(f"names no lines of Python: {_core.FRAMES_NOTE}")
        return _core

    def _load_part(name: str) -> Any:
        """The module, or None."""
        if "native" in missing:
            missing[name] = f"it needs the C extension: {missing['native']}"
            return None
        try:
            return __import__(f"memwatch._core_{name}", fromlist=["*"])  # without importlib, which brings warnings
        except ImportError as error:
            missing[name] = _why_not_loaded(name, error)
            _warn(f"runs without its {name}: {missing[name]}")
            return None

    core = _load()
    _core_exporter, _core_recorder = _load_part("exporter"), _load_part("recorder")


def exporter() -> type[_core_exporter.Exporter]:
    """The exporter's type; memwatch.Error says why there is none."""
    if "exporter" in missing:
        raise Error(errno.ENOTSUP, f"serve() has no exporter: {missing['exporter']}")
    return _core_exporter.Exporter


def recorder() -> type[_core_recorder.Recorder]:
    """The recorder's type; memwatch.Error says why there is none."""
    if "recorder" in missing:
        raise Error(errno.ENOTSUP, f"history_path has no recorder: {missing['recorder']}")
    return _core_recorder.Recorder


def backends() -> list[dict[str, Any]]:
    """The ways to notice a write that this machine has, best first: name, usable, chosen (never, here) and a note."""
    return core.probe()


__all__ = ["backends", "core", "exporter", "missing", "recorder"]
