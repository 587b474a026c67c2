"""Watching a name changes no code that does not mention it, and what does mention it is told, however it is called."""

import ast
import asyncio
import sys
import threading

import numpy as np
import pytest

import memwatch


class Settings:
    mode = "start"


@pytest.fixture
def settings():
    settings = Settings()
    settings.mode = "start"
    return settings


def value_of(event):
    """What the name holds now, from its repr."""
    return ast.literal_eval(event.new_value.decode())


@pytest.fixture
def told(settings, watcher):
    """The writers that were told, as (function, value)."""
    events = []
    watcher.set_callback(events.append)
    watcher.watch_attr(settings, "mode")

    def _told():
        assert watcher.flush()
        return [(event.where.function.rpartition(".")[2], value_of(event)) for event in events]

    return _told


def grow():
    array = np.array([1] * 10, np.float32)
    array.resize([20, 20])
    return array.shape


def generate():
    yield grow()


async def grow_later():
    await asyncio.sleep(0)
    return grow()


class Growing:
    def __enter__(self):
        return grow()

    def __exit__(self, *error):
        pass

    def __getitem__(self, index):
        return grow()

    @property
    def size(self):
        return grow()


def in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(grow()))
    thread.start()
    thread.join()
    return found[0]


def in_a_context():
    with Growing() as shape:
        return shape


WAYS = {
    "call": grow,
    "generator": lambda: next(generate()),
    "coroutine": lambda: asyncio.run(grow_later()),
    "item": lambda: Growing()[0],
    "property": lambda: Growing().size,
    "context": in_a_context,
    "thread": in_a_thread,
    "map": lambda: next(map(type(grow).__call__, [grow])),
    "key": lambda: max([1, 2], key=lambda _: grow()[0]) and grow(),
}


@pytest.mark.parametrize("way", WAYS)
def test_other_code_may_resize_its_arrays(way, told):
    assert WAYS[way]() == (20, 20)


def count_references():
    """As a method that is written in C finds them, when it is called with the object's only name."""
    found, values = [], [0]
    values.sort(key=lambda _: found.append(sys.getrefcount(values)) or 0)
    return found


def test_no_reference_more_is_counted(settings, watcher):
    before = count_references()
    watcher.watch_attr(settings, "mode")
    assert count_references() == before


def change(settings, value):
    settings.mode = value


def nested(settings, depth, value):
    """Frames that concern nothing, about one that does."""
    return change(settings, value) if depth == 0 else nested(settings, depth - 1, value)


def test_a_writer_is_told_below_code_that_concerns_nothing(settings, told):
    nested(settings, 20, "deep")
    assert told() == [("change", "deep")]


class Holder:
    def __init__(self, settings):
        self.settings = settings

    def __getitem__(self, index):
        self.settings.mode = index
        return index


def read_in_a_loop(holder, n):
    total = 0
    for index in range(n):
        total += holder[index]
    return total


def test_an_item_that_was_read_often_before_the_watch(settings, watcher):
    """The interpreter begins the frame of a __getitem__ that it has learnt by itself."""
    holder, events = Holder(settings), []
    for _ in range(100):
        read_in_a_loop(holder, 10)
    watcher.set_callback(events.append)
    watcher.watch_attr(settings, "mode")
    read_in_a_loop(holder, 5)
    assert watcher.flush()
    assert [value_of(event) for event in events] == [0, 1, 2, 3, 4]
    assert {event.where.function for event in events} == {"Holder.__getitem__"}


def test_a_frame_that_runs_when_the_watch_comes(settings, watcher):
    events = []
    watcher.set_callback(events.append)

    def _watch():
        watcher.watch_attr(settings, "mode")

    def _runs():
        _watch()
        settings.mode = "after"
        grow()
        settings.mode = "after the call"

    _runs()
    assert watcher.flush()
    assert [value_of(event) for event in events] == ["after", "after the call"]
    assert {event.where.function.rpartition(".")[2] for event in events} == {"_runs"}


def test_generators_that_are_thrown_into(settings, told):
    def _catches():
        while True:
            try:
                yield
            except ValueError:
                settings.mode = "caught"

    def _throws():
        generator = _catches()
        next(generator)
        generator.throw(ValueError())

    _throws()
    assert told() == [("_catches", "caught")]


def test_exceptions_pass_as_ever(settings, told):
    def _raises():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nested_raises(_raises, 5)
    change(settings, "later")
    assert told() == [("change", "later")]


def nested_raises(function, depth):
    return function() if depth == 0 else nested_raises(function, depth - 1)


def test_a_profiler_that_comes_and_goes(settings, told):
    calls = []

    def _profile(frame, event, arg):
        if event == "call":
            calls.append(frame.f_code.co_name)

    sys.setprofile(_profile)
    nested(settings, 2, "profiled")
    sys.setprofile(None)
    nested(settings, 2, "plain")
    assert calls.count("nested") == 3
    assert told() == [("change", "profiled"), ("change", "plain")]


def test_a_debugger_that_comes_later_sees_all_lines(settings, told):
    seen, mine = [], sys.gettrace()

    def _tracer(frame, event, arg):
        if frame.f_code is nested.__code__ and event == "call":
            seen.append(event)

    sys.settrace(_tracer)
    nested(settings, 3, "debugged")
    sys.settrace(mine)
    assert len(seen) == 4
    nested(settings, 3, "after the debugger")
    assert ("change", "after the debugger") in told()


def test_nothing_is_left_when_the_watch_ends(settings):
    before = sys.gettrace()
    with memwatch.MemoryWatcher() as watcher:
        watcher.watch_attr(settings, "mode")
        assert grow() == (20, 20)
    assert sys.gettrace() is before
    assert grow() == (20, 20)
    change(settings, "unwatched")
