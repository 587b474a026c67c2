"""Delivery: callbacks, flush, conditions, what a failing or slow callback does, and the end of a watcher."""

import sys
import threading
import time

import pytest

import memwatch


@pytest.fixture
def data(watcher):
    """A watched buffer on pages of its own."""
    data = memwatch.buffer(4096)
    watcher.watch(data, "data")
    return data


@pytest.fixture
def unraisable(monkeypatch):
    """What went to sys.unraisablehook."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    return seen


def test_the_write_right_after_set_callback_is_seen(recorder):
    for number in range(20):
        recorder.clear()
        with memwatch.MemoryWatcher() as watcher:
            data = bytearray(8)
            watcher.watch(data, "data")
            watcher.set_callback(recorder)
            data[0] = number + 1
        assert [event.new_value[0] for event in recorder] == [number + 1]


def test_older_events_are_not_for_a_new_callback(watcher, data, recorder):
    data[0] = 1
    assert watcher.flush()
    watcher.set_callback(recorder)
    assert watcher.flush()
    assert recorder == []
    data[0] = 2
    assert watcher.flush()
    assert [event.new_value[0] for event in recorder] == [2]


def test_the_callback_can_be_replaced_and_removed(watcher, data, recorder):
    first = []
    watcher.set_callback(first.append)
    data[0] = 1
    assert watcher.flush()
    watcher.set_callback(recorder)
    data[0] = 2
    assert watcher.flush()
    watcher.set_callback(None)
    data[0] = 3
    assert watcher.flush()
    assert ([event.new_value[0] for event in first], [event.new_value[0] for event in recorder]) == ([1], [2])


def test_a_regions_own_callback_takes_its_events(watched, recorder):
    own = []
    one, two = memwatch.buffer(10), memwatch.buffer(10)
    watched.watch(one, "one", callback=own.append)
    watched.watch(two, "two")
    one[0] = two[0] = 1
    assert watched.flush()
    assert [event.variable_name for event in own] == ["one"]
    assert [event.variable_name for event in recorder] == ["two"]


def test_what_was_written_before_unwatch_is_delivered_to_its_callback(watcher, recorder):
    for _ in range(20):
        data = memwatch.buffer(10)
        region_id = watcher.watch(data, "data", callback=recorder)
        data[0] = 1
        assert watcher.unwatch(region_id)
        data[1] = 1
    assert watcher.flush()
    assert [event.new_value[:2] for event in recorder] == [b"\x01\x00"] * 20


def test_unwatch(watcher, data):
    assert watcher.unwatch("data") is True
    assert watcher.unwatch("data") is False
    region_id = watcher.watch(data, "data")
    assert watcher.unwatch(region_id) is True
    assert watcher.unwatch(region_id) is False
    assert watcher.unwatch(123456789) is False
    assert watcher.watch(data, "data") != region_id


def test_names_are_unique(watcher, data):
    with pytest.raises(ValueError, match="data"):
        watcher.watch(bytearray(1), "data")
    assert watcher.get_stats()["tracked_regions"] == 1


def test_no_name(watcher, recorder):
    watcher.set_callback(recorder)
    data = memwatch.buffer(10)
    region_id = watcher.watch(data)
    data[0] = 1
    assert watcher.flush()
    assert recorder[0].variable_name == f"region-{region_id}"


def test_when(watcher, recorder):
    data = memwatch.buffer(10)
    watcher.watch(data, "data", callback=recorder, when=lambda event: event.new_value[0] % 2)
    for value in range(1, 7):
        data[0] = value
        assert watcher.flush()
    assert [event.new_value[0] for event in recorder] == [1, 3, 5]
    assert watcher.get_stats()["callback_filtered"] == 3


def test_a_callback_that_raises(watcher, data, unraisable, recorder):
    def callback(event):
        recorder(event)
        raise RuntimeError(f"event {event.seq}")

    watcher.set_callback(callback)
    for value in range(1, 4):
        data[0] = value
        assert watcher.flush()
    assert len(recorder) == 3
    assert [str(error.exc_value) for error in unraisable] == ["event 1", "event 2", "event 3"]
    assert unraisable[0].object is callback
    stats = watcher.get_stats()
    assert stats["callback_errors"] == 3
    assert next(sink for sink in stats["sinks"] if sink["name"] == "callback")["failed"] == 3
    unraisable.clear()


def test_a_condition_that_raises(watcher, unraisable, recorder):
    data = memwatch.buffer(10)
    watcher.watch(data, "data", callback=recorder, when=lambda event: 1 / 0)
    data[0] = 1
    assert watcher.flush()
    assert recorder == []
    assert unraisable[0].exc_type is ZeroDivisionError
    unraisable.clear()


def test_a_callback_that_exits_does_not_end_the_stream(watcher, data, unraisable, recorder):
    def callback(event):
        recorder(event)
        sys.exit(1)

    watcher.set_callback(callback)
    for value in (1, 2):
        data[0] = value
        assert watcher.flush()
    assert len(recorder) == 2
    unraisable.clear()


def test_a_slow_callback_delays_callbacks_only(watcher, data, wait_for):
    release, entered, seen = threading.Event(), threading.Event(), []

    def callback(event):
        entered.set()
        release.wait(30)
        seen.append(event.new_value[0])

    watcher.set_callback(callback)
    stream = watcher.events(timeout=30)
    for value in range(1, 6):
        data[0] = value
        assert next(stream).seq == value  # the worker and other sinks go on
    assert entered.wait(30)
    assert watcher.flush(0.05) is False
    release.set()
    assert watcher.flush()
    assert seen == [1, 2, 3, 4, 5]


def test_a_callback_that_cannot_keep_up_misses_the_oldest(recorder):
    with memwatch.MemoryWatcher(event_capacity=16) as watcher:
        data = memwatch.buffer(10)
        release, entered = threading.Event(), threading.Event()

        def callback(event):
            entered.set()
            release.wait(30)
            recorder(event)

        watcher.watch(data, "data", callback=callback)
        data[0] = 1
        assert entered.wait(30)
        for value in range(2, 102):
            data[0] = value
            watcher.flush(0)
            assert watcher._core.flush(5)
        release.set()
        assert watcher.flush()
        stats = watcher.get_stats()
        assert recorder[-1].new_value[0] == 101
        assert stats["callback_missed"] == 101 - len(recorder) > 50
        assert stats["dropped_events"] >= stats["callback_missed"]


def test_flush_from_a_callback(watcher, data):
    answers = []
    watcher.set_callback(lambda event: answers.append(watcher.flush()))
    data[0] = 1
    assert watcher.flush()
    assert answers == [True]


def test_everything_from_a_callback(watcher, data, unraisable):
    done = threading.Event()
    other = memwatch.buffer(10)

    def callback(event):
        try:
            watcher.watch(other, "other")
            watcher.get_stats(regions=True)
            watcher.set_callback(None)
            watcher.unwatch("data")
        finally:
            done.set()

    watcher.set_callback(callback)
    data[0] = 1
    assert done.wait(30)
    assert watcher.flush()
    assert unraisable == []
    assert watcher.unwatch("other")


def test_close_from_a_callback(data, watcher, wait_for):
    watcher.set_callback(lambda event: watcher.close())
    data[0] = 1
    wait_for(lambda: watcher._core.closed)
    with pytest.raises(memwatch.Error, match="closed"):
        watcher.get_stats()


def test_flush_with_time_enough_and_without(watcher, data):
    assert watcher.flush() is True
    assert watcher.flush(timeout=10) is True
    with pytest.raises(ValueError, match="seconds"):
        watcher.flush(-1)
    with pytest.raises(TypeError):
        watcher.flush("soon")


def test_flush_by_many_threads(watcher, data, recorder):
    watcher.set_callback(recorder)
    answers = []

    def work(index):
        for value in range(1, 20):
            data[index * 64] = value
            answers.append(watcher.flush(30))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [True] * 76
    assert bytes(recorder[-1].new_value) == bytes(data)


def test_close_delivers(recorder):
    watcher = memwatch.MemoryWatcher()
    data = memwatch.buffer(10)
    watcher.watch(data, "data", callback=recorder)
    data[0] = 1
    watcher.close()
    assert [event.new_value[0] for event in recorder] == [1]
    assert recorder[0].where.function == "test_close_delivers"  # events outlive their watcher
    assert repr(watcher) == "<MemoryWatcher closed>"


def test_no_thread_is_left_by_close(wait_for):
    def native_threads():
        import os

        return len(os.listdir("/proc/self/task"))

    before = native_threads()
    for _ in range(3):
        with memwatch.MemoryWatcher() as watcher:
            watcher.watch(bytearray(10), "data", callback=print)
    wait_for(lambda: native_threads() == before, what="the threads to end")
    assert not [thread for thread in threading.enumerate() if thread.name == "memwatch-dispatch"]


def test_close_while_others_call(wait_for):
    for _ in range(10):
        watcher = memwatch.MemoryWatcher()
        data = memwatch.buffer(4096)
        watcher.watch(data, "data", callback=lambda event: None)
        ready, errors = threading.Barrier(4), []

        def call(work, ready=ready, errors=errors):
            ready.wait()
            try:
                while True:
                    work()
            except memwatch.Error as error:
                errors.append(error)

        works = [
            lambda w=watcher: w.flush(1),
            lambda w=watcher: w.get_stats(regions=True),
            lambda d=data, w=watcher: (d.__setitem__(0, d[0] ^ 1), w.events(timeout=0.01).close()),
        ]
        threads = [threading.Thread(target=call, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        ready.wait()
        time.sleep(0.005)
        watcher.close()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert len(errors) == 3


SINKS = """
import threading
from memwatch._native import core

