"""For those who write adapters: what an adapter must keep, as tests that run against yours.

    from memwatch.testing import AdapterConformance

    class TestMyAdapter(AdapterConformance):
        def make_adapter(self):
            return MyAdapter()

pytest collects the class as it is; `check_adapter(TestMyAdapter())` runs it without pytest. The suite watches a
bytearray; an adapter for something else overrides `make_object` and `change`. It needs neither the native core nor a
watcher: `Recorder` stands for the watcher's log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from memwatch._tracker import TrackerAdapter

LIMIT_S = 10.0
"""How long a check waits for what has to happen."""

ATTRIBUTIONS = ("exact", "page", "none")
REASONS = (
    *("none", "kernel", "throttled", "unavailable", "ring-full", "off", "traced", "blocked", "polling", "unknown"),
    *("own", "foreign"),
)


@dataclass(frozen=True)
class Posted:
    """One posted event."""

    seq: int
    region_id: int
    name: str
    old: Optional[bytes]
    new: Optional[bytes]
    old_object: object
    new_object: object
    attribution: str
    reason: str
    frames: tuple[tuple[str, str, int], ...]
    thread_id: int
    thread_name: str
    backend: str
    note: str

    @property
    def line(self) -> int:
        return self.frames[0][2] if self.frames else 0

    @property
    def function(self) -> str:
        return self.frames[0][1] if self.frames else ""


class Recorder:
    """An emitter that keeps what is posted. Any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._names: dict[int, str] = {}
        self._next_id = 1
        self.events: list[Posted] = []
        self.late: list[int] = []
        """Regions for which something was posted after they were removed."""

    def add(self, name: str, *, values: Optional[str] = None) -> int:
        with self._changed:
            if name in self._names.values():
                raise ValueError(f"the name {name!r} is in use")
            region_id, self._next_id = self._next_id, self._next_id + 1
            self._names[region_id] = name
            return region_id

    def remove(self, region_id: int) -> None:
        with self._changed:
            del self._names[region_id]

    def post(
        self,
        region_id: int,
        *,
        old: Optional[bytes],
        new: Optional[bytes],
        old_object: object = None,
        new_object: object = None,
        attribution: str = "exact",
        reason: str = "none",
        frames: Sequence[tuple[str, str, int]] = (),
        thread_id: int = 0,
        thread_name: str = "",
        backend: str = "external",
        time_ns: int = 0,
        note: str = "",
    ) -> int:
        with self._changed:
            if region_id not in self._names:
                self.late.append(region_id)
                return 0
            seq = len(self.events) + 1
            event = Posted(
                seq, region_id, self._names[region_id], old, new, old_object, new_object, attribution, reason,
                tuple(frames), thread_id, thread_name, backend, note,
            )  # fmt: skip
            self.events.append(event)
            self._changed.notify_all()
            return seq

    @property
    def names(self) -> dict[int, str]:
        """The regions there are, by id."""
        with self._changed:
            return dict(self._names)

    def wait(self, condition: Callable[[list[Posted]], object], limit_s: float = LIMIT_S) -> bool:
        """Whether the condition on the events came true in time."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: condition(self.events), limit_s))


class AdapterConformance:
    """The suite. Each test makes an adapter, binds it to a Recorder, and closes it."""

    def make_adapter(self) -> TrackerAdapter:
        raise NotImplementedError("return a new adapter")

    def make_object(self) -> Any:
        """Something the adapter can watch."""
        return bytearray(64)

    def change(self, obj: Any, step: int) -> None:
        """Changes the object; another step, another value."""
        obj[step % len(obj)] = (obj[step % len(obj)] + 1) % 256

    def not_watchable(self) -> object:
        """Something for which `track` must raise TypeError; None when the adapter takes everything."""
        return None

    # --- helpers --------------------------------------------------------------------------------------------------

    def opened(self) -> tuple[TrackerAdapter, Recorder]:
        adapter, recorder = self.make_adapter(), Recorder()
        adapter.bind(recorder)
        return adapter, recorder

    def tracked(self, adapter: TrackerAdapter, recorder: Recorder, obj: object, name: str = "thing") -> int:
        region_id = adapter.track(obj, {"name": name, "values": "full"})
        if region_id is None:
            region_id = recorder.add(name)
        return region_id

    def found(self, adapter: TrackerAdapter, recorder: Recorder, condition: Callable[[list[Posted]], object]) -> bool:
        """Whether the condition comes true while the adapter looks."""
        limit = time.monotonic() + LIMIT_S
        while time.monotonic() < limit:
            adapter.check_changes()
            if recorder.wait(condition, 0.05):
                return True
        return False

    # --- the tests ------------------------------------------------------------------------------------------------

    def test_is_a_tracker_adapter(self) -> None:
        assert isinstance(self.make_adapter(), TrackerAdapter), "derive from memwatch.adapters.TrackerAdapter"

    def test_track_returns_a_region_of_that_name(self) -> None:
        adapter, recorder = self.opened()
        region_id = self.tracked(adapter, recorder, self.make_object())
        assert recorder.names == {region_id: "thing"}, (
            "track adds one region, under metadata['name'], and returns its id"
        )
        adapter.close()

    def test_a_change_is_posted(self) -> None:
        adapter, recorder = self.opened()
        obj = self.make_object()
        region_id = self.tracked(adapter, recorder, obj)
        self.change(obj, 1)
        assert self.found(adapter, recorder, len), "a change is found, at the latest by check_changes"
        event = recorder.events[0]
        assert event.region_id == region_id
        assert event.old != event.new, "old and new differ"
        adapter.close()

    def test_events_say_how_well_the_writer_is_known(self) -> None:
        adapter, recorder = self.opened()
        obj = self.make_object()
        self.tracked(adapter, recorder, obj)
        self.change(obj, 1)
        assert self.found(adapter, recorder, len)
        event = recorder.events[0]
        assert event.attribution in ATTRIBUTIONS, event.attribution
        assert event.reason in REASONS, event.reason
        assert (event.attribution == "none") == (event.reason != "none"), "`none` has a reason, the others have none"
        assert event.backend not in ("", "external"), "post(backend=...) names the adapter"
        adapter.close()

    def test_nothing_is_posted_without_a_change(self) -> None:
        adapter, recorder = self.opened()
        self.tracked(adapter, recorder, self.make_object())
        for _ in range(3):
            adapter.check_changes()
        assert recorder.events == []
        adapter.close()

    def test_the_last_event_is_what_the_object_holds(self) -> None:
        adapter, recorder = self.opened()
        obj, other = self.make_object(), self.make_object()
        self.tracked(adapter, recorder, obj)
        for step in range(1, 20):
            self.change(obj, step)
            self.change(other, step)
        assert self.found(adapter, recorder, len)
        adapter.check_changes()
        n_events = len(recorder.events)
        adapter.check_changes()
        assert len(recorder.events) == n_events, "what was posted once is not posted again"
        chain = recorder.events
        assert all(after.old == before.new for before, after in zip(chain, chain[1:])), "each old is the new before it"
        adapter.close()

    def test_objects_are_told_apart(self) -> None:
        adapter, recorder = self.opened()
        one, two = self.make_object(), self.make_object()
        self.tracked(adapter, recorder, one, "one")
        self.tracked(adapter, recorder, two, "two")
        self.change(two, 1)
        assert self.found(adapter, recorder, len)
        adapter.check_changes()
        assert {event.name for event in recorder.events} == {"two"}
        adapter.close()

    def test_untrack_ends_it(self) -> None:
        adapter, recorder = self.opened()
        obj = self.make_object()
        region_id = self.tracked(adapter, recorder, obj)
        adapter.untrack(region_id)
        n_events = len(recorder.events)
        self.change(obj, 1)
        adapter.check_changes()
        assert len(recorder.events) == n_events and recorder.late == [], "nothing is posted after untrack"
        adapter.close()

    def test_untrack_of_an_unknown_id_is_ignored(self) -> None:
        adapter, _ = self.opened()
        adapter.untrack(987654)
        adapter.close()

    def test_watched_again_after_untrack(self) -> None:
        adapter, recorder = self.opened()
        obj = self.make_object()
        for step in range(1, 4):
            region_id = self.tracked(adapter, recorder, obj)
            self.change(obj, step)
            assert self.found(adapter, recorder, lambda events: events and events[-1].region_id == region_id)  # noqa: B023
            adapter.untrack(region_id)
            if region_id in recorder.names:
                recorder.remove(region_id)
        adapter.close()

    def test_what_cannot_be_watched_is_refused(self) -> None:
        bad = self.not_watchable()
        adapter, recorder = self.opened()
        if bad is not None:
            try:
                adapter.track(bad, {"name": "bad", "values": "full"})
            except TypeError:
                pass
            else:
                raise AssertionError("track raises TypeError for what it cannot watch")
            assert recorder.names == {}, "and leaves no region behind"
        adapter.close()

    def test_changes_from_two_threads(self) -> None:
        adapter, recorder = self.opened()
        obj = self.make_object()
        self.tracked(adapter, recorder, obj)
        threads = [threading.Thread(target=self.change, args=(obj, step)) for step in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.found(adapter, recorder, len)
        adapter.close()

    def test_stats_name_the_adapter(self) -> None:
        adapter, _ = self.opened()
        stats = adapter.get_stats()
        assert isinstance(stats["adapter"], str) and stats["adapter"]
        adapter.close()

    def test_close_twice_and_no_thread_is_left(self) -> None:
        before = set(threading.enumerate())
        adapter, recorder = self.opened()
        obj = self.make_object()
        self.tracked(adapter, recorder, obj)
        adapter.close()
        adapter.close()
        n_events = len(recorder.events)
        self.change(obj, 1)
        left = [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
        assert left == [], f"threads are left after close: {left}"
        assert len(recorder.events) == n_events, "nothing is posted after close"


def check_adapter(suite: AdapterConformance) -> list[str]:
    """Runs every test of the suite; the names of those that ran. AssertionError for the first that fails."""
    names = [name for name in dir(suite) if name.startswith("test_")]
    for name in names:
        getattr(suite, name)()
    return names


class RecordingWatcher:
    """As much of a watcher as adapters and `watch_name` and its like need. For tests without the native core."""

    def __init__(self, adapter: TrackerAdapter) -> None:
        self.adapter = adapter
        self.recorder = Recorder()
        adapter.bind(self.recorder)

    def _adapter_named(self, name: str) -> TrackerAdapter:
        return self.adapter

    def _track_with(self, adapter: TrackerAdapter, obj: object, name: str, **metadata: Any) -> Optional[int]:
        return adapter.track(obj, {"name": name, **metadata})

    def watch(self, obj: object, name: str, **metadata: Any) -> Optional[int]:
        return self.adapter.track(obj, {"name": name, **metadata})

    def unwatch(self, region_id: int) -> None:
        self.adapter.untrack(region_id)

    def close(self) -> None:
        self.adapter.close()
