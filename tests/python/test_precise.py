"""Hardware watchpoints: every write to a small variable is an event of its own."""

import array

import pytest

import memwatch


@pytest.fixture
def watcher():
    with memwatch.MemoryWatcher() as watcher:
        if not watcher.get_stats()["attribution"]["watchpoints"]:
            pytest.skip("this machine has no hardware watchpoints")
        yield watcher


def small():
    """Eight bytes that are aligned."""
    return memoryview(memwatch.buffer(4096))[64:72].cast("q")


def test_every_write_is_an_event_of_its_own(watcher):
    seen = []
    counter = small()
    watcher.set_callback(seen.append)
    watcher.watch(counter, "counter", precise=True)
    for value in range(1, 51):
        counter[0] = value
    assert watcher.flush()
    assert [(event.old[0], event.new[0]) for event in seen] == [(value - 1, value) for value in range(1, 51)]
    assert {event.where.function for event in seen} == {test_every_write_is_an_event_of_its_own.__name__}
    assert {event.where.attribution for event in seen} == {"exact"}
    assert watcher.get_stats()["attribution"]["watchpoint_hits"] >= 50


def test_the_fifth_is_an_error_and_nothing_is_half_done(watcher):
    views = [small() for _ in range(watcher.get_stats()["attribution"]["watchpoints"] + 1)]
    for index, view in enumerate(views[:-1]):
        watcher.watch(view, f"v{index}", precise=True)
    with pytest.raises(memwatch.Error, match="watchpoint"):
        watcher.watch(views[-1], "one too many", precise=True)
    assert watcher.get_stats()["tracked_regions"] == len(views) - 1
    assert watcher.unwatch("v0")
    watcher.watch(views[-1], "one too many", precise=True)


def test_what_does_not_fit_is_an_error(watcher):
    with pytest.raises(ValueError, match="1, 2, 4 or 8"):
        watcher.watch(array.array("q", range(4)), "too large", precise=True)
    with pytest.raises(ValueError, match="precise"):
        watcher.watch(bytearray(8), "odd", precise="perhaps")
