"""Versions: what a variable held, when, and who last wrote which of its elements; conditions, rates and policies."""

import ctypes
import math
import time

import pytest

import memwatch
from memwatch._decode import Layout
from memwatch._history import element_runs, indices

np = pytest.importorskip("numpy")


def write(watcher, data, index, value):
    data[index] = value
    assert watcher.flush()


@pytest.fixture
def written(watched):
    """A watched byte buffer with three versions: 1, 2 and 3 at its first byte."""
    data = memwatch.buffer(100)
    watched.watch(data, "data")
    for value in (1, 2, 3):
        write(watched, data, 0, value)
    return watched


def test_history(written, recorder):
    events = written.history("data")
    assert [event.seq for event in events] == [1, 2, 3]
    assert [event.new_value[0] for event in events] == [1, 2, 3]
    assert events[0].where.function == "write"
    assert written.history(events[0].region_id)[-1].seq == 3
    with pytest.raises(KeyError):
        written.history("nothing")


def test_value_at_a_seq(written):
    assert [written.value_at("data", seq=seq)[0] for seq in range(4)] == [0, 1, 2, 3]
    with pytest.raises(TypeError):
        written.value_at("data")
    with pytest.raises(TypeError):
        written.value_at("data", seq=1, time=1)
    with pytest.raises(KeyError):
        written.value_at("nothing", seq=1)
    with pytest.raises(KeyError, match="no event 4 yet; the newest is 3"):
        written.value_at("data", seq=4)


def test_nothing_is_said_of_the_time_before_a_region_was_watched(written):
    before = time.time_ns()
    late = memwatch.buffer(10)
    written.watch(late, "late")
    write(written, late, 0, 9)
    assert written.value_at("late", seq=0)[0] == 0
    assert written.value_at("late", seq=3)[0] == 0
    assert written.value_at("late", seq=4)[0] == 9
    assert written.value_at("data", seq=4)[0] == 3
    with pytest.raises(KeyError, match="not watched then: it is since event 3"):
        written.value_at("late", seq=2)
    with pytest.raises(KeyError, match="not watched then"):
        written.value_at("late", time=before)
    info = written.get_stats(regions=True)["regions"]["late"]
    assert info["added_seq"] == 3
    assert before < info["added_ns"] < written.history("late")[0].timestamp_ns


def test_value_at_a_time(written):
    events = written.history("data")
    for event in events:
        assert written.value_at("data", time=event.timestamp_ns)[0] == event.new_value[0]
        assert written.value_at("data", time=event.timestamp_ns / 1e9 + 1e-5)[0] == event.new_value[0]
    assert written.value_at("data", time=events[0].timestamp_ns - 1)[0] == 0
    assert written.value_at("data", time=time.time())[0] == 3


@pytest.mark.parametrize("order", ["C", "F"])
def test_value_at_of_an_array(watched, order):
    array = np.asarray(np.arange(12.0).reshape(3, 4), order=order)
    watched.watch(array, "array")
    before = array.copy()
    write(watched, array, (1, 2), -1)
    assert np.array_equal(watched.value_at("array", seq=0), before)
    assert np.array_equal(watched.value_at("array", seq=1), array)
    assert watched.value_at("array", seq=1).dtype == array.dtype


def test_an_evicted_version_is_a_clear_error(watched, recorder):
    data = np.frombuffer(memwatch.buffer(1 << 20), "u1")
    watched.watch(data, "data", history_budget=3 << 20)
    rng = np.random.default_rng(1)
    for _ in range(8):
        data[:] = rng.integers(0, 256, len(data), "u1")
        assert watched.flush()
    kept = watched.history("data")
    assert 1 <= len(kept) < len(recorder)
    assert watched.value_at("data", seq=recorder[-1].seq).tobytes() == data.tobytes()
    with pytest.raises(KeyError, match="oldest"):
        watched.value_at("data", seq=0)
    with pytest.raises(KeyError, match="oldest"):
        watched.load(recorder[0].storage_key_old)
    assert recorder[0].old is None
    assert {element.index[0] for element in recorder[0].elements} <= set(range(256))  # what the preview shows


def test_small_changes_of_a_large_array_cost_little(watched):
    array = np.zeros(1 << 24, "u1")
    watched.watch(array, "array")
    for number in range(1, 101):
        write(watched, array, number * 1000, 1)
    stats = watched.get_stats()
    assert stats["history_versions"] >= 100
    assert stats["history_bytes"] < 1 << 18
    assert watched.value_at("array", seq=50).sum() == 50


def test_elements_and_values_of_a_large_array(watched, recorder):
    array = np.zeros((300, 400))
    watched.watch(array, "array")
    write(watched, array, (250, 399), math.nan)
    event = recorder[0]
    assert [(element.index, element.old) for element in event.elements] == [((250, 399), 0.0)]
    assert math.isnan(event.elements[0].new)
    assert event.old.shape == (300, 400) and not event.old.any()
    assert math.isnan(event.new[250, 399])


