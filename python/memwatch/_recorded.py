"""Reads a recording back: runs, regions, events and values of a process that may be gone.

Needs the standard library alone. The tables are described in docs/recording.md.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple, Optional, Union, cast

from memwatch._decode import Element, Layout, elements
from memwatch._errors import Error
from memwatch._event import ChangeEvent
from memwatch._history import time_ns
from memwatch._recording_file import RecordingFile

if TYPE_CHECKING:
    from memwatch._native import core

BATCH = 256
INLINE_BYTES = 4096  # up to this many an event has the values themselves
PREVIEW_BYTES = 256
CHANGES_MAX = 64
KEPT_VALUES = 8  # of variables: where the next value is read on from


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


class _Variable(NamedTuple):
    """A row of `variables`, with what its run says."""

    variable: int
    run: int
    region_id: int
    name: str
    size_bytes: int
    item_bytes: int
    format: str
    shape: tuple[int, ...]
    fortran_order: bool
    values: str
    whole: bool
    since_id: int
    since_ns: int
    first_id: int
    last_id: int
    seq_offset: int
    kept_id: int
    kept_ns: int
    byte_order: Any

    @property
    def floor(self) -> int:
        """No value is known before this event."""
        return max(self.since_id, self.kept_id)


_VARIABLE = (
    "SELECT variable, run, region_id, name, size_bytes, item_bytes, coalesce(format, ''), shape, fortran_order, "
    '"values", whole, since_id, since_ns, first_id, last_id, seq_offset, coalesce(kept_id, 0), coalesce(kept_ns, 0), '
    "byte_order FROM variables JOIN runs USING (run) "
)


def _variable(row: tuple[Any, ...]) -> _Variable:
    try:
        variable = _Variable(*row)._replace(
            shape=tuple(int(extent) for extent in json.loads(row[7])), fortran_order=bool(row[8])
        )
        assert variable.size_bytes >= 0 and variable.item_bytes >= 0 and variable.byte_order in ("little", "big")
        return variable
    except (TypeError, ValueError, AssertionError):
        raise Error(errno.EBADMSG, "the recording is damaged: a variable's row makes no sense") from None


def _bytes_of(cell: Any, variable: _Variable) -> Optional[bytes]:
    """The value in a cell of a variable whose rows have it whole: a number, or what an adapter showed."""
    if cell is None or isinstance(cell, bytes):
        return cell
    if not variable.format:
        return str(cell).encode()
    prefix, letter, size = variable.format[:1], variable.format[-1], variable.item_bytes
    order = {"<": "little", ">": "big", "!": "big"}.get(prefix, variable.byte_order)
    if letter in "efd":
        if isinstance(cell, str):  # a NaN: all but the usual one with its bits
            bits = cell[4:] or {2: "7e00", 4: "7fc00000"}.get(size, "7ff8000000000000")
            return int(bits, 16).to_bytes(size, order)
        return struct.pack((">" if order == "big" else "<") + letter, cell)
    return int(cell).to_bytes(size, order, signed=letter in "bhilqn")


Piece = tuple[int, bytes, bytes]  # offset, old, new


def _ranges(pieces: list[Piece]) -> list[tuple[int, int]]:
    """What differs in the pieces, as an event lists it: exact, but that the last range spans the rest."""
    ranges: list[tuple[int, int]] = []
    for offset, old, new in pieces:
        for at, (before, after) in enumerate(zip(old, new), offset):
            if before == after:
                continue
            if ranges and (sum(ranges[-1]) == at or len(ranges) == CHANGES_MAX):
                ranges[-1] = (ranges[-1][0], at + 1 - ranges[-1][0])
            else:
                ranges.append((at, 1))
    return ranges


_EVENT = (
    "SELECT id, variable, time_ns, delay_ns, address, kind, merged, old, new, ip, thread_id, thread_name, attribution, "
    'reason, backend, location, file, function, line, symbol, object, "offset", native_file, native_line '
    "FROM changes LEFT JOIN writers USING (writer) LEFT JOIN locations USING (location) "
)


class _Stored:
    """What stands for core.Event in a RecordedEvent. What takes a query of its own is read when it is asked for."""

    def __init__(self, reader: _Reader, row: tuple[Any, ...], variable: _Variable) -> None:
        self.reader, self.variable = reader, variable
        self.id, _, self.time_ns, delay_ns, address, kind, self.merged, self.old, self.new, *where = row
        ip, thread_id, thread_name, attribution, reason, backend, self._location, *self._frame, symbol, object_ = where[
            :12
        ]
        self.seq = self.id - variable.seq_offset
        self.run, self.region_id, self.name = variable.run, variable.region_id, variable.name
        self.detected_ns = self.time_ns + (delay_ns or 0)
        self.kind = "lost" if kind else "change"
        self.fault_ip, self.fault_address = ip or 0, address or 0
        self.thread_id, self.thread_name = thread_id or 0, thread_name or ""
        self.attribution, self.reason, self.backend = attribution or "none", reason or "", backend or ""
        self.symbol, self.object = symbol or "", object_ or ""
        self.offset, self.native_file, self.native_line = where[12] or 0, where[13] or "", where[14] or 0
        self.values, self.format, self.item_bytes = variable.values, variable.format, variable.item_bytes
        self.shape, self.fortran_order = variable.shape, variable.fortran_order
        self.storage_key_old = self.storage_key_new = None

    @property
    def is_posted(self) -> bool:
        return self.variable.whole and not self.format

    @property
    def size_bytes(self) -> int:
        return len(_bytes_of(self.new, self.variable) or b"") if self.is_posted else self.variable.size_bytes

    @property
    def frames(self) -> list[tuple[str, str, int]]:
        file, function, line = self._frame
        if file is None and function is None:
            return []
        rest = self.reader.file.rows(
            "SELECT file, function, line FROM frames WHERE location = ? ORDER BY depth", self._location
        )
        return [(each[0] or "", each[1] or "", each[2] or 0) for each in [(file, function, line), *rest]]

    def side(self, after: bool) -> Optional[bytes]:
        """The whole value before or after; None when it is not kept."""
        if self.variable.whole:
            return _bytes_of(self.new if after else self.old, self.variable)
        try:
            return self.reader.value(self.variable, self.id if after else self.id - 1)
        except (KeyError, Error):
            return None

    def _inline(self, after: bool) -> Optional[bytes]:
        return None if self.kind == "lost" or self.size_bytes > INLINE_BYTES else self.side(after)

    @property
    def old_value(self) -> Optional[bytes]:
        return self._inline(False)

    @property
    def new_value(self) -> Optional[bytes]:
        return self._inline(True)

    @property
    def pieces(self) -> list[Piece]:
        """What was written."""
        if self.variable.whole:
            old, new = self.side(False), self.side(True)
            return [] if self.is_posted or old is None or new is None else [(0, old, new)]
        return cast(
            "list[Piece]",
            self.reader.file.rows('SELECT "offset", old, new FROM patches WHERE id = ? ORDER BY "offset"', self.id),
        )

    def _details(self) -> Optional[tuple[Any, ...]]:
        return self.reader.file.row(
            "SELECT changed_bytes, ranges, old_preview, new_preview, old_hash, new_hash FROM details WHERE id = ?",
            self.id,
        )

    @property
    def changes(self) -> list[tuple[int, int]]:
        details = self._details()
        return _ranges(self.pieces) if details is None else [(at, n) for at, n in json.loads(details[1])]

    @property
    def changed_bytes(self) -> int:
        details = self._details()
        if details is not None:
            return int(details[0])
        return sum(before != after for _, old, new in self.pieces for before, after in zip(old, new))

    def _preview(self, after: bool) -> Optional[bytes]:
        details = self._details()
        if details is not None and self.values != "full":
            return cast("Optional[bytes]", details[3 if after else 2])
        value = None if self.kind == "lost" else self.side(after)
        return None if value is None else value[:PREVIEW_BYTES]

    @property
    def old_preview(self) -> Optional[bytes]:
        return self._preview(False)

    @property
    def new_preview(self) -> Optional[bytes]:
        return self._preview(True)

    def _hash(self, column: int) -> Optional[int]:
        details = self._details() if self.values == "hash" else None
        return None if details is None or details[column] is None else int(details[column], 16)

    @property
    def old_hash(self) -> Optional[int]:
        return self._hash(4)

    @property
    def new_hash(self) -> Optional[int]:
        return self._hash(5)


class RecordedEvent(ChangeEvent):
    """A ChangeEvent that was read back. Its values are read when they are asked for, while the History is open."""

    __slots__ = ("_record", "run")

    def __init__(self, stored: _Stored) -> None:
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


class _Reader:
    """Variables and values of an open file."""

    def __init__(self, file: RecordingFile) -> None:
        self.file = file
        self._variables: dict[int, _Variable] = {}
        self._values: dict[int, tuple[int, bytearray]] = {}  # by variable: as it was after that event
        self._lock = threading.RLock()

    def variables(self, condition: str = "", *parameters: Any) -> list[_Variable]:
        """In the order in which they were first written."""
        return [_variable(row) for row in self.file.rows(f"{_VARIABLE}{condition} ORDER BY variable", *parameters)]

    def events(self, condition: str, *parameters: Any) -> list[RecordedEvent]:
        rows = self.file.rows(f"{_EVENT}WHERE {condition} ORDER BY id LIMIT {BATCH}", *parameters)
        seen = {row[1]: row[0] for row in rows}  # an entry that is older than the event says too little
        stale = [
            number
            for number, id in seen.items()
            if number not in self._variables or self._variables[number].last_id < id
        ]
        if stale:
            listed = ", ".join(str(int(number)) for number in stale)
            self._variables.update((each.variable, each) for each in self.variables(f"WHERE variable IN ({listed})"))
        return [RecordedEvent(_Stored(self, row, self._variables[row[1]])) for row in rows if row[1] in self._variables]

    def _lost_between(self, variable: _Variable, after: int, until: int) -> bool:
        """Whether events after one, up to another, were missed."""
        return bool(
            self.file.rows(
                "SELECT 1 FROM losses WHERE run = ? AND last_seq > ? AND first_seq <= ? LIMIT 1",
                variable.run,
                after - variable.seq_offset,
                until - variable.seq_offset,
            )
        )

    def value(self, variable: _Variable, until: int) -> Optional[bytes]:
        """The value after event `until`, if that is known; else KeyError. None: it had no value."""
        if variable.values != "full":
            raise Error(
                errno.EACCES, f'the policy of "{variable.name}" is {variable.values}: its values are not recorded'
            )
        if until < variable.floor:
            oldest = variable.floor - variable.seq_offset
            raise KeyError(f'no value of "{variable.name}" that old is kept; the oldest is after event {oldest}')
        with self._lock:
            return self._whole(variable, until) if variable.whole else self._patched(variable, until)

    def _unknown(self, variable: _Variable, until: int) -> KeyError:
        return KeyError(
            f'the value of "{variable.name}" after event {until - variable.seq_offset} is not known: events before it '
            "were missed, or there was no room for its whole value"
        )

    def _whole(self, variable: _Variable, until: int) -> Optional[bytes]:
        at, number = min(until, variable.last_id), variable.variable
        last = self.file.row(
            "SELECT id, new FROM changes WHERE variable = ? AND id <= ? AND id >= ? ORDER BY id DESC LIMIT 1",
            number, at, variable.first_id,
        )  # fmt: skip
        if last and not self._lost_between(variable, last[0], until):
            return _bytes_of(last[1], variable)
        if until < variable.last_id:
            later = self.file.row(
                "SELECT id, old FROM changes WHERE variable = ? AND id > ? ORDER BY id LIMIT 1", number, until
            )
            if later and not self._lost_between(variable, until, later[0]):
                return _bytes_of(later[1], variable)
        base = None if last else self.file.row(
            "SELECT id, value FROM bases WHERE variable = ? AND id <= ? ORDER BY id DESC LIMIT 1", number, until
        )  # fmt: skip
        if base and not self._lost_between(variable, base[0], until):
            return _bytes_of(base[1], variable)
        raise self._unknown(variable, until)

    def _base(self, variable: _Variable, until: int) -> tuple[int, Optional[bytes]]:
        """The newest whole value up to an event, and after which it is. The first is as old as the watch."""
        base = self.file.row(
            "SELECT id, value FROM bases WHERE variable = ? AND id <= ? ORDER BY id DESC LIMIT 1",
            variable.variable,
            until,
        ) or self.file.row("SELECT id, value FROM bases WHERE variable = ? ORDER BY id LIMIT 1", variable.variable)
        if base is None or (base[0] > until and base[0] >= variable.first_id):
            raise self._unknown(variable, until)
        if base[1] is not None and (not isinstance(base[1], bytes) or len(base[1]) != variable.size_bytes):
            raise Error(errno.EBADMSG, f'the recording is damaged: a value of "{variable.name}" has another size')
        return base[0], base[1]

    def _patched(self, variable: _Variable, until: int) -> bytes:
        base_id, base = self._base(variable, until)
        if base is None or self._lost_between(variable, max(base_id, variable.floor), until):
            raise self._unknown(variable, until)
        at, value = self._values.get(variable.variable, (-1, bytearray()))
        if not base_id <= at <= until or at < variable.kept_id:
            at, value = base_id, bytearray(base)
        patches = self.file.rows(
            'SELECT "offset", patches.new FROM changes CROSS JOIN patches USING (id) WHERE variable = ? AND id > ? '
            "AND id <= ? ORDER BY id", variable.variable, at, min(until, variable.last_id),
        )  # fmt: skip
        for offset, new in patches:
            if not isinstance(new, bytes) or not 0 <= offset <= len(value) - len(new):
                raise Error(errno.EBADMSG, f'the recording is damaged: a change of "{variable.name}" does not fit')
            value[offset : offset + len(new)] = new
        self._values.pop(variable.variable, None)
        self._values[variable.variable] = (max(at, min(until, variable.last_id)), value)
        while len(self._values) > KEPT_VALUES:
            del self._values[next(iter(self._values))]
        return bytes(value)


class History:
    """An open recording. A context manager; its methods may be used from any thread, but not after a fork.

    `run` is a run's number; without one `events` reads all runs, and the others look in the newest that has the name.
    Times are in seconds since the epoch, or in nanoseconds as `event.timestamp_ns` has them.
    """

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        self.path = os.fspath(path)
        self._file = RecordingFile(self.path)
        self._reader = _Reader(self._file)

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

    def _region(self, variable: _Variable) -> RecordedRegion:
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
            for event in batch:
                if name is None or fnmatch.fnmatchcase(event.variable_name, name):
                    yield event
            if not batch:
                return
            position = batch[-1]._record.id

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
            found = [each for each in self._reader.variables("WHERE name = ?", name) if run is None or each.run == run]
            if not found:
                raise KeyError(f'no region named "{name}" is recorded')
            variable, until = self._find(found, seq, None if time is None else time_ns(time))
            data = self._reader.value(variable, until)
        if raw or data is None:
            return data
        return decoded(self._region(variable).layout, data)

    def _find(self, found: list[_Variable], seq: Optional[int], at_ns: Optional[int]) -> tuple[_Variable, int]:
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
