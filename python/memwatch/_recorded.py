"""Reads a recording back: runs, regions, events and values of a process that may be gone.

Needs the standard library alone. The tables are described in docs/recording.md.
"""

from __future__ import annotations

import errno
import fnmatch
import os
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, Union, cast

from memwatch import _check
from memwatch._decode import Element, Layout, elements
from memwatch._errors import Error
from memwatch._event import ChangeEvent
from memwatch._history import time_ns
from memwatch._recording_file import RecordingFile
from memwatch._recording_rows import Reader, StoredEvent, Variable

if TYPE_CHECKING:
    from memwatch._native import core


@dataclass(frozen=True)
class Run:
    """One recorder's time with a file. Its events have a numbering of their own."""

    run: int
    epoch: int
    pid: int
    program: str
    host: str
    start_ns: int
    end_ns: int
    """0: it goes on, or the process ended without closing its watcher; then `last_commit_ns` tells how far it came."""
    last_commit_ns: int
    oldest_seq: int
    """Of the events that are kept; 0: none."""
    newest_seq: int
    events_written: int
    events_evicted: int
    events_missed: int
    live: bool
    """A recorder writes it now."""
    version: str
    """Of the memwatch that recorded."""


@dataclass(frozen=True)
class RecordedRegion:
    """A region as its last recorded event left it."""

    run: int
    id: int
    name: str
    format: str
    size_bytes: int
    item_bytes: int
    shape: tuple[int, ...]
    fortran_order: bool
    values: str
    first_seq: int
    last_seq: int
    last_time_ns: int
    oldest_value_seq: Optional[int]
    """The oldest seq for which `value_at` has its value; None: for none."""

    @property
    def layout(self) -> Layout:
        """How its bytes read."""
        return Layout(self.format, self.item_bytes or 1, self.shape, self.fortran_order)


class RecordedEvent(ChangeEvent):
    """A ChangeEvent that was read back. Its values are read when they are asked for, while the History is open."""

    __slots__ = ("_record", "run")

    def __init__(self, stored: StoredEvent) -> None:
        super().__init__(cast("core.Event", stored))
        self._record = stored
        self.run: int = stored.run

    @property
    def old(self) -> Any:
        """The value before, decoded. None when it is not known."""
        return self._side(False)

    @property
    def new(self) -> Any:
        """The value after, decoded. None when it is not known."""
        return self._side(True)

    def _side(self, after: bool) -> Any:
        data = None if self.kind == "lost" else self._record.side(after)
        return None if data is None else decoded(self._read_by(), data)

    def _elements(self, stored: Callable[[Optional[str], int], Optional[bytes]]) -> Iterator[Element]:
        layout, pieces = self._read_by(), self._record.pieces
        if layout.is_bytes or not pieces:
            return iter(())

        def read(at: int, to: int) -> Optional[tuple[bytes, bytes]]:
            for offset, old, new in pieces:
                if offset <= at and to <= offset + len(old):
                    return old[at - offset : to - offset], new[at - offset : to - offset]
            old_value, new_value = self._record.side(False), self._record.side(True)
            return None if old_value is None or new_value is None else (old_value[at:to], new_value[at:to])

        return elements(layout, [(offset, len(old)) for offset, old, _ in pieces], read)