def test_fields_of_structures(watched, recorder):
    class Inner(ctypes.Structure):
        _fields_ = (("depth", ctypes.c_short), ("width", ctypes.c_short))

    class Config(ctypes.Structure):
        _fields_ = (
            ("timeout", ctypes.c_int),
            ("name", ctypes.c_char * 8),
            ("inner", Inner),
            ("scores", ctypes.c_int * 3),
        )

    config = Config(30, b"first")
    watched.watch(config, "config")
    config.timeout = 0
    config.inner.width = 5
    config.scores[1] = 7
    config.name = b"second"
    assert watched.flush()
    changed = {element.index: (element.old, element.new) for event in recorder for element in event.elements}
    assert changed == {
        ("timeout",): (30, 0),
        ("inner", "width"): (0, 5),
        ("scores",): ([0, 0, 0], [0, 7, 0]),
        ("name",): (b"first", b"second"),
    }
    assert "config.timeout: 30 -> 0" in repr(recorder[0])


def test_bit_fields(watched, recorder):
    class Flags(ctypes.Structure):
        _fields_ = (("low", ctypes.c_uint, 3), ("high", ctypes.c_uint, 5))

    flags = Flags(1, 2)
    watched.watch(flags, "flags")
    flags.high = 9
    assert watched.flush()
    assert recorder[0].elements == [(("high",), 2, 9)]


def test_fields_of_structured_arrays(watched, recorder):
    points = np.zeros(5, [("x", "f4"), ("at", [("y", "f4"), ("z", "i2")]), ("row", "i1", 3)])
    watched.watch(points, "points")
    points["at"]["y"][2] = 1.5
    points["row"][3] = [1, 2, 3]
    assert watched.flush()
    changed = {element.index: element for event in recorder for element in event.elements}
    assert set(changed) == {(2, "at", "y"), (3, "row")}
    assert (changed[2, "at", "y"].old, changed[2, "at", "y"].new) == (0.0, 1.5)
    assert changed[3, "row"].new.tolist() == [1, 2, 3]
    assert "points[2].at.y: 0.0 -> 1.5" in repr(recorder[0])


def test_blame_of_bytes(watched):
    data = memwatch.buffer(100)
    watched.watch(data, "data")
    data[0:10] = b"a" * 10
    assert watched.flush()
    data[5:20] = b"b" * 15
    assert watched.flush()
    told = [(blame.index, blame.event and blame.event.seq) for blame in watched.blame("data")]
    assert told == [(slice(0, 5), 1), (slice(5, 20), 2), (slice(20, 100), None)]
    assert [blame.event.seq for blame in watched.blame("data", 7)] == [2]
    assert [blame.event.seq for blame in watched.blame("data", slice(3, 8))] == [1, 2]
    assert watched.blame("data", 0)[0].event.where.function == "test_blame_of_bytes"
    with pytest.raises(IndexError):
        watched.blame("data", 100)
    with pytest.raises(IndexError):
        watched.blame("data", (1, 2))
    with pytest.raises(TypeError, match="not of str"):
        watched.blame("data", "x")


@pytest.mark.parametrize("order", ["C", "F"])
def test_blame_of_an_array(watched, order):
    array = np.zeros((4, 5), order=order)
    watched.watch(array, "array")
    array[1, 2] = 1
    assert watched.flush()
    array[2, :] = 2
    assert watched.flush()

    def author(row, column):
        blames = watched.blame("array", (row, column))
        assert len(blames) == 1
        return blames[0].event and blames[0].event.seq

    told = [[author(row, column) for column in range(5)] for row in range(4)]
    assert told == [[None] * 5, [None, None, 1, None, None], [2] * 5, [None] * 5]
    seen = np.zeros((4, 5))
    for blame in watched.blame("array"):
        seen[blame.index] += 1
        assert np.all(np.array(told, object)[blame.index] == (blame.event and blame.event.seq))
    assert seen.min() == seen.max() == 1


def test_blame_of_an_element_that_two_events_wrote(watched):
    array = np.zeros(4, "u4")
    watched.watch(array, "array")
    array[1] = 0xFF
    assert watched.flush()
    array[1] = 0xFFFF  # its second byte only
    assert watched.flush()
    assert [(blame.index, blame.event.seq) for blame in watched.blame("array", 1)] == [(slice(1, 2), 2)]


def test_blame_of_a_scalar(watched):
    loss = np.array(0.5)
    watched.watch(loss, "loss")
    write(watched, loss, (), 1.5)
    assert [(blame.index, blame.event.seq) for blame in watched.blame("loss")] == [((), 1)]


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize(
    "index",
    [None, 1, (0, 1), (slice(None), 2), (slice(0, 2), slice(1, 3)), (-1, slice(None), 1), (slice(None, None, -1),)],
)
def test_runs_select_what_numpy_selects(index, fortran):
    shape = (3, 4, 5)
    layout = Layout("d", 8, shape, fortran)
    order = "F" if fortran else "C"
    positions = np.arange(60).reshape(shape, order=order)
    runs = element_runs(layout, index)
    told = sorted(position for first, end in runs for position in range(first, end))
    assert told == sorted(positions[() if index is None else index].ravel().tolist())
    seen = np.zeros(shape, int)
    for first, end in runs:
        for at in indices(layout, first, end):
            seen[at] += 1
    assert seen.sum() == len(told)
    assert seen.max() == 1


