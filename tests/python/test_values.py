"""How events read: decoded values, changed elements, what an event looks like when printed."""

import array
import ctypes
import json
import math
import pickle
import subprocess
import sys
import urllib.request

import pytest

import memwatch
from memwatch._cli.events import event_of
from memwatch._decode import Layout

np = pytest.importorskip("numpy")


@pytest.fixture
def change(watched, recorder):
    """Watches an object, changes it and gives the event."""

    def change(obj, function, name="it"):
        watched.watch(obj, name)
        function(obj)
        assert watched.flush()
        assert watched.unwatch(name)
        return recorder[-1]

    return change


def set_item(index, value):
    return lambda obj: obj.__setitem__(index, value)


def test_bytes(change):
    event = change(bytearray(b"Hello"), set_item(0, ord("J")), "data")
    assert (event.old, event.new, event.elements) == (b"Hello", b"Jello", [])
    assert f"{event!r}".startswith("<ChangeEvent 1 data: b'Hello' -> b'Jello', by ")


def test_array_of_numbers(change):
    event = change(array.array("i", [1, 2, 3]), set_item(1, -7))
    assert (event.old, event.new) == ([1, 2, 3], [1, -7, 3])
    assert event.elements == [((1,), 2, -7)]


def test_array_of_unsigned_bytes_is_numbers(change):
    assert change(array.array("B", [1, 2, 3]), set_item(1, 7)).elements == [((1,), 2, 7)]


def test_memoryview_in_two_dimensions(change):
    view = memoryview(bytearray(12)).cast("B").cast("h", (2, 3))
    event = change(view, set_item((1, 2), 5))
    assert event.new == [[0, 0, 0], [0, 0, 5]]
    assert event.elements == [((1, 2), 0, 5)]


def test_ctypes_scalar(change):
    number = ctypes.c_double(1.5)
    event = change(number, lambda number: setattr(number, "value", 2.5))
    assert (event.old, event.new, event.elements) == (1.5, 2.5, [((), 1.5, 2.5)])


def test_ctypes_structure(change):
    class Pair(ctypes.Structure):
        _fields_ = (("left", ctypes.c_int), ("right", ctypes.c_double))

    event = change(Pair(1, 2.0), lambda pair: setattr(pair, "right", 3.0))
    assert ((event.old.left, event.old.right), (event.new.left, event.new.right)) == ((1, 2.0), (1, 3.0))


def test_numpy_scalar(change):
    event = change(np.array(0.5), set_item((), math.nan), "loss")
    assert event.old == 0.5 and math.isnan(event.new)
    assert repr(event).startswith("<ChangeEvent 1 loss: 0.5 -> nan, by ")


@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_in_two_dimensions(change, order):
    weights = np.full((4, 20), 0.5, order=order)
    event = change(weights, set_item((3, 17), math.nan), "weights")
    assert event.elements[0].index == (3, 17)
    assert isinstance(event.new, np.ndarray)
    assert np.array_equal(event.new, weights, equal_nan=True)
    assert np.array_equal(event.old, np.full((4, 20), 0.5))
    assert repr(event).startswith("<ChangeEvent 1 weights[3, 17]: 0.5 -> nan, by ")


@pytest.mark.parametrize("dtype", ["<i8", ">i8", "?", "f2", "c16", "U3", "M8[s]", "u1"])
def test_numpy_of_any_type(change, dtype):
    values = np.zeros((3, 3), dtype)
    event = change(values, set_item((1, 1), np.ones((), dtype)[()]))
    assert np.array_equal(event.new, values)
    assert event.new.dtype == values.dtype
    assert [element.index for element in event.elements] == [(1, 1)]


def test_numpy_record(change):
    points = np.zeros(5, [("x", "f4"), ("y", "f4")])
    event = change(points, lambda points: points["y"].__setitem__(2, 1.5))
    assert event.new["y"][2] == 1.5
    assert event.elements == [((2, "y"), 0.0, 1.5)]


def test_numpy_of_objects_shows_addresses(change):
    text = "".join(["te", "xt"])
    event = change(np.array([None, None], object), set_item(0, text))
    assert event.elements == [((0,), id(None), id(text))]
    assert list(event.new) == [id(text), id(None)]
    assert f"{id(None):#x}" in repr(event) and f"{id(text):#x}" in repr(event)


def test_numpy_record_with_an_object(change):
    text = "".join(["te", "xt"])
    event = change(np.zeros(2, [("n", "i4"), ("it", object)]), lambda table: table["it"].__setitem__(1, text))
    assert event.elements == [((1, "it"), id(0), id(text))]
    assert event.new["it"][1] == id(text)


