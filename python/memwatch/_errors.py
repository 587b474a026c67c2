"""The package's own exception. A module of its own because the C extension raises it too."""

from __future__ import annotations


class Error(OSError):
    """What memwatch could not do, with `errno` and a sentence that says what was wrong and what to do."""
