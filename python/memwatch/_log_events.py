"""Events as records of the logger "memwatch.events": `watcher.log_events()`.

A thread of its own reads the log, as the one that runs callbacks does: the worker never waits for a handler. What comes
faster than `max_rate` is counted and told in one record, so that a handler which writes a watched variable ends there.
"""

from __future__ import annotations

import fnmatch
import logging
import time
from typing import Callable, Union

from memwatch import _check
from memwatch._dispatch import DELIVERED, FAILED, SKIPPED, Dispatcher, ThreadNames
from memwatch._event import ChangeEvent
from memwatch._native import core

LOGGER = "memwatch.events"


class LogEvents:
    """Logs the events from now on, until it or its watcher is closed.

    level     of the records, as `logging` has it
    name      a glob: which variables
    max_rate  records a second at most; 0 for no limit
    """

    def __init__(
        self,
        watcher: core.Watcher,
        convert: Callable[[core.Event, ThreadNames], ChangeEvent],
        level: Union[int, str] = logging.INFO,
        name: str = "*",
        max_rate: float = 100,
    ) -> None:
        _check.rate(max_rate, "records")
        if not isinstance(name, str):
            raise TypeError(f"name={name!r}: it is a glob, such as 'cache.*'")
        number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
        if not isinstance(number, int):
            raise ValueError(f"level={level!r}: it is one of logging's, such as INFO")
        self._logger = logging.getLogger(LOGGER)
        self._level, self._name, self._max_rate = number, name, max_rate
        self._convert = convert
        self._open = True
        self.begin(watcher)

    def begin(self, watcher: core.Watcher) -> None:
        """Logs what comes; anew in a forked child that watches on."""
        self._second, self._n_in_second, self._n_left_out = 0, 0, 0
        self._newest = 0
        self._dispatcher = Dispatcher(watcher, self._deliver, "logging")
        self._dispatcher.start()

    def close(self) -> None:
        """Logs no more. Twice is allowed."""
        self._open = False

    def __repr__(self) -> str:
        level = logging.getLevelName(self._level)
        return f"<memwatch.LogEvents {self._name} at {level}, {'open' if self._open else 'closed'}>"

    def join(self, timeout: float) -> None:
        """Once the watcher is closed: waits until all is logged."""
        self._dispatcher.join(timeout)
        self._tell_left_out()

    def _deliver(self, event: core.Event, names: ThreadNames) -> int:
        missed = event.seq - self._newest - 1 if self._newest else 0
        self._newest = event.seq
        try:
            if missed and self._open:
                self._logger.warning("%d events were missed: handlers are too slow for them", missed)
            wanted = self._open and self._logger.isEnabledFor(self._level)
            if not wanted or not fnmatch.fnmatchcase(event.name, self._name) or not self._has_room():
                return SKIPPED
            self._logger.handle(self._record(self._convert(event, names)))
        except BaseException as error:
            core.unraisable(error, self._logger)
            return FAILED
        return DELIVERED

    def _has_room(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._tell_left_out()
            self._second, self._n_in_second = second, 0
        self._n_in_second += 1
        if self._max_rate and self._n_in_second > self._max_rate:
            self._n_left_out += 1
            return False
        return True

    def _tell_left_out(self) -> None:
        if self._n_left_out:
            self._logger.warning("%d more events: past max_rate they are counted only", self._n_left_out)
            self._n_left_out = 0

    def _record(self, event: ChangeEvent) -> logging.LogRecord:
        """Its place, time and thread are the writer's where it is known; the event itself is `memwatch_event`."""
        where = event.where
        record = self._logger.makeRecord(
            LOGGER,
            self._level,
            where.file or "(unknown file)",
            where.line or 0,
            "%s, by %s",
            (event.summary, str(where)),
            None,
            where.function or "(unknown function)",
            {"memwatch_event": event},
        )
        record.created = event.timestamp_ns / 1e9
        record.msecs = event.timestamp_ns // 1_000_000 % 1000
        record.thread, record.threadName = event.thread_id, event.thread_name
        return record
