"""all() and the single names, in a real watcher: what is watched, what is skipped and why."""

import sys
import threading
import time
import types

import pytest

from memwatch import MemoryWatcher, buffer
from memwatch._scope import size_of, view_of

np = pytest.importorskip("numpy")

module_level = {"debug": False}


@pytest.fixture
def module():
    """An imported module with names of every kind."""
    module = types.ModuleType("shop")
    sys.modules["shop"] = module
    source = """
import os
from dataclasses import dataclass

counter = 0
title = "shop"
items = [1, 2]
config = {"debug": False}
data = bytearray(b"Hello")
frozen = b"bytes"
_private = 1
__version__ = "1"

@dataclass
class Settings:
    timeout: int = 30

settings = Settings()

def handler():
    global counter
    counter += 1
"""
    exec(compile(source, "shop.py", "exec"), module.__dict__)
    yield module
    del sys.modules["shop"]


def names_of(events):
    return [event.variable_name for event in events]


def test_locals_and_globals_by_default(watcher, recorder, wait_for):
    number, text = 1, "a"
    data = bytearray(b"Hello")
    watched = watcher.all(exclude=["watcher", "recorder", "wait_for"])
    assert {"number", "text", "data", "module_level"} <= set(watched)
    assert all(isinstance(region_id, int) for region_id in watched.values())
    watcher.set_callback(recorder)
    number, text = 2, "b"
    data[0] = ord("J")
    module_level["debug"] = not module_level["debug"]
    assert watcher.flush()
    wait_for(lambda: {"number", "text", "data", "module_level"} <= set(names_of(recorder)))
    assert (number, text) == (2, "b")
    by_name = {event.variable_name: event for event in recorder}
    assert by_name["data"].new_value == b"Jello"
    assert by_name["data"].backend != "trace"
    assert by_name["number"].backend == "trace"
    assert by_name["number"].where.function == "test_locals_and_globals_by_default"


def test_what_is_skipped_and_why(watcher, module):
    watched = watcher.all(scope="module:shop")
    assert set(watched) == {"counter", "title", "items", "config", "data", "frozen", "_private", "settings"}
    skipped = {name: why for name, why in watched.skipped.items() if not name.startswith("__")}
    assert skipped == {"os": "module", "dataclass": "function", "Settings": "class", "handler": "function"}
    assert watched.skipped["__version__"] == "dunder name"
    assert repr(watched).startswith("<8 names watched, ")


def test_a_module_scope_sees_the_functions_of_the_module(watcher, module, recorder, wait_for):
    watcher.all(scope="module:shop", callback=recorder)
    module.handler()
    module.settings.timeout = 5
    wait_for(lambda: len(recorder) >= 2)
    assert sorted(names_of(recorder)) == ["counter", "settings"]
    assert recorder.of("counter")[0].where.line == 22


def test_include_exclude_and_sizes(watcher, module):
    small = watcher.all(scope="module:shop", include=["c*", "d*", "t*"], exclude="title", max_size=250)
    assert set(small) == {"counter", "config", "data"}
    assert small.skipped["title"] == "excluded"
    assert small.skipped["items"] == "not included"
    large = watcher.all(scope="module:shop", include="[!cd]*", min_size=30)
    assert "items" in large
    assert large.skipped["counter"] == "not included"


def test_one_names_region_is_not_taken_twice(watcher, module):
    first = watcher.all(scope="module:shop")
    second = watcher.all(scope="module:shop")
    assert len(first) == 8
    assert len(second) == 0
    assert "already watched" in second.skipped["counter"]


def test_an_object_scope(watcher, recorder, wait_for):
    class Model:
        def __init__(self):
            self.weights = np.zeros(4)
            self.epoch = 0
            watcher.all(scope="object", callback=recorder)

        def step(self):
            self.epoch += 1
            self.weights[1] = 0.5

        @property
        def loud(self):
            raise AssertionError("a property was called")

    model = Model()
    model.step()
    wait_for(lambda: len(recorder) >= 2)
    assert sorted(names_of(recorder)) == ["epoch", "weights"]
    assert recorder.of("epoch")[0].where.function.endswith("Model.step")
    other = types.SimpleNamespace(volume=1)
    assert set(watcher.all(scope=other)) == {"volume"}


def test_bad_scopes(watcher):
    with pytest.raises(ValueError, match="scope must be"):
        watcher.all(scope="everything")
    with pytest.raises(ValueError, match="no module"):
        watcher.all(scope="module:not.imported")


def test_locals_shadow_globals(watcher):
    module_level = 5
    watched = watcher.all(include="module_level")
    assert set(watched) == {"module_level"}
    assert watcher.get_stats(regions=True)["regions"]["module_level"]["backend"] == "external"
    assert module_level == 5


def test_refresh_follows_names_that_appear(watcher, module, recorder, wait_for):
    watched = watcher.all(scope="module:shop", refresh=True, callback=recorder)
    module.fresh = 1
    wait_for(lambda: "fresh" in watched)
    module.fresh = 2
    wait_for(lambda: recorder.of("fresh"))
    old_id = watched["data"]
    module.data = bytearray(b"other")
    wait_for(lambda: watched.get("data") not in (None, old_id))
    module.data[0] = 0
    wait_for(lambda: recorder.of("data"))
    assert recorder.of("data")[-1].old_value == b"other"


