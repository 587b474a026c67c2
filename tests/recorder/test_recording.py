"""What a recording holds, and what is read back."""

import struct
import subprocess
import sys
import threading
import time

import numpy
import pytest

import memwatch
from memwatch import _core_recorder
from memwatch._native import core

FIELDS = ["seq", "timestamp_ns", "detected_ns", "region_id", "variable_name", "kind", "backend", "how_big", "merged"]
FIELDS += ["changes", "changed_bytes", "old_value", "new_value", "old_preview", "new_preview", "elements"]
FIELDS += ["old_hash", "new_hash", "thread_id", "thread_name"]


def live_events(watched):
    return [memwatch.ChangeEvent(event) for event in watched.watcher.events_read(0, 4096)[0]]


def test_events_are_as_they_were(watch, path, opened):
    watched = watch()
    array, data = numpy.zeros((4, 8)), bytearray(100)
    watched.add(array, "array")
    watched.add(data, "data")
    for step in range(1, 20):
        array[step % 4, step % 8] = step
        data[step * 3 : step * 3 + 2] = b"ab"
        watched.settle()
    watched.commit()
    before, after = live_events(watched), list(opened(path).events())
    assert len(before) == len(after) > 20
    for live, recorded in zip(before, after):
        for field in FIELDS:
            assert getattr(live, field) == getattr(recorded, field), field
        assert live.where == recorded.where
        assert hash(live.where) == hash(recorded.where)


def test_every_version_of_small_and_large_regions(watch, path, opened):
    watched = watch()
    objects = {"large": numpy.zeros(50_000), "inline": numpy.zeros(500), "small": bytearray(16), "one": numpy.zeros(())}
    for name, buffer in objects.items():
        watched.add(buffer, name)
    copies = {}
    for step in range(1, 120):
        objects["large"][step * 331 % 50_000] = step
        objects["inline"][step * 7 % 500 : step * 7 % 500 + 5] = step
        objects["small"][step % 16] = step
        objects["one"][...] = step
        copies[watched.settle()] = {name: bytes(memoryview(buffer).cast("B")) for name, buffer in objects.items()}
    watched.commit()
    history = opened(path)
    for seq, values in copies.items():
        for name, value in values.items():
            assert history.value_at(name, seq=seq, raw=True) == value, (name, seq)


def test_values_are_decoded(watch, path, opened):
    watched = watch()
    matrix, scalar, data = numpy.zeros((3, 4), order="F"), numpy.zeros((), "i4"), bytearray(3)
    for name, buffer in (("matrix", matrix), ("scalar", scalar), ("data", data)):
        watched.add(buffer, name)
    matrix[2, 1], scalar[...], data[1] = 5, -7, 9
    watched.commit()
    history = opened(path)
    assert numpy.array_equal(history.value_at("matrix"), matrix)
    assert history.value_at("scalar") == -7
    assert history.value_at("data") == b"\0\x09\0"
    assert [element.index for element in next(history.events("matrix")).elements] == [(2, 1)]


def test_value_at_a_time(watch, path, opened):
    watched = watch()
    number = numpy.zeros(1, "i8")
    watched.add(number, "number")
    for step in range(1, 6):
        number[0] = step
        watched.settle()
    watched.commit()
    history = opened(path)
    events = list(history.events("number"))
    for event, value in zip(events, range(1, 6)):
        assert history.value_at("number", time=event.timestamp_ns)[0] == value
        assert history.value_at("number", time=event.timestamp_ns - 1)[0] == value - 1
    assert [event.seq for event in history.events(since=events[2].timestamp_ns)] == [3, 4, 5]
    assert [event.seq for event in history.events(until=events[1].timestamp_ns)] == [1, 2]
    assert [event.seq for event in history.events(run=1, after=3)] == [4, 5]
    with pytest.raises(KeyError, match="that old"):
        history.value_at("number", time=1.0)
    with pytest.raises(KeyError, match="no region named"):
        history.value_at("nobody")


def test_names_by_glob_and_exactly(watch, path, opened):
    watched = watch()
    buffers = {name: bytearray(8) for name in ("a[0]", "a0", "b")}
    for name, buffer in buffers.items():
        watched.add(buffer, name)
        buffer[0] = 1
    watched.commit()
    history = opened(path)
    assert {event.variable_name for event in history.events("a*")} == {"a[0]", "a0"}
    assert [event.variable_name for event in history.history("a[0]")] == ["a[0]"]


