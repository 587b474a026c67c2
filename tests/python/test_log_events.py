"""Events as log records: who reads a service's log sees them there, and no handler is waited for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

import memwatch


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    handler, logger = Records(), logging.getLogger("memwatch.events")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel(before[0])
    logger.propagate = before[1]


def test_a_record_is_the_event(records: list[logging.LogRecord]) -> None:
    with memwatch.MemoryWatcher() as watcher:
        data = memwatch.buffer(8)
        watcher.watch(data, "data")
        watcher.log_events(level="WARNING")
        data[0] = 7
    (record,) = records
    event = record.memwatch_event  # type: ignore[attr-defined]
    assert (record.name, record.levelname) == ("memwatch.events", "WARNING")
    assert record.getMessage() == f"{event.summary}, by {event.where}"
    assert abs(record.created - event.timestamp_ns / 1e9) < 0.01
    if event.where.attribution == "exact":
        assert (record.filename, record.funcName) == ("test_log_events.py", "test_a_record_is_the_event")
    assert f"{record.levelname} {record.message}" == logging.Formatter("%(levelname)s %(message)s").format(record)


def test_level_and_name_choose(records: list[logging.LogRecord]) -> None:
    with memwatch.MemoryWatcher() as watcher:
        data, other = memwatch.buffer(8), memwatch.buffer(8)
        watcher.watch(data, "data")
        watcher.watch(other, "other")
        watcher.log_events(name="oth*")
        closed = watcher.log_events()
        closed.close()
        data[0] = other[0] = 1
        for wrong in ({"level": "LOUD"}, {"max_rate": -1}):
            with pytest.raises(ValueError):
                watcher.log_events(**wrong)  # type: ignore[arg-type]
    assert [record.memwatch_event.variable_name for record in records] == ["other"]  # type: ignore[attr-defined]


def test_a_handler_that_writes_what_is_watched_ends_there(records: list[logging.LogRecord]) -> None:
    with memwatch.MemoryWatcher(window_ms=1) as watcher:
        data = memwatch.buffer(8)
        watcher.watch(data, "data")
        handler = Records()

        def emit(record: logging.LogRecord) -> None:
            data[0] = (data[0] + 1) % 256

        handler.emit = emit  # type: ignore[method-assign]
        logging.getLogger("memwatch.events").addHandler(handler)
        watcher.log_events(max_rate=5)
        data[0] = 1
        end = time.monotonic() + 30
        while not any("more events" in record.msg for record in records) and time.monotonic() < end:
            time.sleep(0.01)
            data[1] = (data[1] + 1) % 256
        logging.getLogger("memwatch.events").removeHandler(handler)
    assert any("past max_rate" in record.getMessage() for record in records)


def test_a_slow_handler_delays_nobody(records: list[logging.LogRecord]) -> None:
    """The worker and the callbacks go on; what the log evicts meanwhile is told."""
    go_on = threading.Event()
    handler = Records()

    def emit(record: logging.LogRecord) -> None:
        go_on.wait(60)

    handler.emit = emit  # type: ignore[method-assign]
    logging.getLogger("memwatch.events").addHandler(handler)
    try:
        with memwatch.MemoryWatcher(event_capacity=16) as watcher:
            data = memwatch.buffer(8)
            got = []
            watcher.watch(data, "data")
            watcher.set_callback(got.append)
            watcher.log_events(max_rate=0)
            for i in range(300):
                data[0] = (i + 1) % 256
                assert watcher.flush()
            assert got
            go_on.set()
    finally:
        go_on.set()
        logging.getLogger("memwatch.events").removeHandler(handler)
    assert any("were missed" in record.getMessage() for record in records)
