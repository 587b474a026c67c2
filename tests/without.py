"""A pytest plugin: memwatch without its extension, and without what Windows lacks: fork, most signals, some modules.

python -m pytest -p tests.without -p no:faulthandler tests/python/test_polling.py

What tests import for themselves stays.
"""

from __future__ import annotations

import builtins
import os
import signal
import warnings

MODULES = {"fcntl", "grp", "pwd", "resource", "syslog", "termios"}
OF_OS = ("fork", "forkpty", "register_at_fork", "getuid", "geteuid", "getgid", "getegid", "mkfifo", "O_NOFOLLOW")
OF_SIGNAL = ("pthread_kill", "pthread_sigmask", "sigwait", "sigpending", "alarm", "setitimer", "siginterrupt")
SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGHUP", "SIGTRAP", "SIGCHLD", "SIGPIPE")


def hide() -> None:
    """From now on none of it is there; memwatch says so when it is imported, once."""
    there = builtins.__import__

    def imported(name, globals=None, *arguments, **keywords):
        asks = (globals or {}).get("__name__", "")
        if name in MODULES and asks.startswith("memwatch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return there(name, globals, *arguments, **keywords)

    builtins.__import__ = imported
    for name in OF_OS:
        delattr(os, name)
    for name in (*OF_SIGNAL, *SIGNALS):
        delattr(signal, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import memwatch._native
    assert [str(warning.message) for warning in caught if "without its C extension" in str(warning.message)], caught
    assert not memwatch._native.core.NATIVE


def block(name: str) -> None:
    """The extension's modules cannot be imported."""
    import sys

    sys.modules[name] = None  # type: ignore[assignment]


for part in ("memwatch._core", "memwatch._core_exporter", "memwatch._core_recorder"):
    block(part)
hide()
