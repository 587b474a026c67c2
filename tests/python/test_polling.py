"""Polling: copies are compared at an interval."""

import array
import copy
import pickle
import sys
import threading

import pytest

from memwatch import MemoryWatcher
from memwatch.adapters import PollingAdapter
from memwatch.testing import Recorder


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def adapter(recorder):
    adapter = PollingAdapter(interval_s=0.005)
    adapter.bind(recorder)
    yield adapter
    adapter.close()


@pytest.fixture
def slow(recorder):
    """An adapter that looks only when it is asked to."""
    adapter = PollingAdapter(interval_s=3600)
    adapter.bind(recorder)
    yield adapter
    adapter.close()


def test_the_thread_finds_a_change(adapter, recorder):
    data = bytearray(b"Hello")
    adapter.track(data, {"name": "data"})
    data[0] = ord("J")
    assert recorder.wait(len)
    [event] = recorder.events
    assert (event.old, event.new) == (b"Hello", b"Jello")
    assert (event.attribution, event.reason, event.backend) == ("none", "polling", "polling")
    assert event.frames == ()


def test_a_failing_when_ends_nothing(adapter, recorder, monkeypatch):
    def fail(new):
        raise ZeroDivisionError("when")

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    failing, other = [0], [0]
    adapter.track(failing, {"name": "failing", "when": fail})
    adapter.track(other, {"name": "other"})
    failing[0] = 1
    assert recorder.wait(lambda events: len(events) == 1)
    failing[0] = other[0] = 2
    assert recorder.wait(lambda events: len(events) == 3)
    assert [type(unraisable.exc_value) for unraisable in seen] == [ZeroDivisionError]


@pytest.mark.parametrize(
    ("obj", "change"),
    [
        (array.array("d", [0.0, 1.0]), lambda obj: obj.__setitem__(1, 5.0)),
        ([1, 2], lambda obj: obj.append(3)),
        ({"a": 1}, lambda obj: obj.update(a=2)),
        ({1}, lambda obj: obj.add(2)),
        (memoryview(bytearray(10))[::2], lambda obj: obj.__setitem__(0, 1)),
    ],
)
def test_kinds_of_objects(slow, recorder, obj, change):
    slow.track(obj, {"name": "obj"})
    assert slow.check_changes() == []
    change(obj)
    [region_id] = slow.check_changes()
    assert [event.region_id for event in recorder.events] == [region_id]
    assert slow.check_changes() == []


def test_what_does_not_change_in_place_is_refused(slow, recorder):
    with pytest.raises(TypeError, match="watch_name"):
        slow.track(5, {"name": "five"})
    with pytest.raises(ValueError, match="empty"):
        slow.track(bytearray(), {"name": "empty"})
    assert recorder.names == {}


def test_a_watched_bytearray_cannot_be_resized(slow):
    data = bytearray(b"Hello")
    region_id = slow.track(data, {"name": "data"})
    with pytest.raises(BufferError):
        data.append(0)
    slow.untrack(region_id)
    data.append(0)


def test_when(slow, recorder):
    data = bytearray(b"0")
    slow.track(data, {"name": "data", "when": lambda new: new == b"2"})
    for value in b"123":
        data[0] = value
        slow.check_changes()
    assert [(event.old, event.new) for event in recorder.events] == [(b"1", b"2")]
    assert slow.get_stats()["filtered"] == 2


def test_what_was_written_before_untrack_is_still_posted(slow, recorder):
    data = bytearray(b"a")
    region_id = slow.track(data, {"name": "data"})
    data[0] = ord("b")
    slow.untrack(region_id)
    assert [event.new for event in recorder.events] == [b"b"]
    assert recorder.names == {}


def test_a_flush_looks():
    told, items = [], [1]
    with MemoryWatcher(adapter=PollingAdapter(interval_s=3600)) as watcher:
        watcher.set_callback(lambda event: told.append(event.new))
        watcher.watch(items, "items")
        items.append(2)
        assert watcher.flush() and told == [[1, 2]]


@pytest.mark.parametrize("obj", [[1, 2], {"a": 1}, {1}])
def test_objects_read_alike_at_once_and_later(obj):
    before, told = copy.copy(obj), []
    with MemoryWatcher(adapter=PollingAdapter(interval_s=3600)) as watcher:
        watcher.set_callback(lambda event: told.append((event.old, event.new, event.summary)))
        watcher.watch(obj, "obj")
        obj.update({"b": 2}) if isinstance(obj, dict) else obj.clear()
        assert watcher.flush()
        [event] = watcher.events(since=0, timeout=0)
    assert told == [(before, obj, f"obj: {before} -> {obj}")]
    for each in (event, pickle.loads(pickle.dumps(event))):
        assert (each.old, each.new, each.summary) == told[0]


def test_a_large_buffer_is_shown_in_part(slow, recorder):
    data = bytearray(100_000)
    slow.track(data, {"name": "data"})
    data[99_999] = 1
    slow.check_changes()
    assert len(recorder.events[0].new) == 4096


def test_the_thread_ends_with_its_adapter():
    before = threading.active_count()
    adapter = PollingAdapter(interval_s=0.005)
    adapter.bind(Recorder())
    adapter.track(bytearray(1), {"name": "data"})
    assert threading.active_count() == before + 1
    adapter.close()
    assert threading.active_count() == before


def test_bad_interval():
    with pytest.raises(ValueError, match="interval_s"):
        PollingAdapter(interval_s=0)
