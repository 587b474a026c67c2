"""Reads a recording back: runs, regions, events and values of a process that may be gone."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Iterator, Optional, Union, cast

from memwatch._decode import Layout
from memwatch._errors import Error
from memwatch._event import ChangeEvent
from memwatch._history import time_ns
from memwatch._native import core

BATCH = 256
GLOB_CHARACTERS = "*?[]\\"


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


class _Stored:
    """What stands for core.Event in a RecordedEvent: the fields that were read, the values when they are asked for."""

    def __init__(self, recording: core.Recording, record: dict[str, Any]) -> None:
        self._recording = recording
        self._record = record

    def __getattr__(self, name: str) -> Any:
        try:
            return self._record[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def old_value(self) -> Optional[bytes]:
        return self.load(self.seq - 1) if self.had_values else None

    @property
    def new_value(self) -> Optional[bytes]:
        return self.load(self.seq) if self.had_values else None

    def load(self, seq: int) -> Optional[bytes]:
        """What the event's region held after `seq`; None when that is not kept."""
        try:
            return self._recording.value(self.run, self.region_id, seq)
        except (KeyError, Error):
            return None


class RecordedEvent(ChangeEvent):
    """A ChangeEvent that was read back. Its values are read when they are asked for, while the History is open."""

    __slots__ = ("run",)

    def __init__(self, recording: core.Recording, record: dict[str, Any]) -> None:
        stored = _Stored(recording, record)

        def load(key: str, size: int) -> bytes:
            value = stored.load(stored.seq - 1 if key == stored.storage_key_old else stored.seq)
            if value is None:
                raise KeyError(key)
            return value[:size]

        super().__init__(cast("core.Event", stored), load=load)
        self.run: int = record["run"]


class History:
    """An open recording. A context manager; its methods may be used from any thread, but not after a fork.

    `run` is a run's number; without one `events` reads all runs, and the others look in the newest that has the name.
    Times are in seconds since the epoch, or in nanoseconds as `event.timestamp_ns` has them.
    """

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        if not core.RECORDER:
            raise Error(errno.ENOTSUP, "recordings need liblmdb: install it and build memwatch again")
        self.path = os.fspath(path)
        self._recording = core.Recording(self.path)

    @property
    def runs(self) -> list[Run]:
        """The oldest first."""
        return [Run(**run) for run in self._recording.runs()]

    @property
    def regions(self) -> list[RecordedRegion]:
        """Every region that changed, run by run."""
        return [region for run in self._recording.runs() for region in self.regions_of(run["run"])]

    def regions_of(self, run: int) -> list[RecordedRegion]:
        """One run's regions."""
        return [RecordedRegion(**region) for region in self._recording.regions(run)]

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
        position = (run or 0, after) if run else (0, 0)
        since_ns, until_ns = (0 if at is None else max(1, time_ns(at)) for at in (since, until))
        while True:
            batch = self._recording.read(
                run=run or 0,
                after_run=position[0],
                after_seq=position[1],
                since_ns=since_ns,
                until_ns=until_ns,
                name=name,
                limit=BATCH,
            )
            for record in batch:
                yield RecordedEvent(self._recording, record)
            if not batch:
                return
            position = (batch[-1]["run"], batch[-1]["seq"])

    def history(self, name: str, *, run: Optional[int] = None) -> list[RecordedEvent]:
        """The events of the regions that had this name (no glob), the oldest first."""
        escaped = "".join("\\" + character if character in GLOB_CHARACTERS else character for character in name)
        return list(self.events(escaped, run=run))

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

        Bytes; with a number's format the number or an array (NumPy's, where that is installed, else a list), unless
        `raw`. None when it had no value then. KeyError when it is not kept; it says why, and names the oldest that is.
        """
        if seq is not None and time is not None:
            raise TypeError("value_at() takes seq or time, not both")
        found_run, region_id, found_seq = self._recording.find(
            name, seq=seq or 0, time_ns=0 if time is None else max(1, time_ns(time)), run=run or 0
        )
        data = self._recording.value(found_run, region_id, found_seq if seq is None else seq)
        if raw or data is None:
            return data
        region = self._recording.regions(found_run, region_id - 1, 1)[0]
        return _decoded(RecordedRegion(**region).layout, data)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._recording.closed

    def close(self) -> None:
        """Twice is allowed."""
        self._recording.close()

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


def _decoded(layout: Layout, data: bytes) -> Any:
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
