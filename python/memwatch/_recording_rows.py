"""The rows of a recording as events, variables and values.

DESIGN  A number's value stands in the event's row. Of other variables there is a whole value after some event (a base),
and what each event wrote (patches). What is not known is an error that says so, never a guess.
"""

from __future__ import annotations

import errno
import json
import struct
import threading
from typing import Any, Iterator, NamedTuple, Optional, cast

from memwatch._errors import Error
from memwatch._recording_file import RecordingFile

BATCH = 256
INLINE_BYTES = 4096  # up to this many an event has the values themselves
PREVIEW_BYTES = 256
EXCERPT_BYTES, EXCERPT_RUNS = 256, 16  # of the changed items behind it
CHANGES_MAX = 64
KEPT_VALUES = 8  # of variables: where the next value is read on from


class Variable(NamedTuple):
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


def _variable(row: tuple[Any, ...]) -> Variable:
    try:
        variable = Variable(*row)._replace(
            shape=tuple(int(extent) for extent in json.loads(row[7])), fortran_order=bool(row[8])
        )
        assert variable.size_bytes >= 0 and variable.item_bytes >= 0 and variable.byte_order in ("little", "big")
        return variable
    except (TypeError, ValueError, AssertionError):
        raise Error(errno.EBADMSG, "the recording is damaged: a variable's row makes no sense") from None


def bytes_of(cell: Any, variable: Variable) -> Optional[bytes]:
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


def _undone(value: bytes, pieces: list[Piece]) -> bytes:
    """The value before what was written."""
    before = bytearray(value)
    for offset, old, _ in pieces:
        before[offset : offset + len(old)] = old
    return bytes(before)


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
    'reason, backend, location, file, function, line, symbol, object, "offset", native_file, native_line, '
    "{libc_function} FROM changes LEFT JOIN writers USING (writer) LEFT JOIN locations USING (location) "
)


