"""What watching names costs the code that runs: each row beside a bare loop in the same run.

    python bench/trace_bench.py [--json]

A loop in code that does not touch the watched name, loops in code that does, and before Python 3.12 the same loops
under a trace function that does nothing. A ratio is the median of those of several rounds; within a round the bare
loop runs directly before the watched one, so that a busy machine disturbs both, and times are the thread's, not the
clock's. Exit status 1 when a limit is passed.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from memwatch._scope import attribute_target, name_target
from memwatch._trace.adapter import TraceAdapter
from memwatch._trace.targets import ItemTarget, Target
from memwatch.testing import Recorder

N_ITERATIONS = 100_000
N_ROUNDS = 9
MONITORED = sys.version_info >= (3, 12)

counter = 0
unrelated = 0


def untouched(n: int) -> int:
    """Binds other names than the watched one."""
    total = 0
    for i in range(n):
        square = i * i
        total = total + square
    return total


def mentions(n: int) -> int:
    """Binds the watched name once, outside of its loop."""
    global counter
    counter = 0
    total = 0
    for i in range(n):
        square = i * i
        total = total + square
    return total


def binds_global(n: int) -> int:
    """Binds the watched global in each round, to the value it has."""
    global counter
    total = 0
    for i in range(n):
        counter = 0
        square = i * i
        total = total + square
    return total


def binds_local(n: int) -> int:
    """Binds a local in each round, to the value it has; watched through `start`."""
    watched = 0
    if begin is not None:
        begin(sys._getframe())
    started = time.thread_time()
    total = 0
    for i in range(n):
        watched = 0
        square = i * i
        total = total + square
    durations.append(time.thread_time() - started)
    return total + watched


def binds_alone(n: int) -> int:
    """A loop that does nothing but bind the watched global."""
    global counter
    for _ in range(n):
        counter = 0
    return counter


def binds_attribute(n: int) -> int:
    """Sets the watched attribute in each round, to the value it has."""
    total = 0
    for i in range(n):
        thing.count = 0
        square = i * i
        total = total + square
    return total


def binds_item(n: int) -> int:
    """Sets the watched item of a dict in each round, to the value it has."""
    total = 0
    for i in range(n):
        mapping["count"] = 0
        square = i * i
        total = total + square
    return total


def stores_inside(n: int) -> int:
    """Stores into the watched list in each round, what is there."""
    total = 0
    for i in range(n):
        items[1] = 2
        square = i * i
        total = total + square
    return total


def changes_global(n: int) -> int:
    """Changes the watched global in each round: an event each."""
    global counter
    for i in range(n):
        counter = i + 1
    return counter


class Thing:
    """Has the watched attribute."""

    count = 0


thing = Thing()
thing.count = 0
mapping = {"count": 0, "other": 1}
items = [1, 2, 3]

begin: Any = None
durations: list[float] = []


class Row(NamedTuple):
    name: str
    bare_ns: float
    watched_ns: float
    ratio: float
    limit: float
    against: str


def timed(function: Callable[[int], object], n: int = N_ITERATIONS) -> float:
    """Seconds; of the loop alone where the function measures it itself."""
    durations.clear()
    started = time.thread_time()
    function(n)
    return durations[0] if durations else time.thread_time() - started


def empty_tracer(frame: FrameType, event: str, arg: object) -> Any:
    return empty_tracer


def traced(function: Callable[[int], object]) -> float:
    """Under a trace function that does nothing."""
    sys.settrace(empty_tracer)
    try:
        return timed(function)
    finally:
        sys.settrace(None)


def target_of(function: Callable[[int], object]) -> Target:
    """What the function binds."""
    if function is binds_attribute:
        return attribute_target(thing, "count")
    if function is binds_item:
        return ItemTarget(mapping, "count", frozenset(("mapping",)))
    return name_target(sys._getframe(), "items" if function is stores_inside else "counter")


def watched(function: Callable[[int], object], n: int = N_ITERATIONS) -> float:
    """With what the function binds watched; a local when the function offers its frame."""
    global begin
    adapter, recorder = TraceAdapter(sweep_s=None), Recorder()
    adapter.bind(recorder)
    if function is binds_local:
        begin = lambda frame: adapter.track(name_target(frame, "watched"), {"name": "watched"})  # noqa: E731
    else:
        adapter.track(target_of(function), {"name": "watched"})
    function(100)
    try:
        return timed(function, n)
    finally:
        begin = None
        adapter.close()


def row(name: str, function: Callable[[int], object], bare: Callable[..., float], limit: float, against: str) -> Row:
    rounds = [(bare(function), watched(function)) for _ in range(N_ROUNDS)]
    ratio = statistics.median(after / before for before, after in rounds)
    bare_s, watched_s = (min(column) for column in zip(*rounds))
    return Row(name, bare_s / N_ITERATIONS * 1e9, watched_s / N_ITERATIONS * 1e9, ratio, limit, against)


def rows() -> list[Row]:
    bare, against, limit = (timed, "bare", 6.0) if MONITORED else (traced, "empty settrace", 1.5)
    return [
        row("code that does not touch the name", untouched, bare, 1.05 if MONITORED else limit, against),
        row("code that binds it outside the loop", mentions, bare, limit, against),
        row("loop that binds a global, same value", binds_global, bare, limit, against),
        row("loop that does nothing else", binds_alone, bare, limit, against),
        row("loop that binds a local, same value", binds_local, bare, limit, against),
        row("loop that sets an attribute, same value", binds_attribute, bare, limit, against),
        row("loop that sets an item, same value", binds_item, bare, limit, against),
        row("loop that stores into a short list, same value", stores_inside, bare, limit, against),
    ]


def main() -> int:
    measured = rows()
    n_events = 5_000
    event_us = min(watched(changes_global, n_events) for _ in range(3)) / n_events * 1e6
    if "--json" in sys.argv[1:]:
        print(json.dumps({"rows": [row._asdict() for row in measured], "event_us": event_us}))
    else:
        print(f"Python {platform.python_version()}, ns a round\n")
        print("| loop | without | watched | ratio | limit |\n|---|---|---|---|---|")
        for name, bare_ns, watched_ns, ratio, limit, against in measured:
            print(f"| {name} | {bare_ns:.0f} ({against}) | {watched_ns:.0f} | {ratio:.2f} | {limit} |")
        print(f"\nAn event, from the assignment to the log's door: {event_us:.1f} us")
    return int(any(row.ratio > row.limit for row in measured))


if __name__ == "__main__":
    sys.exit(main())
