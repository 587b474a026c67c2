"""Adapters: the conformance suite on those that come with memwatch, and adapters of others in a watcher."""

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from memwatch import MemoryWatcher
from memwatch._emit import Emitter, Objects
from memwatch.adapters import MprotectAdapter, PollingAdapter, TraceAdapter, TrackerAdapter
from memwatch.testing import AdapterConformance, Recorder, check_adapter

PACKAGE = Path(__file__).resolve().parents[2] / "python"


class TestPolling(AdapterConformance):
    def make_adapter(self):
        return PollingAdapter(interval_s=0.01)

    def not_watchable(self):
        return 5


class TestPollingOfLists(TestPolling):
    def make_object(self):
        return [0] * 10


class TestTrace(AdapterConformance):
    def make_adapter(self):
        return TraceAdapter()

    def make_object(self):
        return {"a": 1}

    def change(self, obj, step):
        obj["a"] = obj["a"] + step

    def not_watchable(self):
        return 5


class Deaf(TrackerAdapter):
    """Keeps nothing of what an adapter must keep."""

    def track(self, obj, metadata):
        self.emitter.add("another name")
        return self.emitter.add("and one more")


def test_the_suite_fails_adapters_that_keep_nothing():
    class Suite(AdapterConformance):
        def make_adapter(self):
            return Deaf()

    with pytest.raises(AssertionError):
        check_adapter(Suite())


@pytest.mark.parametrize("fault", ["late", "repeats", "mixes"])
def test_the_suite_finds_single_faults(fault):
    class Faulty(PollingAdapter):
        def __init__(self):
            super().__init__(interval_s=3600)
            self.objects = {}

        def track(self, obj, metadata):
            region_id = super().track(obj, metadata)
            self.objects[region_id] = metadata["name"]
            return region_id

        def untrack(self, region_id):
            super().untrack(region_id)
            if fault == "late" and region_id in self.objects:
                self.emitter.post(region_id, old=b"", new=b"late")

        def check_changes(self):
            changed = super().check_changes()
            for region_id in changed if fault in ("repeats", "mixes") else ():
                ids = [region_id] if fault == "repeats" else list(self.objects)
                for other in ids:
                    self.emitter.post(other, old=b"x", new=b"y", attribution="none", reason="polling", backend="f")
            return changed

    class Suite(AdapterConformance):
        def make_adapter(self):
            return Faulty()

    with pytest.raises(AssertionError):
        check_adapter(Suite())


def test_check_adapter_names_what_it_ran():
    names = check_adapter(TestPolling())
    assert "test_a_change_is_posted" in names
    assert len(names) > 10


# --- in a watcher -----------------------------------------------------------------------------------------------------


def test_the_example_of_the_quick_reference():
    class MyAdapter(TrackerAdapter):
        def track(self, obj, metadata):
            # Register with native core
            # Return region_id
            pass

        def untrack(self, region_id):
            # Unregister
            pass

        def check_changes(self):
            # Optional: sync check
            return []

        def get_stats(self):
            return {"adapter": "my_adapter"}

    watcher = MemoryWatcher(adapter=MyAdapter())
    region_id = watcher.watch([1, 2, 3], name="anything")
    assert isinstance(region_id, int)
    assert "my_adapter" in str(watcher.get_stats()["adapters"])
    assert watcher.unwatch(region_id)
    assert not watcher.unwatch(region_id)
    watcher.close()


