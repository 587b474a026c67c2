#!/usr/bin/env python3
"""All of it together, the way the quick reference shows it. Runs as a script and under pytest."""

import os
import sys
import urllib.request

import memwatch
from memwatch import MemoryWatcher

try:
    import numpy
except ImportError:
    numpy = None


def test_quick_start():
    events = []
    watcher = MemoryWatcher()
    data = bytearray(b"Hello")
    watcher.watch(data, name="data")
    watcher.set_callback(events.append)
    data[0] = ord("J")
    watcher.close()
    assert [(event.variable_name, event.old_value, event.new_value) for event in events] == [
        ("data", b"Hello", b"Jello")
    ]


def test_numpy_array():
    if numpy is None:
        return
    array = numpy.zeros((1000, 1000))
    events = []
    with MemoryWatcher() as watcher:
        watcher.watch(array, name="my_array", callback=events.append)
        array[3, 17] = 0.5
        assert watcher.flush()
        event = events[0]
        assert event.how_big == 8_000_000
        assert (event.old_value, event.new_value) == (None, None)
        assert (len(event.old_preview), len(event.new_preview)) == (256, 256)
        assert watcher.load(event.storage_key_new) == array.tobytes()
        assert watcher.load(event.storage_key_old) == bytes(8_000_000)
        assert event.where["function"] == "test_numpy_array"


def test_many_buffers():
    buffers = [bytearray(100) for _ in range(10)]
    names = []
    with MemoryWatcher() as watcher:
        watcher.set_callback(lambda event: names.append(event.variable_name))
        for index, buffer in enumerate(buffers):
            watcher.watch(buffer, name=f"buf_{index}")
        for buffer in reversed(buffers):
            buffer[0] = 1
            assert watcher.flush()
        assert names == [f"buf_{index}" for index in reversed(range(10))]
        stats = watcher.get_stats()
        assert (stats["tracked_regions"], stats["tracked_bytes"]) == (10, 1000)
        assert f"{stats['native_memory_bytes']:,}"
        assert stats["dropped_events"] == 0


def test_event_fields():
    events = []
    data = memwatch.buffer(100)
    with MemoryWatcher() as watcher:
        region_id = watcher.watch(data, name="data", callback=events.append)
        data[10] = 7
    event = events[0]
    assert event.seq == 1
    assert event.timestamp_ns > 1_600_000_000 * 10**9
    assert event.region_id == region_id
    assert event.where["file"] == os.path.abspath(__file__) or event.where["attribution"] != "exact"
    assert set(event.where) >= {"file", "function", "line", "fault_ip"}
    assert event.how_big == 100
    assert event.changes == [(10, 1)]
    assert event.thread_id
    assert event.thread_name == "MainThread" or event.where.attribution == "none"


def test_system_calls_write_too():
    data = memwatch.buffer(100)
    events = []
    reader, writer = os.pipe()
    try:
        with MemoryWatcher() as watcher:
            watcher.watch(data, name="data", callback=events.append)
            os.write(writer, b"from the kernel")
            assert os.readv(reader, [data]) == 15
            assert watcher.flush()
    finally:
        os.close(reader)
        os.close(writer)
    assert events[0].new_value.startswith(b"from the kernel")


def test_feeds_and_metrics():
    data = memwatch.buffer(100)
    with MemoryWatcher() as watcher:
        try:
            server = watcher.serve(port=0)
        except memwatch.Error as error:
            if "exporter" in str(error):
                return
            raise
        watcher.watch(data, name="data")
        data[0] = 1
        assert watcher.flush()
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/api/v1/events?since=0", headers={"Authorization": f"Bearer {server.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert b'"data"' in answer.read()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
            assert b'variable="data"' in answer.read()


def test_custom_adapter():
    from memwatch.adapters import TrackerAdapter

    class MyAdapter(TrackerAdapter):
        def track(self, obj, metadata):
            self.tracked = obj

        def untrack(self, region_id):
            self.tracked = None

        def check_changes(self):
            return []

        def get_stats(self):
            return {"adapter": "my_adapter"}

    adapter = MyAdapter()
    with MemoryWatcher(adapter=adapter) as watcher:
        region_id = watcher.watch({"any": "object"}, name="thing")
        assert adapter.tracked == {"any": "object"}
        assert {"adapter": "my_adapter"} in watcher.get_stats()["adapters"].values()
        assert watcher.unwatch(region_id)
        assert adapter.tracked is None
        assert not watcher.unwatch("thing")


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"ok {name}")
    sys.exit(0)
