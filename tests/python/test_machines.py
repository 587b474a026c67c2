"""What a watcher says on machines where memory is polled."""

import warnings

import pytest

import memwatch


def test_much_polled_memory_is_told_once():
    with memwatch.MemoryWatcher(backend="poll") as watcher:
        small, large = bytearray(4096), memwatch.buffer(300 << 20)
        watcher.watch(small, name="small")
        with pytest.warns(
            RuntimeWarning, match=r"^300 MiB are polled: a change may be told up to \d+ s late .*poll_budget"
        ):
            watcher.watch(large, name="large", shadow="hash")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            watcher.watch(bytearray(4096), name="more")
        stats = watcher.get_stats()
        assert stats["polled_bytes"] >= 300 << 20
        assert stats["poll_round_ms"] > 0


def test_what_is_armed_is_not_polled():
    with memwatch.MemoryWatcher() as watcher:
        if watcher.get_stats()["backend"] == "poll":
            pytest.skip("nothing can be armed here")
        data = memwatch.buffer(1 << 20)
        watcher.watch(data, name="data")
        stats = watcher.get_stats()
        assert (stats["polled_bytes"], stats["poll_round_ms"]) == (0, 0)