def test_an_adapters_events_reach_every_sink(wait_for, recorder):
    class Manual(TrackerAdapter):
        def track(self, obj, metadata):
            return self.emitter.add(metadata["name"], values=metadata["values"])

    adapter = Manual()
    with MemoryWatcher(adapter=adapter) as watcher:
        watcher.set_callback(recorder)
        stream = watcher.events()
        region_id = watcher.watch(object(), name="thing")
        old, new = object(), object()
        adapter.emitter.post(
            region_id, old=b"old", new=b"new!", old_object=old, new_object=new, frames=[("f.py", "g", 7)],
            thread_id=1, thread_name="T", backend="manual", note="by hand",
        )  # fmt: skip
        assert watcher.flush()
        wait_for(lambda: len(recorder) == 1)
        [event] = recorder
        assert (event.old, event.new, event.note) == (old, new, "by hand")
        assert (event.old_value, event.new_value) == (b"old", b"new!")
        assert (event.where.file, event.where.function, event.where.line) == ("f.py", "g", 7)
        assert (event.where.attribution, event.backend, event.thread_name) == ("exact", "manual", "T")
        assert next(iter(stream)).seq == event.seq
        stats = watcher.get_stats(regions=True)
        assert stats["detected"] == stats["delivered"] == 1
        assert stats["regions"]["thing"]["delivered"] == 1


def test_a_polling_watcher(wait_for, recorder):
    with MemoryWatcher(adapter=PollingAdapter(interval_s=0.005)) as watcher:
        data = bytearray(b"Hello")
        watcher.watch(data, name="data", callback=recorder)
        data[0] = ord("J")
        wait_for(lambda: recorder)
        [event] = recorder
        assert (event.old, event.new) == (b"Hello", b"Jello")
        assert (event.where.attribution, event.where.reason) == ("none", "polling")


def test_a_tracing_watcher(wait_for, recorder):
    with MemoryWatcher(adapter=TraceAdapter()) as watcher:
        items = [1, 2]
        watcher.watch(items, name="items", callback=recorder)
        items.append(3)
        wait_for(lambda: recorder)
        [event] = recorder
        assert (event.old, event.new) == ([1, 2], [1, 2, 3])
        assert event.where.function == "test_a_tracing_watcher"


def test_mprotect_by_name(wait_for, recorder):
    with pytest.warns(RuntimeWarning, match="EFAULT.*datagrams are lost.*SIGSEGV.*docs/limits.md") as warned:
        watcher = MemoryWatcher(adapter=MprotectAdapter())
    assert [warning.filename for warning in warned] == [__file__]
    [note] = [backend["note"] for backend in watcher.get_stats()["backends"] if backend["chosen"]]
    assert note in str(warned[0].message)
    with watcher:
        assert watcher.get_stats()["backend"] == "mprotect"
        from memwatch import buffer

        data = buffer(4096)
        watcher.watch(data, name="data", callback=recorder)
        data[0] = 7
        wait_for(lambda: recorder)
        assert recorder[0].backend == "mprotect"
    for hazard in ("EFAULT", "datagram", "neighbours", "SIGSEGV", "max_map_count"):
        assert hazard in MprotectAdapter.__doc__


def test_the_first_events_objects_are_there_however_quick_the_dispatcher_is():
    """It asks for them while the post is still under way, and waits."""
    objects, taken = Objects(), []
    asker = threading.Thread(target=lambda: taken.append(objects.take(1)))

    class QuickCore:
        closed = False

        def post(self, region_id, **facts):
            asker.start()
            asker.join(0.1)  # without the lock it has been given nothing by now
            return 1

    Emitter(QuickCore(), objects, lambda region_id: None, lambda: True).post(7, old_object="a", new_object="b")
    asker.join()
    assert taken == [(("a", "b"), "")]


def test_an_adapter_without_a_watcher_says_so():
    for adapter in (TraceAdapter(), PollingAdapter()):
        with pytest.raises(OSError, match="belongs to no watcher"):
            adapter.track([1], {"name": "x"})
        adapter.close()


def test_the_interface_alone():
    adapter = TrackerAdapter()
    adapter.bind(Recorder())
    adapter.untrack(1)
    assert adapter.check_changes() == []
    assert adapter.get_stats() == {"adapter": "custom"}
    adapter.close()
    with pytest.raises(NotImplementedError, match="TrackerAdapter"):
        adapter.track([], {"name": "x"})


# --- without the extension --------------------------------------------------------------------------------------------

