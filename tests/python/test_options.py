"""Options, by argument and by environment variable, and what get_stats() tells."""

import re
import time

import pytest

import memwatch
from memwatch import _config
from memwatch._native import core, missing


def test_the_environment_gives_what_no_argument_gives():
    environ = {"MEMWATCH_WINDOW_MS": "20", "MEMWATCH_BACKEND": "poll", "MEMWATCH_HISTORY_BUDGET": "2 MiB"}
    assert _config.resolve({"window_ms": 7}, environ) == {"window_ms": 7, "backend": "poll", "history_budget": 2 << 20}


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65536), ("64k", 65536), ("64KiB", 65536), ("64 MiB", 64 << 20), ("1g", 1 << 30), ("5B", 5)],
)
def test_sizes(text, size):
    assert _config.resolve({}, {"MEMWATCH_RING_CAPACITY": text}) == {"ring_capacity": size}


@pytest.mark.parametrize(
    ("name", "text"),
    [("WINDOW_MS", "soon"), ("ATTRIBUTION_BUDGET", "much"), ("PREVIEW_SIZE", "64 MM"), ("STACK_DEPTH", "1.5")],
)
def test_nonsense_in_the_environment(name, text, monkeypatch):
    monkeypatch.setenv(f"MEMWATCH_{name}", text)
    with pytest.raises(ValueError, match=f"MEMWATCH_{name}"):
        memwatch.MemoryWatcher()


def test_the_environment_reaches_the_core(monkeypatch):
    monkeypatch.setenv("MEMWATCH_BACKEND", "poll")
    monkeypatch.setenv("MEMWATCH_WINDOW_MS", "11")
    monkeypatch.setenv("MEMWATCH_POLL_BUDGET", "0.05")
    with memwatch.MemoryWatcher() as watcher:
        stats = watcher.get_stats()
        assert (stats["backend"], stats["window_ms"], stats["poll_budget"]) == ("poll", 11, 0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"window_ms": 0},
        {"window_ms": -1},
        {"window_ms": 100000},
        {"ring_capacity": 100},
        {"ring_capacity": 2**70},
        {"attribution_budget": -0.5},
        {"poll_budget": 0},
        {"poll_budget": 1.5},
        {"stack_depth": 33},
        {"backend": "magic"},
        {"event_capacity": 0},
        {"inline_threshold": 2**40},
    ],
)
def test_out_of_range(options):
    with pytest.raises(ValueError, match=r"\w{4}"):
        memwatch.MemoryWatcher(**options)
    memwatch.MemoryWatcher().close()


@pytest.mark.parametrize("options", [{"window_ms": "5"}, {"attribution_budget": "all"}, {"nothing": 1}, {"backend": 5}])
def test_wrong_type(options):
    with pytest.raises(TypeError):
        memwatch.MemoryWatcher(**options)


def test_the_engines_options_are_the_first_watchers():
    with memwatch.MemoryWatcher(window_ms=10):
        with pytest.raises(memwatch.Error) as caught:
            memwatch.MemoryWatcher(window_ms=20)
        assert caught.value.errno == 16
        memwatch.MemoryWatcher(window_ms=10).close()
    memwatch.MemoryWatcher(window_ms=20).close()


@pytest.mark.parametrize("backend", ["uffd", "mprotect", "poll"])
def test_backends_by_name(backend, recorder):
    usable = {each["name"]: each for each in memwatch.backends()}
    if not usable[backend]["usable"]:
        with pytest.raises(memwatch.Error, match=r"\w{4}"):
            memwatch.MemoryWatcher(backend=backend)
        return
    with memwatch.MemoryWatcher(backend=backend) as watcher:
        data = memwatch.buffer(10)
        watcher.watch(data, "data", callback=recorder)
        data[0] = 1
        assert watcher.flush()
        assert (recorder[0].backend, recorder[0].new_value[0]) == (backend, 1)
        chosen = [each["name"] for each in watcher.get_stats()["backends"] if each["chosen"]]
        assert chosen == [backend]


def test_polling_cannot_tell_who(recorder):
    with memwatch.MemoryWatcher(backend="poll") as watcher:
        data = memwatch.buffer(10)
        watcher.watch(data, "data", callback=recorder)
        data[0] = 1
        assert watcher.flush()
        where = recorder[0].where
        assert (where.attribution, where.reason, where.line) == ("none", "polling", None)


STATS = [
    "backend",
    "backends",
    "tracked_regions",
    "tracked_bytes",
    "native_memory_bytes",
    "detected",
    "delivered",
    "coalesced",
    "unchanged",
    "filtered",
    "dropped",
    "dropped_events",
    "faults",
    "ring_capacity",
    "ring_depth",
    "ring_high_water",
    "ring_dropped",
    "history_bytes",
    "history_evicted",
    "callback_errors",
    "callback_missed",
    "attribution",
]


def test_stats_have_what_was_promised(watcher):
    stats = watcher.get_stats()
    assert set(STATS) <= set(stats)
    assert {"signals", "ours", "foreign", "throttled_s"} <= set(stats["attribution"])
    assert [set(backend) for backend in stats["backends"]] == [{"name", "usable", "chosen", "note"}] * 3
    assert isinstance(stats["dropped"], dict)
    assert "regions" not in stats
    assert stats["ring_capacity"] == 65536


