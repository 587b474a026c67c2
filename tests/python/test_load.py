"""Under load: convergence, the ledger, pages that are shared, bursts over more pages than the ring has slots, rest."""

import os
import threading
import time

import pytest

import memwatch

np = pytest.importorskip("numpy")

PAGE = os.sysconf("SC_PAGE_SIZE")
BACKENDS = [each["name"] for each in memwatch.backends() if each["usable"]]


def write_without_the_gil(array, stop, seed):
    """Ufuncs on large arrays run without the GIL."""
    rng = np.random.default_rng(seed)
    while not stop.is_set():
        begin = int(rng.integers(0, len(array) - 20000))
        part = array[begin : begin + 20000]
        np.add(part, seed, out=part)


@pytest.mark.parametrize("backend", BACKENDS)
def test_convergence_of_four_writers(backend, recorder, balance, of_load):
    arrays = {f"array {index}": np.zeros(100_000) for index in range(3)}
    arrays["small"] = np.zeros(400)
    stop = threading.Event()
    with memwatch.MemoryWatcher(backend=backend, event_budget=1 << 30, history_budget=1 << 28) as watcher:
        watcher.set_callback(recorder)
        for name, array in arrays.items():
            watcher.watch(array, name)
        writers = [
            threading.Thread(target=write_without_the_gil, args=(arrays[f"array {index % 3}"], stop, index + 1))
            for index in range(4)
        ]
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + of_load(2)
        while time.monotonic() < deadline:
            np.add(arrays["small"], 1, out=arrays["small"])
        stop.set()
        for writer in writers:
            writer.join()
        assert watcher.flush(30)
        for name, array in arrays.items():
            last = recorder.of(name)[-1]
            now = last.new_value if last.new_value is not None else watcher.load(last.storage_key_new)
            assert now == array.tobytes(), name
        stats = watcher.get_stats(regions=True)
        assert balance(stats) == 0, stats
        for region in stats["regions"].values():
            assert balance(region) == 0, region
        assert stats["detected"] == sum(region["detected"] for region in stats["regions"].values())
        assert [event.seq for event in recorder] == list(range(1, len(recorder) + 1))


def test_ten_buffers_on_one_page(watched, recorder, balance):
    page = memwatch.buffer(PAGE)
    buffers = [page[index * 100 : index * 100 + 100] for index in range(10)]
    for index, buffer in enumerate(buffers):
        watched.watch(buffer, f"buffer {index}")
    for index in (3, 7, 0):
        recorder.clear()
        buffers[index][5] += 1
        assert watched.flush()
        assert [event.variable_name for event in recorder] == [f"buffer {index}"]
    recorder.clear()
    page[2000] = 1  # on the page, in no region
    assert watched.flush()
    assert recorder == []
    stats = watched.get_stats(regions=True)
    assert balance(stats) == 0
    assert all(balance(region) == 0 for region in stats["regions"].values())


def test_regions_that_overlap(watched, recorder):
    data = memwatch.buffer(3 * PAGE)
    watched.watch(data, "all")
    watched.watch(data[100:200], "part")
    watched.watch(data[150 : PAGE + 150], "across")
    data[160] = 1
    assert watched.flush()
    assert sorted(event.variable_name for event in recorder) == ["across", "all", "part"]
    assert watched.unwatch("part")
    recorder.clear()
    data[160] = 2
    assert watched.flush()
    assert sorted(event.variable_name for event in recorder) == ["across", "all"]


def test_the_same_bytes_are_unchanged(watched, recorder):
    data = memwatch.buffer(PAGE)
    watched.watch(data, "data")
    data[5] = 0
    assert watched.flush()
    assert recorder == []
    stats = watched.get_stats(regions=True)
    assert stats["regions"]["data"]["unchanged"] == stats["regions"]["data"]["detected"] >= 1
    assert stats["delivered"] == 0


def test_there_and_back_in_a_window(watched, recorder):
    data = memwatch.buffer(PAGE)
    watched.watch(data, "data")
    for _ in range(1000):
        data[5] = 1
        data[5] = 0
    assert watched.flush()
    assert not recorder or recorder[-1].new_value[5] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_burst_over_more_pages_than_the_ring_has_slots(backend, recorder, balance):
    pages = 4000
    data = np.frombuffer(memwatch.buffer(pages * PAGE), "u1").reshape(pages, PAGE)
    with memwatch.MemoryWatcher(backend=backend, ring_capacity=64, attribution_budget=1) as watcher:
        watcher.watch(data, "data", callback=recorder)
        for round_number in range(1, 4):
            data[:, 17] = round_number
            assert watcher.flush(30)
            assert watcher.load(recorder[-1].storage_key_new) == data.tobytes()
        stats = watcher.get_stats()
        assert stats["ring_capacity"] == 64
        assert balance(stats) == 0
        if stats["ring_dropped"]:
            assert stats["dropped_events"] >= stats["ring_dropped"]


def test_a_thousand_small_objects(watched, recorder):
    objects = [bytearray(16) for _ in range(1000)]
    for index, obj in enumerate(objects):
        watched.watch(obj, f"object {index}")
    for index, obj in enumerate(objects):
        obj[index % 16] = 1 + index % 255
    assert watched.flush()
    last = {event.variable_name: event.new_value for event in recorder}
    assert last == {f"object {index}": bytes(obj) for index, obj in enumerate(objects)}


def test_watch_and_unwatch_while_it_is_written(watched, recorder):
    data = np.frombuffer(memwatch.buffer(16 * PAGE), "u1")
    stop = threading.Event()

    def write():
        while not stop.is_set():
            np.add(data, 1, out=data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            watched.watch(data, "data")
            watched.unwatch("data")
    finally:
        stop.set()
        writer.join()
    watched.watch(data, "data")
    data[0] ^= 1
    assert watched.flush()
    assert watched.load(recorder[-1].storage_key_new) == data.tobytes()


REST = """
import sys, time
import numpy as np
import memwatch

arrays = [np.zeros(1 << 20, "u1") for _ in range(1000)]
with memwatch.MemoryWatcher(history_budget=1 << 20) as watcher:
    if watcher.get_stats()["backend"] == "poll":
        sys.exit("polling compares all the time; docs/limits.md says so")
    for index, array in enumerate(arrays):
        watcher.watch(array, f"array {index}", values="none")
    assert watcher.flush(60)
    while watcher.get_stats()["sweep_ms"] < 200:  # it grows while nothing changes
        time.sleep(0.1)
    cpu, begin = time.process_time(), time.monotonic()
    time.sleep(float(sys.argv[1]))
    print((time.process_time() - cpu) / (time.monotonic() - begin))
"""


def test_rest_costs_nothing(run_python, of_load):
    """In a process that does nothing else."""
    result = run_python(REST, str(of_load(8)))
    if "polling" in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    share = float(result.stdout)
    assert share < 0.005, f"{share:.2%} of a core"