def test_no_code_of_the_user_runs(watcher):
    class Hostile:
        def _fail(self, *arguments):
            raise AssertionError("user code was called")

        __eq__ = __hash__ = __repr__ = __len__ = __bool__ = __iter__ = __sizeof__ = __getattr__ = __buffer__ = _fail
        __class__ = property(_fail)
        loud = property(_fail)

    class Meta(type):
        def __getattribute__(cls, name):
            raise AssertionError("user code was called")

    class Odd(metaclass=Meta):
        pass

    hostile = type.__call__(Hostile)
    odd = type.__call__(Odd)
    inside = [hostile, odd]
    watched = watcher.all(scope="locals", exclude="watcher", min_size=0)
    assert {"hostile", "odd", "inside"} <= set(watched)
    hostile = odd = inside = None
    assert hostile is odd is inside


@pytest.mark.alone
def test_two_hundred_names_in_fifty_milliseconds(watcher, slowness):
    module = types.ModuleType("large")
    sys.modules["large"] = module
    for number in range(200):
        module.__dict__[f"name_{number}"] = [number, str(number), {"a": number}, None, (1, 2)][number % 5]
    try:
        watcher.watch_attr(module, "name_0", alias="warm")
        times = []
        for turn in range(5):
            started = time.thread_time()
            watched = watcher.all(scope="module:large")
            times.append(time.thread_time() - started)
            assert len(watched) == 200
            if turn < 4:
                for region_id in watched.values():
                    watcher.unwatch(region_id)
        assert min(times) < 0.050 * slowness()
    finally:
        del sys.modules["large"]


def test_single_names(watcher, recorder, wait_for):
    counter = 0
    settings = types.SimpleNamespace(timeout=30)
    mapping = {"key": 1}
    ids = [
        watcher.watch_name("counter", callback=recorder),
        watcher.watch_attr(settings, "timeout", callback=recorder),
        watcher.watch_item(mapping, "key", callback=recorder),
    ]
    counter = 1
    settings.timeout = 0
    mapping["key"] = 2
    wait_for(lambda: len(recorder) == 3)
    assert [(event.variable_name, event.old, event.new) for event in recorder] == [
        ("counter", 0, 1),
        ("settings.timeout", 30, 0),
        ("mapping['key']", 1, 2),
    ]
    assert [event.region_id for event in recorder] == ids
    assert all(event.where.attribution == "exact" for event in recorder)
    assert watcher.unwatch("counter")
    counter = 2
    watcher.flush()
    assert len(recorder) == 3
    assert counter == 2


def test_a_deleted_name_says_so_in_its_callback(watcher, recorder, wait_for):
    mapping = {"key": 1}
    watcher.watch_item(mapping, "key", callback=recorder)
    del mapping["key"]
    wait_for(lambda: recorder)
    assert recorder[0].note == "ended: item deleted"
    assert not watcher.unwatch("mapping['key']")


def test_threads_in_a_watcher(watcher, recorder, wait_for):
    """Two threads of five writes are ten events that name their threads."""
    state = {"value": None}
    turns = [threading.Semaphore(1), threading.Semaphore(0)]
    watcher.watch_item(state, "value", callback=recorder)

    def write(me):
        for step in range(5):
            turns[me].acquire()
            state["value"] = (me, step)
            turns[1 - me].release()

    threads = [threading.Thread(target=write, args=(me,), name=f"writer-{me}") for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: len(recorder) == 10)
    assert [event.thread_name for event in recorder] == ["writer-0", "writer-1"] * 5


def test_secrets_are_hidden_in_the_log_and_open_to_the_callback(watcher, recorder, wait_for):
    password = "old"
    watcher.watch_name("password", callback=recorder)
    password = "new"
    wait_for(lambda: recorder)
    assert recorder[0].old_value is None
    assert recorder[0].new_preview is None
    assert password == "new"


def test_the_stats_of_the_trace_adapter(watcher):
    value = 1
    watcher.watch_name("value")
    value = 2
    stats = watcher.get_stats()["adapters"]["trace"]
    assert (stats["adapter"], stats["tracked"], stats["posted"]) == ("trace", 1, 1)
    assert value == 2


def test_closing_ends_the_tracing():
    before = sys.gettrace()
    value = 1
    watcher = MemoryWatcher()
    watcher.watch_name("value")
    watcher.close()
    value = 2
    assert value == 2
    assert sys.gettrace() is before
    assert not [thread for thread in threading.enumerate() if thread.name == "memwatch-sweep"]
    if sys.version_info >= (3, 12):
        assert "memwatch" not in [sys.monitoring.get_tool(tool) for tool in range(6)]


def test_sizes():
    assert size_of(bytearray(100)) == 100
    assert size_of(np.zeros(10)) == 80
    assert size_of([1, 2]) == [1, 2].__sizeof__()
    assert view_of(5) is None
    assert view_of(buffer(8)).nbytes == 8
