"""A cell of a notebook runs again: replace=True."""

from __future__ import annotations

import pytest

import memwatch


def test_the_new_one_takes_the_name() -> None:
    with memwatch.MemoryWatcher() as watcher:
        first, second = memwatch.buffer(8), memwatch.buffer(16)
        old_id = watcher.watch(first, "a", replace=True)
        with pytest.raises(ValueError, match="already watched"):
            watcher.watch(second, "a")
        first[0] = 1
        new_id = watcher.watch(second, "a", replace=True)
        assert new_id != old_id
        first[1] = 1
        second[0] = 2
        watcher.flush()
        assert [event.region_id for event in watcher.events(since=0, timeout=0)] == [old_id, new_id]
        assert watcher.get_stats()["tracked_regions"] == 1


def test_what_cannot_be_watched_replaces_nothing() -> None:
    with memwatch.MemoryWatcher() as watcher:
        data = bytearray(8)
        watcher.watch(data, "a")
        with pytest.raises(TypeError):
            watcher.watch(5, "a", replace=True)
        assert watcher.unwatch("a")


def test_with_an_adapter() -> None:
    with memwatch.MemoryWatcher(memwatch.adapters.PollingAdapter()) as watcher:
        first, second = bytearray(8), bytearray(8)
        watcher.watch(first, "a")
        watcher.watch(second, "a", replace=True)
        assert watcher.get_stats()["tracked_regions"] == 1
