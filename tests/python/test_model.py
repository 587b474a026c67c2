"""A model of the history: whatever is written, watched, unwatched and evicted, each key that still loads is right."""

import os
import time

import pytest

import memwatch

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule  # noqa: E402

SIZE = 3 * 4096 + 100
NAMES = st.sampled_from(["one", "two", "three"])


class History(RuleBasedStateMachine):
    """Three variables, of which two overlap; a budget that holds a handful of versions."""

    @initialize()
    def open(self):
        self.memory = memwatch.buffer(2 * SIZE)
        self.memory[0] = 0
        self.views = {
            "one": self.memory[:SIZE],
            "two": self.memory[SIZE // 2 : SIZE // 2 + SIZE],
            "three": self.memory[SIZE:],
        }
        self.watcher = memwatch.MemoryWatcher(window_ms=1, history_budget=40_000, inline_threshold=64)
        self.events = []
        self.watcher.set_callback(self.events.append)
        self.copies = {}  # storage key: the bytes
        self.latest = {}  # name: what the last event left

    def teardown(self):
        if hasattr(self, "watcher"):
            self.watcher.close()

    @rule(name=NAMES)
    def watch(self, name):
        if name not in self.latest:
            self.watcher.watch(self.views[name], name)
            self.latest[name] = bytes(self.views[name])

    @rule(name=NAMES)
    def unwatch(self, name):
        assert self.watcher.unwatch(name) == (name in self.latest)
        self.latest.pop(name, None)

    @rule(offset=st.integers(0, 2 * SIZE - 1), data=st.binary(min_size=1, max_size=300))
    def write(self, offset, data):
        data = data[: 2 * SIZE - offset]
        self.memory[offset : offset + len(data)] = data
        self.settle()

    @rule(offset=st.integers(0, 2 * SIZE - 5000), value=st.integers(0, 255))
    def write_much(self, offset, value):
        self.memory[offset : offset + 5000] = bytes([value]) * 5000
        self.settle()

    def settle(self):
        assert self.watcher.flush(30)
        of_name = {event.variable_name: [] for event in self.events}
        for event in self.events:
            of_name[event.variable_name].append(event)
        for name, events in of_name.items():  # more than one where a window ended in the middle of the write
            self.copies[events[0].storage_key_old] = self.latest[name]
            self.copies[events[-1].storage_key_new] = self.latest[name] = bytes(self.views[name])
        self.events.clear()

    @invariant()
    def what_loads_is_right(self):
        for key, copy in list(getattr(self, "copies", {}).items()):
            try:
                data = self.watcher.load(key)
            except KeyError:
                del self.copies[key]  # evicted, or its region is gone: for ever
            else:
                assert data == copy

    @invariant()
    def the_budget_holds(self):
        if hasattr(self, "watcher"):
            assert self.watcher.get_stats()["history_bytes"] <= 48_000

    @invariant()
    def the_latest_version_always_loads(self):
        for name, latest in getattr(self, "latest", {}).items():
            assert self.watcher.value_at(name, time=time.time()) == latest


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=40 if os.environ.get("MEMWATCH_STRESS") else 10,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