def let_go(watcher, sinks):
    while not watcher.closed:
        pass
    while sinks:
        sinks.pop(0)

for _ in range(5):
    watcher = core.Watcher()
    sinks = [core.Sink(watcher, "sink") for _ in range(1500)]
    thread = threading.Thread(target=let_go, args=(watcher, sinks))
    thread.start()
    watcher.close()
    thread.join()
"""


def test_sinks_that_go_while_the_watcher_closes(run_python):
    """The debug allocator overwrites what is freed."""
    result = run_python(SINKS, environ={"PYTHONMALLOC": "debug"})
    assert result.returncode == 0, result.stderr


def test_event_fields(watcher, recorder):
    data = memwatch.buffer(10000)
    small = bytearray(b"small")
    watcher.set_callback(recorder)
    watcher.watch(data, "large")
    watcher.watch(small, "small")
    before = time.time_ns()
    data[9000:9002] = b"ab"
    small[0] = 83
    assert watcher.flush()
    large, little = recorder.of("large")[0], recorder.of("small")[0]
    assert before <= large.timestamp_ns <= large.detected_ns <= time.time_ns()
    assert (large.old_value, large.new_value, large.how_big, large.kind) == (None, None, 10000, "change")
    assert (large.old_preview, large.new_preview) == (bytes(256), bytes(256))
    assert large.changes == [(9000, 2)] and large.changes[0].offset == 9000
    assert large.changed_bytes == 2
    assert watcher.load(large.storage_key_old) == bytes(10000)
    assert watcher.load(large.storage_key_new) == bytes(data)
    assert (little.old_value, little.new_value) == (b"small", b"Small")
    assert (little.storage_key_old, little.storage_key_new) == (None, None)
    assert {large.seq, little.seq} == {1, 2}
    assert large.backend == watcher.get_stats()["backend"]
    with pytest.raises(AttributeError):
        large.seq = 5


@pytest.mark.parametrize("values", ["full", "preview", "hash", "none"])
def test_policies(values, watched, recorder):
    data = memwatch.buffer(300)
    watched.watch(data, "data", values=values)
    data[0] = 1
    assert watched.flush()
    event = recorder[0]
    assert (event.old_value is None, event.new_value is None) == (values != "full",) * 2
    assert (event.new_preview is None) == (values in ("hash", "none"))
    assert (event.new_hash is None) == (values != "hash")
    if values == "hash":
        assert event.old_hash != event.new_hash
    assert repr(event)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"values": "some"}, ValueError, "values"),
        ({"callback": 5}, TypeError, "callback"),
        ({"when": ("gt", 10)}, ValueError, "number"),
        ({"max_rate": "5"}, TypeError, "str"),
        ({"colour": "red"}, TypeError, "colour"),
        ({"name": "n" * 256}, ValueError, "255"),
        ({"name": 5}, TypeError, "int"),
    ],
)
def test_bad_options_of_watch(options, error, text, watcher):
    with pytest.raises(error, match=text):
        watcher.watch(bytearray(4), **options)
    assert watcher.get_stats()["tracked_regions"] == 0


def test_set_callback_wants_a_function(watcher):
    with pytest.raises(TypeError, match="callback"):
        watcher.set_callback(5)


def test_a_closed_watcher(recorder):
    watcher = memwatch.MemoryWatcher()
    watcher.close()
    watcher.close()
    for call in (
        lambda: watcher.watch(bytearray(4), "data"),
        lambda: watcher.unwatch("data"),
        lambda: watcher.unwatch(1),
        lambda: watcher.set_callback(recorder),
        watcher.events,
        watcher.flush,
        watcher.get_stats,
        lambda: watcher.load("0" * 32),
        lambda: watcher.serve(port=0),
    ):
        with pytest.raises(memwatch.Error, match="closed") as caught:
            call()
        assert caught.value.errno


@pytest.mark.parametrize("key", ["", "nonsense", "0" * 32, "g" * 32, "ä" * 32])
def test_unknown_storage_keys(key, watcher):
    with pytest.raises((KeyError, ValueError)):
        watcher.load(key)


def test_load_wants_text(watcher):
    with pytest.raises(TypeError):
        watcher.load(b"0" * 32)