def test_many_elements_are_bounded(change):
    event = change(np.zeros(400), lambda values: values.fill(1))
    assert len(event.elements) == 64
    assert "..." in repr(event)


def test_a_large_region_shows_elements_wherever_they_are(change):
    values = np.zeros(100000)
    event = change(values, set_item(5, 2.0))
    assert (event.old, event.new) == (None, None)
    assert event.elements == [((5,), 0.0, 2.0)]
    event = change(values, set_item(50000, 2.0), "far")
    assert event.elements == [((50000,), 0.0, 2.0)]
    assert "far[50000]: 0.0 -> 2.0" in repr(event)


RECORD = [("id", "i4"), ("rate", "f8"), ("tags", "S88")]


@pytest.mark.parametrize(
    ("make", "index", "value", "text"),
    [
        (lambda: np.full((64, 64), 0.5, "f4"), (46, 56), math.nan, "it[46, 56]: 0.5 -> nan"),
        (lambda: np.zeros((64, 64), order="F"), (3, 60), 2, "it[3, 60]: 0.0 -> 2.0"),
        (lambda: np.zeros(5000, ">i2"), 4999, -2, "it[4999]: 0 -> -2"),
        (lambda: np.zeros(5000, "c16"), 4000, 1j, "it[4000]: 0j -> 1j"),
        (lambda: np.zeros(500, RECORD), 400, (0, 1.5, b""), "it[400].rate: 0.0 -> 1.5"),
        (lambda: array.array("q", bytes(80000)), 7000, 9, "it[7000]: 0 -> 9"),
    ],
)
def test_an_element_of_a_large_array_reads_alike_everywhere(make, index, value, text, tmp_path):
    """With a history and without, pickled, as the feed has it, and recorded."""
    it = make()
    for options in ({}, {"history_budget": 0}, {"history_path": tmp_path / "it.memwatch"}):
        with memwatch.MemoryWatcher(**options) as watcher, watcher.serve(port=0, runtime_dir="") as server:
            watcher.watch(it, "it")
            before = it[index].copy() if hasattr(it[index], "copy") else it[index]
            it[index] = value
            assert watcher.flush()
            (event,) = watcher.events(since=0, timeout=0)
            assert event.summary == text
            assert len(event.elements) == 1
            assert pickle.loads(pickle.dumps(event)).summary == text
            (told,) = feed(server)
            assert told == event.to_dict()
            assert event_of(told).summary == text
            it[index] = before
    with memwatch.open_history(tmp_path / "it.memwatch") as history:
        recorded = next(history.events())
        assert recorded.summary == text
        assert recorded.to_dict().get("elements") == told.get("elements")
        assert recorded.to_dict()["excerpt"] == told["excerpt"]


def feed(server):
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/api/v1/events", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["events"]


def test_very_many_changes_far_away_are_read_at_once(change):
    """The last range of an event may span millions of items of which nothing is known."""
    values = np.zeros(1 << 23)
    event = change(values, lambda it: it.__setitem__(slice(1000, None, 64), 1))
    first = event.changes[0].offset // 8
    assert event.summary == f"it[{first}]: 0.0 -> 1.0, ..."
    assert [element["index"] for element in event.to_dict()["elements"]][:2] == [[first], [first + 64]]


def test_what_is_hidden_is_not_told_of_large_arrays(watched):
    arrays = {values: np.full(10000, 7.25) for values in ("preview", "hash", "none")}
    for values, it in arrays.items():
        watched.watch(it, values, values=values)
        it[9000] = 3.75
    assert watched.flush()
    for event in watched.events(since=0, timeout=0):
        said = event.to_dict()
        assert "excerpt" not in said and not said.get("elements") and "3.75" not in repr(event)


def test_events_of_regions_that_are_gone_still_decode(watched, recorder):
    values = np.zeros((2, 2))
    watched.watch(values, "values")
    stream = watched.events(since=0, timeout=0)
    values[1, 1] = 1
    assert watched.flush()
    assert watched.unwatch("values")
    assert next(stream).elements[0].index == (1, 1)


@pytest.mark.parametrize(
    ("shape", "fortran", "position", "index"),
    [
        ((), False, 0, ()),
        ((5,), False, 3, (3,)),
        ((2, 3), False, 5, (1, 2)),
        ((2, 3), True, 5, (1, 2)),
        ((2, 3), True, 2, (0, 1)),
    ],
)
def test_index(shape, fortran, position, index):
    assert Layout("d", 8, shape, fortran).index(position) == index


def test_import_does_not_import_numpy():
    code = "import memwatch, sys; sys.exit('numpy' in sys.modules or 'asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
