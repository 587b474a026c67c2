"""The package's own exception, which the C extension raises too, and others' text in its sentences."""

from __future__ import annotations


class Error(OSError):
    """What memwatch could not do, with `errno` and a sentence that says what was wrong and what to do."""


def printable(text: str) -> str:
    """Text without what moves a cursor, rings, or turns the direction of reading."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