def test_stats_count(watched, recorder, balance):
    data = memwatch.buffer(4096)
    region_id = watched.watch(data, "data")
    for value in range(1, 6):
        data[0] = value
        assert watched.flush()
    data[0] = 5
    assert watched.flush()
    stats = watched.get_stats(regions=True)
    region = stats["regions"]["data"]
    assert (stats["tracked_regions"], stats["tracked_bytes"]) == (1, 4096)
    assert (region["id"], region["size_bytes"], region["last_seq"]) == (region_id, 4096, 5)
    assert recorder[-1].timestamp_ns <= region["last_time_ns"] <= time.time_ns()
    assert stats["delivered"] == region["delivered"] == 5
    assert stats["unchanged"] >= 1
    assert balance(stats) == balance(region) == 0
    assert stats["events"]["newest"] == 5
    assert stats["latency"]["count"] == sum(stats["latency"]["buckets"])
    assert stats["callback_errors"] == stats["callback_missed"] == stats["dropped_events"] == 0


def test_the_value_of_a_scalar(watcher):
    np = pytest.importorskip("numpy")
    loss = np.array(0.5)
    region_id = watcher.watch(loss, "loss")
    assert watcher.get_stats(regions=True)["regions"]["loss"]["value"] == 0.5
    loss[...] = 1.5
    assert watcher.flush()
    assert watcher._core.region_info(region_id)["value"] == 1.5
    assert watcher._core.region_read(region_id) == loss.tobytes()


def test_core_lookups(watcher):
    for call in (watcher._core.region_info, watcher._core.region_read, watcher._core.region_remove):
        with pytest.raises(KeyError):
            call(99999)
    with pytest.raises(KeyError):
        watcher._core.region_find("nothing")
    with pytest.raises(TypeError):
        watcher._core.region_find(5)


def test_posts(watched, recorder):
    region_id = watched._core.region_add_external("outside")
    seq = watched._core.post(
        region_id, old=b"1", new=b"two", frames=[("a.py", "f", 3), ("b.py", "g", 4)], thread_name="worker", thread_id=7,
        backend="trace", time_ns=123,
    )  # fmt: skip
    assert watched.flush()
    event = recorder[0]
    assert (event.seq, event.old_value, event.new_value, event.backend) == (seq, b"1", b"two", "trace")
    assert (event.timestamp_ns, event.thread_id, event.thread_name) == (123, 7, "worker")
    assert event.where.frames == (("a.py", "f", 3),) or event.where.frames == (("a.py", "f", 3), ("b.py", "g", 4))
    with pytest.raises(ValueError, match="attribution"):
        watched._core.post(region_id, attribution="perhaps")
    with pytest.raises(ValueError, match="reason"):
        watched._core.post(region_id, reason="because")
    with pytest.raises(TypeError):
        watched._core.post(region_id, frames=[5])
    with pytest.raises(KeyError):
        watched._core.post(99999)


def test_version():
    assert core.VERSION == memwatch.__version__ == "0.1.0"


def test_many_watchers_share_one_engine(recorder):
    data = memwatch.buffer(10)
    watchers = [memwatch.MemoryWatcher() for _ in range(5)]
    for watcher in watchers:
        watcher.watch(data, "data", callback=recorder)
    data[0] = 1
    for watcher in watchers:
        assert watcher.flush()
    assert [event.seq for event in recorder] == [1] * 5
    for watcher in watchers:
        watcher.close()


def test_serve(watcher):
    if "exporter" in missing:
        pytest.skip("built without the exporter")
    import urllib.request

    with watcher.serve(port=0) as server:
        assert server.port and str(server.port) in server.url and server.token not in server.url
        assert server.url.split("#")[0] == f"http://127.0.0.1:{server.port}/" and server.url != server.url
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
            assert b"memwatch_" in answer.read()
        with pytest.raises(memwatch.Error) as caught:
            watcher.serve(port=server.port)
        assert caught.value.errno == 98
    server.close()
    with pytest.raises(TypeError, match="colour"):
        watcher.serve(port=0, colour="red")
    with pytest.raises(ValueError, match="port"):
        watcher.serve(port=70000)


class Silent:
    """An adapter that keeps nothing."""

    def track(self, obj, metadata):
        self.metadata = metadata

    def untrack(self, region_id):
        pass

    def get_stats(self):
        return {}


def test_what_an_adapter_gets():
    adapter = Silent()
    with memwatch.MemoryWatcher(adapter=adapter) as watcher:
        watcher.watch(5, "five", values="none", depth=3)
        assert adapter.metadata == {"name": "five", "values": "none", "when": None, "depth": 3}


@pytest.mark.parametrize("option", [{"max_rate": 5}, {"metric": True}, {"history_budget": 5}, {"shadow": "hash"}])
def test_what_needs_the_native_core(option):
    with memwatch.MemoryWatcher(adapter=Silent()) as watcher, pytest.raises(ValueError, match="native core"):
        watcher.watch(5, "five", **option)


def test_history_path(tmp_path):
    if "recorder" in missing:
        with pytest.raises(memwatch.Error, match=re.escape(missing["recorder"])):
            memwatch.MemoryWatcher(history_path=tmp_path / "history")
        return
    with memwatch.MemoryWatcher(history_path=tmp_path / "history") as watcher:
        data = memwatch.buffer(10)
        watcher.watch(data, "data")
        data[0] = 1
        assert watcher.get_stats()["recorder"]["state"]
    history = memwatch.open_history(tmp_path / "history")
    assert [event.variable_name for event in history.events()] == ["data"]
    history.close()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"colour": 1}, TypeError, "no option 'colour'"),
        ({"backend": 5}, TypeError, "backend must be a string, not int"),
        ({"backend": "po\0ll"}, ValueError, "zero character"),
        ({"window_ms": 1 << 40}, ValueError, "window_ms=1099511627776 is out of range"),
        ({"window_ms": "5"}, TypeError, "integer"),
    ],
)
def test_what_the_core_says_of_a_wrong_option(options, error, says):
    with pytest.raises(error, match=says):
        core.Watcher(**options)