def test_policies_hold_in_the_file(watch, path, opened):
    watched = watch()
    secret = b"correct horse battery staple"
    for policy in ("hash", "none"):
        buffer = bytearray(len(secret))
        watched.add(buffer, policy, values=policy)
        buffer[:] = secret
    preview = bytearray(1000)
    watched.add(preview, "preview", values="preview")
    preview[500 : 500 + len(secret)] = secret
    watched.commit()
    assert secret not in path.read_bytes()
    history = opened(path)
    assert next(history.events("hash")).new_hash is not None
    assert next(history.events("preview")).new_preview is not None
    for name in ("hash", "none", "preview"):
        assert next(history.events(name)).new_value is None
        with pytest.raises(memwatch.Error, match="policy"):
            history.value_at(name)


def test_posted_events(watch, path, opened):
    watched = watch()
    region = watched.watcher.region_add_external("name")
    watched.watcher.post(region, old=b"None", new=b"'first'", frames=[("app.py", "main", 7)], backend="trace")
    watched.watcher.post(region, old=b"'first'", new=b"[1, 2, 3]")
    watched.watcher.post(region, old=b"[1, 2, 3]", new=None)
    watched.commit()
    history = opened(path)
    assert [event.new_value for event in history.events()] == [b"'first'", b"[1, 2, 3]", None]
    assert [history.value_at("name", seq=seq) for seq in range(4)] == [b"None", b"'first'", b"[1, 2, 3]", None]
    first = next(history.events())
    assert (first.where.file, first.where.line, first.backend) == ("app.py", 7, "trace")


def test_without_patches_values_are_kept_too(watch, path, opened):
    watched = watch(patches=False)
    large, small = numpy.zeros(5_000), bytearray(16)
    watched.add(large, "large")
    watched.add(small, "small")
    copies = {}
    for step in range(1, 40):
        large[step * 31] = step
        small[step % 16] = step
        copies[watched.commit()] = (large.tobytes(), bytes(small))
    history = opened(path)
    for seq, (large_then, small_then) in copies.items():
        assert history.value_at("large", seq=seq, raw=True) == large_then
        assert history.value_at("small", seq=seq) == small_then


def test_a_region_too_large_for_the_file(watch, path, opened):
    watched = watch(max_bytes=2 << 20)
    array = numpy.zeros(1 << 18)
    watched.add(array, "array")
    array[5] = 1
    watched.commit()
    history = opened(path)
    assert next(history.events()).changes[0].offset // 8 == 5
    with pytest.raises(KeyError, match="no room"):
        history.value_at("array")
    assert watched.stats()["versions_skipped"] == 1


def test_runs_are_kept_apart(watch, path, opened):
    for value in (1, 2, 3):
        watched = watch()
        number = bytearray(4)
        watched.add(number, "number")
        number[0] = value
        watched.commit()
        watched.close()
    history = opened(path)
    assert [run.run for run in history.runs] == [1, 2, 3]
    assert len({run.epoch for run in history.runs}) == 3
    assert all(run.end_ns and not run.live for run in history.runs)
    assert [(event.run, event.seq) for event in history.events()] == [(1, 1), (2, 1), (3, 1)]
    assert [history.value_at("number", run=run)[0] for run in (1, 2, 3)] == [1, 2, 3]
    assert history.value_at("number")[0] == 3
    assert [region.name for region in history.regions] == ["number"] * 3


def test_older_runs_can_be_dropped(watch, path, opened):
    for _ in range(3):
        watched = watch(keep_runs=2)
        number = bytearray(4)
        watched.add(number, "number")
        number[0] = 1
        watched.commit()
        watched.close()
    assert [run.run for run in opened(path).runs] == [2, 3]


def test_a_name_used_again_is_another_region(watch, path, opened):
    watched = watch()
    for value in (1, 2):
        number = bytearray(4)
        region = watched.add(number, "number")
        number[0] = value
        watched.commit()
        watched.watcher.region_remove(region)
    history = opened(path)
    assert [history.value_at("number", seq=seq)[0] for seq in (1, 2)] == [1, 2]
    assert len(history.regions) == 2


