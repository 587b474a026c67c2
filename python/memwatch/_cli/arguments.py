"""What several commands take on their lines: each a type for argparse, which says what is wrong in a sentence.

DESIGN  Whatever can be refused by looking at it alone is refused here, with the status of misuse and before anything
is done. What has to be tried first, as whether a port is free, ends a command with `Failure`.
"""

from __future__ import annotations

import argparse
import math
from typing import Callable, Sequence
from urllib.parse import urlsplit

from memwatch import _check


def port(text: str) -> int:
    """0 is any free one."""
    given = int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else -1
    try:
        _check.port(given)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: {_check.PORT}") from None
    return given


def address(text: str) -> tuple[str, int]:
    """[HOST:]PORT; without a host it is this machine's 127.0.0.1."""
    host, _, number = text.rpartition(":")
    return host.strip("[]") or "127.0.0.1", port(number)


def seconds(low: float, high: float) -> Callable[[str], float]:
    """What takes a number of seconds within these bounds."""

    def parse(text: str) -> float:
        try:
            given = float(text)
        except ValueError:
            given = math.nan
        if not low <= given <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {low:g} to {high:g}")
        return given

    return parse


def url(text: str, schemes: Sequence[str], example: str) -> str:
    """An address with one of the schemes, a host, and a port if any; checked, and as it was."""
    try:
        split = urlsplit(text)
        good = split.scheme in schemes and bool(split.hostname) and split.port != 0
    except ValueError:  # a port out of range, brackets that do not close
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is no address, such as {example}; a port is at most 65535")
    return text


def exporter(text: str) -> str:
    """The address of an exporter; without a scheme it is http."""
    return url(text if "://" in text else f"http://{text}", ("http", "https"), "http://127.0.0.1:10764/")


def target(text: str) -> str:
    """A process id, a service's name, or the address of an exporter."""
    return exporter(text) if "://" in text else text