WITHOUT = """
import sys, warnings
sys.modules["memwatch._core"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import memwatch
    from memwatch import MemoryWatcher
assert len(caught) == 1, caught
assert "polls" in str(caught[0].message)
seen = []
watcher = MemoryWatcher()
data = bytearray(b"Hello")
watcher.watch(data, name="data")
watcher.set_callback(seen.append)
data[0] = ord("J")
"""


def run_without(code):
    """Runs a program in which the extension cannot be imported."""
    program = WITHOUT + textwrap.dedent(code)
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", program],
        env={"PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_quick_start_without_the_extension():
    out = run_without(
        """
        import time
        limit = time.monotonic() + 30
        while not seen and time.monotonic() < limit:
            time.sleep(0.005)
        [event] = seen
        print(event.variable_name, event.old_value, event.new_value, event.where.attribution, event.where.reason)
        stats = watcher.get_stats()
        print(stats["backend"], stats["tracked_regions"], stats["delivered"], stats["dropped_events"])
        watcher.close()
        watcher.close()
        """
    )
    assert out.split("\n")[:2] == ["data b'Hello' b'Jello' none polling", "poll 1 1 0"]


def test_names_without_the_extension():
    out = run_without(
        """
        counter = 0
        watcher.unwatch("data")
        watcher.watch_name("counter", callback=lambda event: print(event.old, event.new, event.where.line > 0))
        counter = 5
        watcher.flush()
        watcher.close()
        """
    )
    assert "0 5 True" in out


def test_what_needs_the_extension_says_so():
    out = run_without(
        """
        asks = lambda: watcher.serve(port=0), lambda: MemoryWatcher(backend="uffd"), lambda: watcher.load("0" * 32)
        for ask in asks:
            try:
                ask()
            except (OSError, KeyError) as error:
                print("extension" in str(error) or "build" in str(error))
        try:
            watcher.watch(data, name="data")
        except ValueError as error:
            print("already watched" in str(error))
        watcher.close()
        """
    )
    assert out.split() == ["True"] * 4


def test_the_log_without_the_extension_is_bounded_and_counts_what_it_loses():
    out = run_without(
        """
        from memwatch import _pure
        core = _pure.Watcher(event_capacity=10)
        sink = _pure.Sink(core, "slow")
        region = core.region_add_external("x")
        for number in range(25):
            core.post(region, old=b"%d" % number, new=b"%d" % (number + 1))
        assert [event.seq for event in sink.read(256, 0)] == list(range(16, 26))
        assert sink.read(256, 0) == []
        assert core.stats()["sinks"][0]["missed"] == 15
        assert core.stats()["events"]["evicted"] == 15
        core.close()
        assert sink.read(256, 0) is None
        watcher.close()
        """
    )
    assert out == ""


def test_the_stand_in_has_the_extensions_surface():
    from memwatch import _core, _pure

    for name in ("Watcher", "Sink", "Event"):
        public = {attribute for attribute in dir(getattr(_core, name)) if not attribute.startswith("_")}
        stand_in = set(dir(getattr(_pure, name)))
        if name == "Event":
            region = _pure._Region(1, "x", "full")
            post = {"old": b"", "new": b"", "backend": "b", "attribution": "exact", "reason": "none"}
            post |= {"thread_id": 0, "thread_name": "", "frames": ()}
            stand_in |= set(vars(_pure.Event(region, 1, 1, post, 1)))
        assert public - stand_in == set()
    functions = {name for name in dir(_core) if not name.startswith("_")}
    assert functions - set(dir(_pure)) == set()


def test_stats_have_the_same_keys():
    from memwatch import _core, _pure

    native, pure = _core.Watcher(), _pure.Watcher()
    assert set(native.stats()) - set(pure.stats()) == set()
    assert set(native.stats()["attribution"]) - set(pure.stats()["attribution"]) == set()
    one, other = native.region_add_external("x"), pure.region_add_external("x")
    assert set(native.region_info(one)) - set(pure.region_info(other)) == set()
    native.close()
    pure.close()