class StoredEvent:
    """What stands for core.Event when it was read back. What takes a query of its own is read when it is asked for."""

    def __init__(self, reader: Reader, row: tuple[Any, ...], variable: Variable) -> None:
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
        self.libc_function = where[15] or ""
        self.values, self.format, self.item_bytes = variable.values, variable.format, variable.item_bytes
        self.shape, self.fortran_order = variable.shape, variable.fortran_order
        self.storage_key_old = self.storage_key_new = None

    @property
    def is_posted(self) -> bool:
        return self.variable.whole and not self.format

    @property
    def size_bytes(self) -> int:
        return len(bytes_of(self.new, self.variable) or b"") if self.is_posted else self.variable.size_bytes

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
            return bytes_of(self.new if after else self.old, self.variable)
        try:
            with self.reader.file.moment():
                value = self.reader.value(self.variable, self.id)
                pieces = [] if after else self.pieces  # none: they are not known, or have left
                return value if after else _undone(value, pieces) if value and pieces else None
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

    @property
    def excerpt(self) -> list[Piece]:
        """What was written behind the preview of a value that is too large for an event, within the bounds of a live
        event's."""
        found: list[Piece] = []
        if self.kind == "lost" or self.values != "full" or self.size_bytes <= INLINE_BYTES:
            return found
        size, room = self.item_bytes or 1, EXCERPT_BYTES
        for offset, old, new in self._whole_items(size):
            skip = max(PREVIEW_BYTES // size * size - offset, 0)
            n = min(len(old) - skip, max(room // size, 0 if found else 1) * size)
            if n <= 0 and skip < len(old):
                break
            if n > 0 and n <= INLINE_BYTES and len(found) < EXCERPT_RUNS:
                found.append((offset + skip, old[skip : skip + n], new[skip : skip + n]))
                room -= n
        return found

    def _whole_items(self, size: int) -> Iterator[Piece]:
        """The pieces, with the rest of the items that they are parts of; what is not known any more is left out."""
        end = 0
        for offset, old, new in self.pieces:
            begin, stop = max(offset // size * size, end), -(-(offset + len(old)) // size) * size
            if begin < offset or stop > offset + len(old):
                before, after = self.side(False), self.side(True)
                if before is None or after is None:
                    continue
                old, new = before[begin:stop], after[begin:stop]
            if begin < stop:
                yield begin, old, new
            end = max(end, stop)

    def _details(self) -> Optional[tuple[Any, ...]]:
        row = self.reader.file.row(
            "SELECT changed_bytes, ranges, old_preview, new_preview, old_hash, new_hash FROM details WHERE id = ?",
            self.id,
        )
        if row is not None and not _makes_sense(row):
            raise Error(errno.EBADMSG, "the recording is damaged: the details of an event make no sense")
        return row

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


def _makes_sense(details: tuple[Any, ...]) -> bool:
    n_bytes, ranges, *previews, old_hash, new_hash = details
    try:
        numbers = [n_bytes, *(number for at, n in json.loads(ranges) for number in (at, n))]
        numbers += [int(each, 16) for each in (old_hash, new_hash) if each is not None]
    except (TypeError, ValueError, RecursionError):
        return False
    return all(isinstance(each, int) for each in numbers) and all(
        isinstance(each, (bytes, type(None))) for each in previews
    )


class Reader:
    """Variables and values of an open file."""

    def __init__(self, file: RecordingFile) -> None:
        self.file = file
        self._event = _EVENT.format(libc_function="libc_function" if file.version > 1 else "NULL")
        self._variables: dict[int, Variable] = {}
        # by run, region and variable, a number that comes again: as it was after that event
        self._values: dict[tuple[int, int, int], tuple[int, bytearray]] = {}
        self._lock = threading.RLock()

    def variables(self, condition: str = "", *parameters: Any) -> list[Variable]:
        """In the order in which they were first written."""
        return [_variable(row) for row in self.file.rows(f"{_VARIABLE}{condition} ORDER BY variable", *parameters)]

    def events(self, condition: str, *parameters: Any) -> list[StoredEvent]:
        """Up to BATCH events, in order; those whose rows make no sense are left out."""
        found = self.file.rows(f"{self._event}WHERE {condition} ORDER BY id LIMIT {BATCH}", *parameters)
        rows = [row for row in found if all(isinstance(each, int) for each in row[:4])]  # else damaged
        seen = {row[1]: row[0] for row in rows}  # an entry that is older than the event says too little
        stale = [
            number
            for number, id in seen.items()
            if number not in self._variables or self._variables[number].last_id < id
        ]
        if stale:
            listed = ", ".join(str(int(number)) for number in stale)
            self._variables.update((each.variable, each) for each in self.variables(f"WHERE variable IN ({listed})"))
        return [StoredEvent(self, row, self._variables[row[1]]) for row in rows if row[1] in self._variables]

    def _lost_between(self, variable: Variable, after: int, until: int) -> bool:
        """Whether events after one, up to another, were missed."""
        return bool(
            self.file.rows(
                "SELECT 1 FROM losses WHERE run = ? AND last_seq > ? AND first_seq <= ? LIMIT 1",
                variable.run,
                after - variable.seq_offset,
                until - variable.seq_offset,
            )
        )

    def value(self, variable: Variable, until: int) -> Optional[bytes]:
        """The value after event `until`, if that is known; else KeyError. None: it had no value."""
        if variable.values != "full":
            raise Error(
                errno.EACCES, f'the policy of "{variable.name}" is {variable.values}: its values are not recorded'
            )
        with self.file.moment(), self._lock:
            return self._value(variable, until)

    def _value(self, variable: Variable, until: int) -> Optional[bytes]:
        known = self.variables(
            "WHERE variable = ? AND run = ? AND region_id = ?", variable.variable, variable.run, variable.region_id
        )
        if not known:
            raise KeyError(f'"{variable.name}" has left the recording')
        variable = known[0]  # events may have left since it was read
        if until < variable.floor:
            oldest = variable.floor - variable.seq_offset
            raise KeyError(f'no value of "{variable.name}" that old is kept; the oldest is after event {oldest}')
        return self._whole(variable, until) if variable.whole else self._patched(variable, until)

    def _unknown(self, variable: Variable, until: int) -> KeyError:
        return KeyError(
            f'the value of "{variable.name}" after event {until - variable.seq_offset} is not known: events before it '
            "were missed, or there was no room for its whole value"
        )

    def _whole(self, variable: Variable, until: int) -> Optional[bytes]:
        at, number = min(until, variable.last_id), variable.variable
        last = self.file.row(
            "SELECT id, new FROM changes WHERE variable = ? AND id <= ? AND id >= ? ORDER BY id DESC LIMIT 1",
            number, at, variable.first_id,
        )  # fmt: skip
        if last and not self._lost_between(variable, last[0], until):
            return bytes_of(last[1], variable)
        base = None if last else self.file.row(
            "SELECT id, value FROM bases WHERE variable = ? AND id <= ? ORDER BY id DESC LIMIT 1", number, until
        )  # fmt: skip
        if base and not self._lost_between(variable, base[0], until):
            return bytes_of(base[1], variable)
        if until < variable.last_id:
            later = self.file.row(
                "SELECT id, old FROM changes WHERE variable = ? AND id > ? ORDER BY id LIMIT 1", number, until
            )
            if later and not self._lost_between(variable, until, later[0]):
                return bytes_of(later[1], variable)
        raise self._unknown(variable, until)

    def _base(self, variable: Variable, until: int) -> tuple[int, Optional[bytes]]:
        """The newest whole value up to an event, and after which it is. The first is as old as the watch."""
        base = self.file.row(
            "SELECT id, value FROM bases WHERE variable = ? AND id <= ? ORDER BY id DESC, base DESC LIMIT 1",
            variable.variable,
            until,
        ) or self.file.row("SELECT id, value FROM bases WHERE variable = ? ORDER BY id LIMIT 1", variable.variable)
        if base is None or (base[0] > until and base[0] >= variable.first_id):
            raise self._unknown(variable, until)
        if base[1] is not None and (not isinstance(base[1], bytes) or len(base[1]) != variable.size_bytes):
            raise Error(errno.EBADMSG, f'the recording is damaged: a value of "{variable.name}" has another size')
        return base[0], base[1]

    def _patched(self, variable: Variable, until: int) -> bytes:
        base_id, base = self._base(variable, until)
        if base is None or self._lost_between(variable, base_id, until):
            raise self._unknown(variable, until)
        key = variable.run, variable.region_id, variable.variable
        at, value = self._values.get(key, (-1, bytearray()))
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
        self._values.pop(key, None)
        self._values[key] = (max(at, min(until, variable.last_id)), value)
        while len(self._values) > KEPT_VALUES:
            del self._values[next(iter(self._values))]
        return bytes(value)
