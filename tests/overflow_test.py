#!/usr/bin/env python3
"""More written pages than the ring has slots: notes are lost, changes are not. Runs as a script and under pytest."""

import mmap
import sys
import threading
import time

import memwatch

PAGE = mmap.PAGESIZE


def ledger(account):
    """What detections ended as."""
    dropped = account["dropped"]
    lost = sum(dropped.values()) if isinstance(dropped, dict) else dropped
    return account["delivered"] + account["coalesced"] + account["unchanged"] + account["filtered"] + lost


def check_balance(watcher):
    """The ledger balances, in total and for each region."""
    stats = watcher.get_stats(regions=True)
    for account in [stats, *stats["regions"].values()]:
        assert account["detected"] == ledger(account), account
    return stats


def write_pages(pages, value):
    """One byte on each page."""
    for offset in range(0, len(pages), PAGE):
        pages[offset] = value


def test_a_burst_over_many_pages():
    pages = memwatch.buffer(2000 * PAGE)
    events = []
    with memwatch.MemoryWatcher(ring_capacity=16, attribution_budget=1) as watcher:
        watcher.watch(pages, "pages", callback=events.append)
        for value in range(1, 6):
            write_pages(pages, value)
            assert watcher.flush(30)
            assert watcher.load(events[-1].storage_key_new) == bytes(pages)
        stats = check_balance(watcher)
        assert stats["ring_capacity"] == 16
        assert stats["ring_high_water"] <= 16
        assert stats["dropped_events"] >= stats["ring_dropped"]
        if stats["attribution"]["available"]:
            assert stats["ring_dropped"] > 0


def test_many_regions_at_once():
    buffers = [memwatch.buffer(100) for _ in range(500)]
    events = []
    with memwatch.MemoryWatcher(ring_capacity=16, attribution_budget=1) as watcher:
        watcher.set_callback(events.append)
        for index, buffer in enumerate(buffers):
            watcher.watch(buffer, f"buf_{index}")
        for buffer in buffers:
            buffer[5] = 1
        assert watcher.flush(30)
        assert {event.variable_name for event in events} == {f"buf_{index}" for index in range(500)}
        assert all(event.new_value[5] == 1 for event in events)
        check_balance(watcher)


def test_two_writers_for_a_while():
    halves = [memwatch.buffer(500 * PAGE) for _ in range(2)]
    stop = threading.Event()
    last = {}

    def write(pages):
        value = 0
        while not stop.is_set():
            value = (value + 1) % 256
            write_pages(pages, value)

    with memwatch.MemoryWatcher(ring_capacity=16, history_budget=1 << 28) as watcher:
        watcher.set_callback(lambda event: last.__setitem__(event.variable_name, event))
        for index, pages in enumerate(halves):
            watcher.watch(pages, f"half_{index}")
        writers = [threading.Thread(target=write, args=(pages,)) for pages in halves]
        for writer in writers:
            writer.start()
        time.sleep(1)
        stop.set()
        for writer in writers:
            writer.join()
        assert watcher.flush(30)
        for index, pages in enumerate(halves):
            assert watcher.load(last[f"half_{index}"].storage_key_new) == bytes(pages)
        check_balance(watcher)


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"ok {name}")
    sys.exit(0)
