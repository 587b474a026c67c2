"""A region's past: its versions, and who last wrote which of its elements."""

from __future__ import annotations

import math
import operator

from memwatch._decode import Layout
from memwatch._event import ChangeEvent
from memwatch._typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple, Optional, Union

if TYPE_CHECKING:
    from memwatch._native import core

    ElementRun = tuple[int, int, Optional[core.Event]]

Index = Union[int, slice, tuple[Union[int, slice], ...]]
RUNS_MAX = 4096
NANOSECONDS_FROM = 10**14  # a time above this is in nanoseconds: in seconds it would be in the year three million


class Blame(NamedTuple):
    """Elements that the same event wrote last: a slice, or a tuple that has one, or () for a scalar."""

    index: Any
    event: Optional[ChangeEvent]
    """None: not written since the oldest version that is kept."""


def blame(
    watcher: core.Watcher,
    region_id: int,
    layout: Layout,
    index: Optional[Index],
    convert: Callable[[core.Event], ChangeEvent],
) -> list[Blame]:
    """Who last wrote the elements that an index selects."""
    size = layout.item_bytes
    return [
        Blame(at, None if event is None else convert(event))
        for first, end in element_runs(layout, index)
        for offset, length, event in by_element(watcher.blame(region_id, first * size, (end - first) * size), size)
        for at in indices(layout, offset, offset + length)
    ]


def time_ns(time: float) -> int:
    """Seconds since the epoch, or nanoseconds as `event.timestamp_ns` has them, as nanoseconds."""
    return int(time) if time > NANOSECONDS_FROM else int(time * 1_000_000_000)


def element_runs(layout: Layout, index: Optional[Index]) -> list[tuple[int, int]]:
    """The positions in memory order that an index selects, as runs (first, end)."""
    shape = layout.shape
    selected = () if index is None else index if isinstance(index, tuple) else (index,)
    if len(selected) > len(shape):
        raise IndexError(f"{len(selected)} indices for {len(shape)} dimensions")
    ranges = [_range(extent, at) for extent, at in zip(shape, selected)]
    ranges += [range(extent) for extent in shape[len(selected) :]]
    if layout.fortran_order:
        ranges.reverse()
    extents = tuple(reversed(shape)) if layout.fortran_order else shape
    runs: list[tuple[int, int]] = []
    for begin, end in _runs(ranges, extents):
        if runs and runs[-1][1] == begin:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((begin, end))
        if len(runs) > RUNS_MAX:
            raise ValueError(
                f"this index selects more than {RUNS_MAX} separate runs of memory: ask for fewer at a time"
            )
    return runs


def _position(at: Any) -> int:
    try:
        return operator.index(at)
    except TypeError:
        raise TypeError(f"an index is made of integers and slices, not of {type(at).__name__}") from None


def _range(extent: int, at: Union[int, slice]) -> range:
    if isinstance(at, slice):
        chosen = range(extent)[at]
        return chosen if chosen.step > 0 else chosen[::-1]
    at = _position(at)
    position = at + extent if at < 0 else at
    if not 0 <= position < extent:
        raise IndexError(f"index {at} is out of range for {extent} elements")
    return range(position, position + 1)


def _runs(ranges: list[range], extents: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The selected positions as runs, the last range fastest."""
    if not ranges:
        yield 0, 1
        return
    stride, inner = math.prod(extents[1:]), ranges[1:]
    if all(len(chosen) == extent for chosen, extent in zip(inner, extents[1:])) and ranges[0].step == 1:
        if ranges[0]:
            yield ranges[0].start * stride, ranges[0].stop * stride
        return
    for at in ranges[0]:
        for begin, end in _runs(inner, extents[1:]):
            yield at * stride + begin, at * stride + end


def by_element(runs: list[tuple[int, int, Optional[core.Event]]], size: int) -> list[ElementRun]:
    """Runs of bytes as runs of elements (first, count, event): an element's newest byte tells who wrote it."""
    result: list[ElementRun] = []
    for offset, length, event in runs:
        first, last = offset // size, (offset + length - 1) // size
        if result and result[-1][0] + result[-1][1] > first:  # this run begins inside the element before
            at, count, other = result.pop()
            if count > 1:
                result.append((at, count - 1, other))
            if event is None or (other is not None and other.seq > event.seq):
                result.append((first, 1, other))
                first += 1
        if first <= last:
            result.append((first, last - first + 1, event))
    return result


def indices(layout: Layout, first: int, end: int) -> Iterator[Any]:
    """A run of positions as an index or several: one for each line along the dimension that runs fastest."""
    if not layout.shape:
        yield ()
        return
    along = layout.shape[0] if layout.fortran_order else layout.shape[-1]
    while first < end:
        stop = min(end, first - first % along + along)
        at = layout.index(first)
        if len(at) == 1:
            yield slice(first, stop)
        elif layout.fortran_order:
            yield (slice(at[0], at[0] + stop - first), *at[1:])
        else:
            yield (*at[:-1], slice(at[-1], at[-1] + stop - first))
        first = stop