def test_nothing_is_said_of_the_time_before_a_region_was_watched(watch, path, opened):
    watched = watch()
    first, late = bytearray(4), bytearray(4)
    region = watched.add(first, "name")
    watched.add(late, "other")
    late[0] = 1
    watched.commit()
    watched.watcher.region_remove(region)
    before = time.time_ns()
    watched.add(late, "name")
    late[0] = 2
    watched.commit()
    history = opened(path)
    assert history.value_at("name")[0] == 2
    with pytest.raises(KeyError, match="that old is kept"):
        history.value_at("name", time=before)
    watched.watcher.region_remove(watched.add(late, "gone"))
    gone = watched.add(late, "gone")
    late[0] = 3
    watched.settle()
    watched.watcher.region_remove(gone)
    seq = watched.commit()
    assert history.value_at("gone", seq=seq)[0] == 3
    with pytest.raises(KeyError, match="that old is kept"):
        history.value_at("gone", seq=1)


def test_reading_while_it_is_written(watch, path, opened, wait_for):
    watched = watch()
    number = numpy.zeros(1, "i8")
    watched.add(number, "number")
    number[0] = 1
    watched.commit()
    history = opened(path)
    assert history.runs[0].live
    for value in (2, 3):
        number[0] = value
        watched.settle()
        wait_for(lambda value=value: history.value_at("number")[0] == value)
    code = "import sys, memwatch; print(memwatch.open_history(sys.argv[1]).value_at('number')[0])"
    other = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert other.stdout.strip() == "3"


def test_a_recorder_comes_to_a_file_that_is_being_read(watch, path, opened):
    first = watch()
    data = bytearray(4)
    first.add(data, "data")
    data[0] = 1
    first.commit()
    first.close()
    history = opened(path)
    assert history.value_at("data")[0] == 1
    second = watch()
    again = bytearray(4)
    second.add(again, "data")
    again[0] = 2
    second.commit()
    assert history.value_at("data")[0] == 2
    second.close()
    assert [run.live for run in history.runs] == [False, False]


def test_readers_and_writer_in_many_threads(watch, path, opened):
    watched = watch()
    array = numpy.zeros(64, "i8")
    watched.add(array, "array")
    array[0] = 1
    watched.commit()
    failures, written = [], threading.Event()

    def read():
        try:
            while not written.is_set():
                with memwatch.open_history(path) as history:
                    value = history.value_at("array")
                    assert (value == value[0]).all() or value[0] >= 1
                    list(history.events())
        except Exception as error:  # the test reports it
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(2, 300):
        array[:] = step
        watched.settle()
    written.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_misuse(path, watch, opened):
    watcher = core.Watcher()
    for options in ({"max_bytes": 1}, {"commit_ms": 0}, {"commit_ms": 5000}):
        with pytest.raises(ValueError):
            _core_recorder.Recorder(watcher, str(path), **options)
    with pytest.raises(ValueError, match="path"):
        _core_recorder.Recorder(watcher, "")
    watcher.close()
    watched = watch()
    watched.commit()
    history = opened(path)
    history.close()
    history.close()
    with pytest.raises(ValueError, match="closed"):
        _ = history.runs
    with pytest.raises(memwatch.Error, match="No such file"):
        memwatch.open_history(path.parent / "nothing")


def test_through_the_watcher(path):
    with memwatch.MemoryWatcher(history_path=str(path), history_path_bytes=8 << 20) as watcher:
        weights = numpy.zeros((2, 3))
        watcher.watch(weights, "weights")
        weights[1, 2] = float("nan")
        watcher.flush()
        assert watcher.get_stats()["recorder"]["max_bytes"] == 8 << 20
    with memwatch.open_history(path) as history:
        (event,) = history.history("weights")
        assert event.where.file == __file__
        assert repr(event).startswith("<ChangeEvent 1 weights[1, 2]: 0.0 -> nan")
        assert history.value_at("weights", seq=0)[1, 2] == 0
        assert struct.pack("d", history.value_at("weights")[1, 2]) == struct.pack("d", weights[1, 2])
        assert history.runs[0].end_ns