class History:
    """An open recording. A context manager; its methods may be used from any thread, but not after a fork.

    `run` is a run's number; without one `events` reads all runs, and the others look in the newest that has the name.
    Times are in seconds since the epoch, or in nanoseconds as `event.timestamp_ns` has them.
    """

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        self.path = _check.path(path, "path")
        self._file = RecordingFile(self.path)
        self._reader = Reader(self._file)

    @property
    def runs(self) -> list[Run]:
        """The oldest first."""
        rows = self._file.rows(
            "SELECT run, epoch, pid, program, host, start_ns, coalesce(end_ns, 0), last_commit_ns, "
            "coalesce((SELECT min(id) FROM changes WHERE id > before_id AND id <= newest_id) - seq_offset, 0), "
            "coalesce((SELECT max(id) FROM changes WHERE id > before_id AND id <= newest_id) - seq_offset, 0), "
            "events_written, events_evicted, events_missed, end_ns IS NULL, version FROM runs ORDER BY run"
        )
        try:
            runs = [Run(*row[:1], int(row[1], 16), *row[2:13], bool(row[13]), *row[14:]) for row in rows]  # type: ignore[call-arg]
        except (TypeError, ValueError):
            raise Error(errno.EBADMSG, f"{self.path} is damaged: a run's row makes no sense") from None
        newest = runs[-1].run if runs else 0
        return [
            Run(**{**vars(run), "live": run.live and run.run == newest and self._file.is_written()}) for run in runs
        ]

    @property
    def regions(self) -> list[RecordedRegion]:
        """Every region that changed, run by run."""
        return [self._region(variable) for variable in self._reader.variables()]

    def regions_of(self, run: int) -> list[RecordedRegion]:
        """One run's regions."""
        self._check_run(run)
        return [self._region(variable) for variable in self._reader.variables("WHERE run = ?", run)]

    def _region(self, variable: Variable) -> RecordedRegion:
        last = self._file.row("SELECT time_ns FROM changes WHERE id = ?", variable.last_id)
        known = variable.values == "full" and (
            variable.whole
            or self._file.row("SELECT 1 FROM bases WHERE variable = ? AND value IS NOT NULL", variable.variable)
        )
        offset = variable.seq_offset
        return RecordedRegion(
            variable.run, variable.region_id, variable.name, variable.format, variable.size_bytes, variable.item_bytes,
            variable.shape, variable.fortran_order, variable.values, variable.first_id - offset,
            variable.last_id - offset, last[0] if last else variable.kept_ns,
            variable.floor - offset if known else None,
        )  # fmt: skip

    def _check_run(self, run: int) -> int:
        """The run's seq_offset."""
        found = self._file.row("SELECT seq_offset FROM runs WHERE run = ?", run)
        if found is None:
            kept = ", ".join(str(row[0]) for row in self._file.rows("SELECT run FROM runs ORDER BY run")) or "none"
            raise KeyError(f"there is no run {run} in {self.path}: it has {kept}")
        return int(found[0])

    def events(
        self,
        name: Optional[str] = None,
        *,
        since: Optional[float] = None,
        until: Optional[float] = None,
        run: Optional[int] = None,
        after: int = 0,
    ) -> Iterator[RecordedEvent]:
        """Reads events, the oldest first: those whose region's name matches a glob, written from `since` to `until`.

        `after` is a seq, with `run`: the events behind it. Of a recording that is being written, up to the last commit.
        """
        condition, bounds = "id > ?", []
        position = after + self._check_run(run) if run else 0
        if run:
            low, high = self._file.rows("SELECT before_id, newest_id FROM runs WHERE run = ?", run)[0]
            condition, position = condition + " AND id <= ?", max(position, low)
            bounds.append(high)
        for bound, operator in ((since, ">="), (until, "<=")):
            if bound is not None:
                condition += f" AND time_ns {operator} ?"
                bounds.append(time_ns(bound))
        return self._events(condition, position, bounds, name)

    def _events(self, condition: str, position: int, bounds: list[int], name: Optional[str]) -> Iterator[RecordedEvent]:
        while True:
            batch = self._reader.events(condition, position, *bounds)
            for stored in batch:
                if name is None or fnmatch.fnmatchcase(stored.name, name):
                    yield RecordedEvent(stored)
            if not batch:
                return
            position = batch[-1].id

    def history(self, name: str, *, run: Optional[int] = None) -> list[RecordedEvent]:
        """The events of the regions that had this name (no glob), the oldest first."""
        return [event for event in self.events(run=run) if event.variable_name == name]

    def value_at(
        self,
        name: str,
        *,
        seq: Optional[int] = None,
        time: Optional[float] = None,
        run: Optional[int] = None,
        raw: bool = False,
    ) -> Any:
        """What a variable held after the event `seq`, at a time, or (with neither) last.

        Bytes; with a format what that says: a number, an array (NumPy's, where that is installed, else a list), a
        structure. `raw`: bytes always. None when it had no value then. KeyError when it is not kept; it says why, and
        names the oldest that is.
        """
        if seq is not None and time is not None:
            raise TypeError("value_at() takes seq or time, not both")
        if run is not None:
            self._check_run(run)
        with self._file.moment():
            named = self._reader.variables("WHERE name = CAST(? AS TEXT)", name.encode("utf-8", "surrogateescape"))
            found = [each for each in named if run is None or each.run == run]
            if not found:
                raise KeyError(f'no region named "{name}" is recorded')
            variable, until = self._find(found, seq, None if time is None else time_ns(time))
            data = self._reader.value(variable, until)
        if raw or data is None:
            return data
        return decoded(self._region(variable).layout, data)

    def _find(self, found: list[Variable], seq: Optional[int], at_ns: Optional[int]) -> tuple[Variable, int]:
        """Which of the variables of a name had it then, and its last event then."""
        if at_ns is not None:
            then = [each for each in found if each.since_ns <= at_ns]
            variable = then[-1] if then else found[0]
            last = self._file.row(
                "SELECT max(id) FROM changes WHERE variable = ? AND time_ns <= ?", variable.variable, at_ns
            )
            is_kept = then and at_ns >= variable.kept_ns
            return variable, (last[0] if last and last[0] else variable.floor) if is_kept else -1
        newest = [each for each in found if each.run == found[-1].run]
        if seq is None:
            return newest[-1], max(newest[-1].last_id, newest[-1].floor)
        until = seq + newest[-1].seq_offset
        then = [each for each in newest if each.since_id < until or each.first_id <= until]
        then = then or [each for each in newest if each.since_id <= until] or newest[:1]
        return then[-1], until

    def check(self) -> list[str]:
        """What is wrong with the file, a sentence each; [] when nothing is."""
        return self._file.check()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    def close(self) -> None:
        """Twice is allowed."""
        self._file.close()

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<History {self.path!r}{', closed' if self.closed else ''}>"


def open_history(path: Union[str, os.PathLike[str]]) -> History:
    """Opens what a watcher with `history_path=` recorded, also while it does. memwatch.Error: that is no recording."""
    return History(path)


def decoded(layout: Layout, data: bytes) -> Any:
    """A value; an array where NumPy is installed."""
    if layout.is_bytes or len(data) % layout.item_bytes:
        return data
    array = layout.array(data, _numpy()) if layout.shape else None
    return layout.value(data) if array is None else array


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy
