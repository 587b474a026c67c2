"""What a recording tells while it is written, to several threads, and of names that are no text."""

import contextlib
import ctypes
import sqlite3
import threading

import numpy
import pytest

MIB = 1 << 20


def test_events_that_left_while_they_were_read(watch, path, opened):
    watched, array = watch(max_bytes=MIB), numpy.zeros(500, "i8")
    watched.add(array, "array")
    truth = {}
    for _ in range(40):
        before = array.tobytes()
        array += 1
        truth[watched.settle()] = before, array.tobytes()
    watched.commit()
    history = opened(path)
    events = list(history.events())
    while history.runs[0].oldest_seq < events[-5].seq:
        array += 1
        watched.commit()
    for event in events:
        before, after = truth[event.seq]
        assert event.old_value in (None, before)
        assert event.new_value in (None, after)


def test_a_number_that_another_run_has_again(watch, path, opened):
    watched, data = watch(keep_runs=1), bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.commit()
    history = opened(path)
    assert history.value_at("data")[0] == 1
    watched.close()
    data[0] = 5
    watched = watch(keep_runs=1)
    watched.add(data, "data")
    data[1] = 5
    watched.commit()
    assert history.value_at("data") == data


def test_threads_that_read_the_same_history(sample, opened):
    history, errors = opened(sample), []
    newest = history.runs[0].newest_seq

    def read():
        try:
            for seq in range(newest - 40, newest):
                history.value_at("array", seq=seq)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_names_have_any_bytes(watch, path, opened):
    watched, data = watch(), bytearray(8)
    watched.add(data, "data")
    libc = ctypes.CDLL(None)

    def write():
        libc.prctl(15, "ä".encode() * 8, 0, 0, 0)  # cut in the midst of a letter
        data[0] = 1

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    newest = watched.commit()
    (live,) = watched.watcher.events_read(0, 10)[0]
    history = opened(path)
    (event,) = history.events()
    assert event.seq == newest
    assert event._record.thread_name == live.thread_name
    assert history.value_at("data") == data
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:  # as a C program may name it
        connection.execute("UPDATE variables SET name = CAST(x'ff41' AS TEXT)")
    history = opened(path)
    (event,) = history.events()
    assert event.variable_name == "\udcffA"
    assert history.value_at(event.variable_name) == data
    with pytest.raises(KeyError):
        history.value_at("A")


@pytest.mark.parametrize("patches", [True, False])
def test_changes_that_no_event_tells_are_in_the_values_after_the_next_one(watch, path, opened, patches):
    watched = watch(patches=patches)
    array, slow, number = numpy.zeros(6), bytearray(8), numpy.zeros(1)
    watched.add(array, "array", when=("gt", 100.0))
    watched.add(number, "number", when=("gt", 100.0))
    watched.add(slow, "slow", max_rate=1000.0)
    array[1] = number[0] = 1  # filtered
    watched.settle()
    truth = {}
    for step in range(1, 6):
        array[step] = 200 + step
        number[0] = 200 + step
        slow[step] = step
        seq = watched.settle()
        truth[seq] = array.tobytes(), number.tobytes()
        array[0] = number[0] = step
        watched.settle()
    slow[7] = 1
    watched.commit()
    history = opened(path)
    for seq, values in truth.items():
        assert tuple(history.value_at(name, seq=seq, raw=True) for name in ("array", "number")) == values
    assert history.value_at("slow") == slow
    with pytest.raises(KeyError):
        history.value_at("array", seq=0)