@pytest.mark.parametrize(
    ("when", "values", "kept"),
    [
        ("changed", [1, 2, 1], [1, 2, 1]),
        ("any_nan", [1, math.nan, 2], [math.nan]),
        (("gt", 10), [5, 11, 10, 12], [11, 12]),
        (("ge", 10), [5, 10], [10]),
        (("lt", 0), [5, -1, 3], [-1]),
        (("le", 0), [5, -1, 0.0], [-1, 0.0]),
        (("eq", 7), [6, 7, 8], [7]),
        (("ne", 7), [6, 7, 8], [6, 8]),
        (("outside", 0, 10), [5, 11, 3, -1], [11, -1]),
        (("inside", 0, 10), [5, 11, 3, -1], [5, 3]),
        (("delta_gt", 3), [1, 5, 6, 1], [5, 1]),
    ],
)
def test_conditions_that_the_core_judges(when, values, kept, watched, recorder, balance):
    number = np.array(0.5)
    watched.watch(number, "number", when=when)
    for value in values:
        write(watched, number, (), value)
    assert [event.new for event in recorder] == pytest.approx(kept, nan_ok=True)
    stats = watched.get_stats(regions=True)
    assert stats["filtered"] == stats["regions"]["number"]["filtered"] == len(values) - len(kept)
    assert balance(stats) == 0


@pytest.mark.parametrize(
    "when", ["sometimes", ("gt",), ("gt", "much"), ("outside", 1), ("any_nan", 1), (), ("gt", 1, 2)]
)
def test_conditions_that_are_none(when, watcher):
    with pytest.raises(ValueError, match="when"):
        watcher.watch(np.zeros(3), "it", when=when)
    with pytest.raises(TypeError, match="when=5"):
        watcher.watch(np.zeros(3), "it", when=5)
    assert watcher.get_stats()["tracked_regions"] == 0


def test_a_rate(watched, recorder, wait_for):
    data = memwatch.buffer(100)
    watched.watch(data, "data", max_rate=5)
    begin = time.monotonic()
    for value in range(1, 101):
        data[0] = value
        time.sleep(0.006)
    spent = time.monotonic() - begin
    assert watched.flush()
    wait_for(lambda: recorder and recorder[-1].new_value[0] == 100, what="the last value")
    assert len(recorder) <= 5 * spent + 3
    assert recorder[0].new_value[0] < 10  # the first comes at once
    assert sum(event.merged for event in recorder) > 20


@pytest.mark.parametrize("rate", [-1, math.nan])
def test_a_rate_that_is_none(rate, watcher):
    with pytest.raises(ValueError, match=r"\w{4}"):
        watcher.watch(bytearray(4), "data", max_rate=rate)


@pytest.mark.parametrize("name", ["password", "db_password", "API_KEY", "auth_token", "client_secret"])
def test_names_that_look_like_secrets_keep_their_values(name, watched, recorder):
    data = memwatch.buffer(100)
    watched.watch(data, name)
    write(watched, data, 0, 1)
    event = recorder[0]
    assert (event.old_value, event.new_value, event.old_preview, event.new_preview) == (None,) * 4
    assert event.new_hash != event.old_hash
    assert watched.get_stats(regions=True)["regions"][name]["values"] == "hash"
    open_policy = watched.watch(data, name + " shown", values="full")
    assert watched._core.region_info(open_policy)["values"] == "full"


def test_a_shadow_of_hashes(watched, recorder):
    array = np.zeros(1 << 22, "u1")
    before = watched.get_stats()["native_memory_bytes"]
    watched.watch(array, "array", shadow="hash")
    assert watched.get_stats()["native_memory_bytes"] - before < 1 << 20
    write(watched, array, 5000, 1)
    event = recorder[0]
    assert (event.old_value, event.storage_key_old) == (None, None)
    assert any(change.offset <= 5000 < change.offset + change.length for change in event.changes)
    with pytest.raises(ValueError, match="shadow"):
        watched.watch(array, "more", shadow="none")


def test_the_history_stays_within_its_budget():
    budget = 1 << 20
    with memwatch.MemoryWatcher(history_budget=budget) as watcher:
        data = np.zeros(1 << 18, "u1")
        watcher.watch(data, "data")
        before = watcher.get_stats()["native_memory_bytes"]
        for value in range(1, 60):
            data.fill(value)
            assert watcher.flush()
            assert watcher.get_stats()["history_bytes"] <= budget * 1.2
        stats = watcher.get_stats()
        assert stats["history_evicted"] > 0
        assert stats["native_memory_bytes"] - before < budget * 1.2 + (1 << 21)
