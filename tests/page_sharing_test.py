#!/usr/bin/env python3
"""Several variables on one page: a write to one is an event of that one only. Runs as a script and under pytest."""

import mmap
import sys

import memwatch

PAGE = mmap.PAGESIZE


def watch_all(watcher, buffers):
    """Watches each buffer by its name."""
    return {name: watcher.watch(buffer, name) for name, buffer in buffers.items()}


def changed(watcher, events):
    """The names that changed since the last call, in the order of their events."""
    assert watcher.flush()
    names = [event.variable_name for event in events]
    events.clear()
    return names


def test_ten_buffers_on_one_page():
    page = memwatch.buffer(PAGE)
    buffers = {f"buf_{index}": page[index * 400 : index * 400 + 400] for index in range(10)}
    events = []
    with memwatch.MemoryWatcher() as watcher:
        watch_all(watcher, buffers)
        watcher.set_callback(events.append)
        for name, buffer in buffers.items():
            buffer[17] = 1
            assert changed(watcher, events) == [name]


def test_ten_small_objects_on_the_heap():
    buffers = {f"buf_{index}": bytearray(100) for index in range(10)}
    events = []
    with memwatch.MemoryWatcher() as watcher:
        watch_all(watcher, buffers)
        watcher.set_callback(events.append)
        for name, buffer in buffers.items():
            buffer[17] = 1
            assert changed(watcher, events) == [name]


def test_all_of_a_page_at_once():
    page = memwatch.buffer(PAGE)
    buffers = {f"buf_{index}": page[index * 400 : index * 400 + 400] for index in range(10)}
    events = []
    with memwatch.MemoryWatcher() as watcher:
        watch_all(watcher, buffers)
        watcher.set_callback(events.append)
        page[:] = b"\xff" * PAGE
        assert sorted(changed(watcher, events)) == sorted(buffers)


def test_a_neighbour_that_is_not_watched():
    page = memwatch.buffer(PAGE)
    events = []
    with memwatch.MemoryWatcher() as watcher:
        watcher.watch(page[:100], "watched")
        watcher.set_callback(events.append)
        page[200] = 1
        assert changed(watcher, events) == []
        page[50] = 1
        assert changed(watcher, events) == ["watched"]


def test_the_others_stay_when_one_is_unwatched():
    page = memwatch.buffer(PAGE)
    buffers = {f"buf_{index}": page[index * 400 : index * 400 + 400] for index in range(10)}
    events = []
    with memwatch.MemoryWatcher() as watcher:
        ids = watch_all(watcher, buffers)
        watcher.set_callback(events.append)
        assert watcher.unwatch(ids["buf_4"])
        buffers["buf_4"][0] = buffers["buf_5"][0] = 1
        assert changed(watcher, events) == ["buf_5"]


def test_a_region_over_the_edge_of_two_pages():
    pages = memwatch.buffer(2 * PAGE)
    events = []
    with memwatch.MemoryWatcher() as watcher:
        watcher.watch(pages[PAGE - 4 : PAGE + 4], "edge")
        watcher.set_callback(events.append)
        pages[PAGE - 2 : PAGE + 2] = b"edge"
        assert watcher.flush()
        # Two events where a window ended between the two pages' parts of the write.
        values = [bytes(8), *(event.new_value for event in events)]
        assert [event.old_value for event in events] == values[:-1]
        assert values[-1] == b"\0\0edge\0\0" and len(values) <= 3


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"ok {name}")
    sys.exit(0)
