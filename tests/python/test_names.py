"""What watch_attr, watch_item, watch_name and all() accept, they watch; what they cannot watch they refuse."""

import array
import collections
import ctypes
import math
import sys

import pytest

import memwatch
from memwatch import MemoryWatcher
from memwatch.adapters import TraceAdapter

np = pytest.importorskip("numpy")


class Thing:
    pass


@pytest.fixture
def thing():
    """Something with attributes."""
    return Thing()


def names(recorder):
    return {event.variable_name for event in recorder}


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros(4),
        lambda: np.zeros((2, 2), order="F"),
        lambda: array.array("d", [0] * 4),
        lambda: array.array("d", [0] * 4000),
        lambda: bytearray(4),
        lambda: bytearray(1 << 16),
        lambda: memoryview(bytearray(4)),
        lambda: (ctypes.c_int * 4)(),
        lambda: memwatch.buffer(4),
    ],
)
def test_a_buffer_behind_a_name_is_watched(watched, recorder, thing, make):
    thing.it = make()
    watched.watch_attr(thing, "it", alias="it")
    thing.it[1] = thing.it[1] + 1
    assert watched.flush()
    assert names(recorder) == {"it"}
    assert watched.unwatch("it")
    assert not watched.unwatch("it")
    recorder.clear()
    thing.it[1] = thing.it[1] + 1
    assert watched.flush()
    assert recorder == []


def test_the_watch_follows_the_binding(watched, recorder, thing):
    first, second = np.zeros(4), np.ones(4)
    thing.it = first
    region = watched.watch_attr(thing, "it", alias="it")
    assert watched.value_at(region, seq=0).tolist() == [0, 0, 0, 0]
    thing.it = second
    assert watched.flush()
    assert names(recorder) == {"it (binding)"}
    assert recorder[0].where.function == "test_the_watch_follows_the_binding"
    first[0] = 7
    second[1] = 8
    assert watched.flush()
    assert [event.elements for event in recorder.of("it")] == [[((1,), 1.0, 8.0)]]
    thing.it = None
    second[1] = 9
    assert watched.flush()
    assert len(recorder.of("it")) == 1
    thing.it = first
    assert watched.flush()
    first[2] = 5
    assert watched.flush()
    assert recorder.of("it")[-1].elements == [((2,), 0.0, 5.0)]
    assert watched.unwatch(region)
    recorder.clear()
    thing.it = second
    first[3] = 5
    assert watched.flush()
    assert recorder == []


def test_a_name_that_comes_to_hold_a_buffer(watched, recorder, thing):
    thing.it = None
    watched.watch_attr(thing, "it", alias="it")
    thing.it = data = np.zeros(4)
    assert watched.flush()
    data[1] = 1
    assert watched.flush()
    assert names(recorder) == {"it", "it[...]"}
    assert watched.unwatch("it")
    recorder.clear()
    data[1] = 2
    assert watched.flush()
    assert recorder == []


def test_buffers_inside_containers(watched, recorder, thing):
    thing.inner = Thing()
    thing.inner.weights = np.zeros(2)
    it = {"layers": [np.zeros(2), np.zeros(2)], "thing": thing, "n": 1}
    watched.watch_name("it", deep=True)
    it["layers"][1][0] = 5
    thing.inner.weights[1] = 6
    assert watched.flush()
    assert names(recorder) == {"it[...]['layers'][1]", "it[...]['thing'].inner.weights"}
    recorder.clear()
    it["layers"].append(added := np.zeros(3))
    assert watched.flush()
    added[2] = 1
    assert watched.flush()
    assert names(recorder) == {"it", "it[...]['layers'][2]"}


def test_the_owner_of_a_bytearray_may_still_let_it_grow(watched, recorder, thing):
    thing.it, thing.that = bytearray(4), array.array("i", [1, 2])
    watched.watch_attr(thing, "it", alias="it")
    watched.watch_attr(thing, "that", alias="that")
    thing.it.append(1)
    thing.that.append(3)
    assert watched.flush()
    assert names(recorder) == {"it", "that"}
    assert recorder.of("that")[0].new == [1, 2, 3]


def test_a_view_with_gaps_is_refused(watcher, thing):
    thing.it = np.zeros((4, 4))[:, 1]
    with pytest.raises(ValueError, match="not contiguous"):
        watcher.watch_attr(thing, "it")
    assert watcher.get_stats()["tracked_regions"] == 0


class Table:
    """As a data frame is: its values are an array's, and each access makes an object."""

    def __init__(self):
        self._values = np.zeros(4)

    def __array__(self, dtype=None, copy=None):
        return self._values

    def __getitem__(self, key):
        return Table()


class Interface:
    def __init__(self, values):
        self._values = values

    @property
    def __array_interface__(self):
        return self._values.__array_interface__


class Tensor:
    def __init__(self, values):
        self._values = values

    def __dlpack__(self, **options):
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()

    def __array__(self, dtype=None, copy=None):
        return self._values


def test_tables_are_refused_with_what_helps(watcher, thing):
    thing.it = Table()
    with pytest.raises(TypeError, match=r"\.to_numpy\(\)"):
        watcher.watch_attr(thing, "it")
    with pytest.raises(TypeError, match=r"\.to_numpy\(\)"):
        watcher.watch(thing.it)
    with pytest.raises(TypeError, match=r"anew.*\.to_numpy\(\)"):
        watcher.watch_item(thing.it, "x")
    table = Table()  # noqa: F841
    assert ".to_numpy()" in watcher.all(scope="locals").skipped["table"]
    watcher.watch_attr(thing, "it", track="binding")


@pytest.mark.parametrize("kind", [Interface, Tensor])
def test_tensors_are_taken_by_their_memory(watched, recorder, thing, kind):
    values = np.zeros(4)
    thing.it = kind(values)
    watched.watch_attr(thing, "it", alias="it")
    watched.watch(thing.it, "direct")
    values[1] = 2
    assert watched.flush()
    assert {event.variable_name: event.elements for event in recorder} == {
        "it": [((1,), 0.0, 2.0)],
        "direct": [((1,), 0.0, 2.0)],
    }


@pytest.mark.parametrize(
    ("make", "key", "change", "index"),
    [
        (lambda: np.arange(6.0), 3, lambda it: it.__setitem__(3, 9), ()),
        (lambda: np.zeros((3, 2)), 1, lambda it: it.__setitem__((1, 1), 9), (1,)),
        (lambda: np.zeros((3, 2)), (1, 1), lambda it: it.__setitem__((1, 1), 9), ()),
        (lambda: np.zeros(6), slice(1, 3), lambda it: it.__setitem__(2, 9), (1,)),
        (lambda: (ctypes.c_int * 3 * 2)(), 1, lambda it: it[1].__setitem__(2, 9), (2,)),
        (lambda: memoryview(bytearray(8)), slice(2, 4), lambda it: it.__setitem__(3, 9), None),
    ],
)
def test_items_of_buffers_are_their_memory(watched, recorder, make, key, change, index):
    it = make()
    watched.watch_item(it, key, alias="item")

    def read():
        return [it[key] for _ in range(5)]

    read()
    sweep_if_traced(watched)
    assert recorder == []
    change(it)
    assert watched.flush()
    assert len(recorder) == 1
    if index is not None:
        (element,) = recorder[0].elements
        assert (element.index, element.new) == (index, 9)


def sweep_if_traced(watched):
    if "trace" in watched._adapters:
        assert watched.flush()
    assert watched.flush()


def test_a_strided_item_is_refused(watcher):
    records = np.zeros(3, [("id", "i4"), ("price", "f8")])
    with pytest.raises(ValueError, match="not contiguous"):
        watcher.watch_item(records, "price")
    with pytest.raises(ValueError, match="copy"):
        watcher.watch_item(np.zeros(4), [1, 2])


def test_items_made_anew_that_compare(watched, recorder):
    class Doubles:
        def __init__(self):
            self.items = [1, 2]

        def __getitem__(self, at):
            return (self.items[at], str(self.items[at]))

    doubles = Doubles()
    watched.watch_item(doubles, 1, alias="item")
    assert [doubles[1] for _ in range(3)]
    assert watched.flush()
    assert recorder == []
    doubles.items[1] = 3
    assert watched.flush()
    assert [(event.old, event.new) for event in recorder] == [((2, "2"), (3, "3"))]


@pytest.mark.parametrize("function", ["watch_attr", "watch_item", "watch_name", "all"])
def test_unknown_options_are_refused(watcher, thing, function):
    thing.n, items, n = 1, {"n": 1}, 1
    arguments = {"watch_attr": (thing, "n"), "watch_item": (items, "n"), "watch_name": ("n",), "all": ()}[function]
    with pytest.raises(TypeError, match=rf"{function}\(\) got an unexpected keyword argument 'deepp'"):
        getattr(watcher, function)(*arguments, deepp=True)
    if function != "all":
        with pytest.raises(TypeError, match=r"alias=|multiple values for argument 'name'"):
            getattr(watcher, function)(*arguments, name="x")
        for option in ({"max_rate": 1}, {"metric": True}):
            with pytest.raises(TypeError, match="for memory"):
                getattr(watcher, function)(*arguments, **option)
    assert watcher.get_stats()["tracked_regions"] == 0, n


def test_options_of_memory_go_to_the_buffer(watched, recorder, thing):
    thing.it = np.zeros(4)
    watched.watch_attr(thing, "it", alias="it", when=("gt", 5), metric=True)
    thing.it[0] = 3
    assert watched.flush()
    thing.it[0] = 7
    assert watched.flush()
    assert [event.new[0] for event in recorder] == [7]
    assert watched.get_stats(regions=True)["regions"]["it"]["metric"]


@pytest.mark.parametrize(
    ("when", "values"),
    [
        (("gt", 50), [51, 60]),
        (("le", 50), [50, 49]),
        (("outside", 50, 55), [49, 60]),
        (("inside", 50, 55), [50, 51]),
        (("delta_gt", 5), [60]),
        ("changed", [50, 49, 51, 60]),
        ("any_nan", []),
        (lambda value: value == 49, [49]),
    ],
)
def test_conditions_on_numbers(watched, recorder, thing, when, values):
    thing.n = 48
    watched.watch_attr(thing, "n", alias="n", when=when)
    for value in (50, 49, 51, 60):
        thing.n = value
    assert watched.flush()
    assert [event.new for event in recorder] == values


def test_a_condition_that_sees_nan(watched, recorder, thing):
    thing.n = 1.0
    watched.watch_attr(thing, "n", alias="n", when="any_nan")
    thing.n = 2.0
    thing.n = math.nan
    assert watched.flush()
    assert math.isnan(recorder[0].new) and len(recorder) == 1


def test_deep_shows_the_old_as_it_was(watched, recorder):
    state = {"jobs": [{"id": 1, "status": "new"}]}
    watched.watch_name("state", deep=True)
    state["jobs"][0]["status"] = "failed"
    assert watched.flush()
    state["jobs"][0]["status"] = "done"
    assert watched.flush()
    told = [(event.old["jobs"][0]["status"], event.new["jobs"][0]["status"]) for event in recorder]
    assert told == [("new", "failed"), ("failed", "done")]
    assert b"'new'" in recorder[0].old_value


def test_events_read_alike_at_once_and_later(watched, recorder, thing):
    thing.items, thing.n = ["a"], 1
    watched.watch_attr(thing, "items", alias="items")
    watched.watch_attr(thing, "n", alias="n")
    thing.items.append("b")
    thing.n = 2.5
    thing.items.append("c")
    assert watched.flush()
    told = [(event.old, event.new) for event in recorder]
    assert told == [(["a"], ["a", "b"]), (1, 2.5), (["a", "b"], ["a", "b", "c"])]
    assert [(event.old, event.new) for event in watched.events(since=0, timeout=0)] == told


def watched_list(watcher):
    """Watches a name, and answers the list behind it: code that has only that mentions no watched name."""
    thing = Thing()
    thing.it = [1]
    return watcher.watch_attr(thing, "it", alias="it"), thing.it, thing


@pytest.mark.parametrize(
    "end", [lambda watcher, _: watcher.flush(), MemoryWatcher.unwatch, lambda watcher, _: watcher.close()]
)
def test_what_no_code_told_is_not_lost(end):
    """A flush, an unwatch and a close compare what is left."""
    told = []
    with MemoryWatcher(adapter=TraceAdapter(sweep_s=None)) as watcher:
        watcher.set_callback(lambda event: told.append((event.old, event.new)))
        region, items, _owner = watched_list(watcher)
        items.append(2)
        end(watcher, region)
    assert told == [([1], [1, 2])]


@pytest.mark.parametrize("tracer", [None, lambda frame, event, arg: None], ids=["alone", "beside a tracer"])
def test_a_flush_on_the_line_of_the_change(thing, recorder, tracer):
    """Whose line it is is known, though it has not ended."""
    previous = sys.gettrace()
    sys.settrace(tracer)
    with MemoryWatcher() as watcher:
        watcher.set_callback(recorder)
        thing.at = 1
        watcher.watch_attr(thing, "at", alias="at")
        thing.at = 2; assert watcher.flush() and len(recorder) == 1  # fmt: skip # noqa: E702
        thing.at = 3; assert watcher.flush() and len(recorder) == 2  # fmt: skip # noqa: E702
    sys.settrace(previous)
    line = sys._getframe().f_lineno
    assert [event.where.line for event in recorder] == [line - 3, line - 2]
    assert {event.where.attribution for event in recorder} == {"exact"}


Point = collections.namedtuple("Point", "x y")


def test_named_tuples_and_exceptions(watched, recorder, thing):
    thing.at, thing.error = Point(1, 2), None
    watched.watch_attr(thing, "at", alias="at")
    watched.watch_attr(thing, "error", alias="error")
    thing.at = Point(1, 2)
    thing.at = Point(1, 3)
    thing.error = ValueError("no", 7)
    assert watched.flush()
    assert [event.new for event in recorder] == [f"{__name__}.Point(x=1, y=3)", "ValueError('no', 7)"]
    assert recorder[0].new_object == Point(1, 3)


def test_what_is_shown_in_part_is_never_another_value(watched, recorder, thing):
    loop = [1]
    loop.append(loop)
    values = [
        [[[[1]]]],
        [[[[[1]]]]],
        loop,
        array.array("w" if sys.version_info >= (3, 13) else "u", "a" * 800),
        array.array("d", [1.5, math.inf]),
    ]
    thing.it = None
    watched.watch_attr(thing, "it", alias="it")
    for value in values:
        thing.it = value
    assert watched.flush()
    assert [event.new for event in recorder] == [
        [[[[1]]]],
        "[[[[...]]]]",
        "[1, [1, ...]]",
        "a" * 800,
        [1.5, math.inf],
    ]


def test_half_a_number_is_no_number(thing):
    thing.it = 0
    with MemoryWatcher(inline_threshold=64) as watcher:
        watcher.watch_attr(thing, "it", alias="it")
        thing.it = 10**100
        thing.it = 7
        assert watcher.flush()
        first, second = watcher.events(since=0, timeout=0)
    assert first.new == second.old == "1" + "0" * 60 + "…"
    assert (first.old, second.new) == (0, 7)


def test_a_preview_of_a_name_is_told(watched, recorder, thing):
    thing.it = 5
    watched.watch_attr(thing, "it", alias="it", values="preview")
    thing.it = 6
    assert watched.flush()
    assert recorder[0].summary == "it: 5 -> 6"


def test_an_equal_frozen_set_is_the_same_value(watched, recorder, thing):
    thing.it = frozenset(["a", 2])
    watched.watch_attr(thing, "it", alias="it")
    thing.it = frozenset([2, "a"])
    thing.it = frozenset([2, "b"])
    assert watched.flush()
    assert [event.new_object for event in recorder] == [{2, "b"}]


def test_text_of_events_of_names(watched, recorder, thing):
    thing.api_token, thing.mode = "first", False
    watched.watch_attr(thing, "api_token", alias="api_token")
    watched.watch_attr(thing, "mode", alias="mode")
    thing.api_token = "second"
    del thing.mode
    assert watched.flush()
    assert "api_token: changed (hidden)" in repr(recorder[0])
    assert "mode: False -> <unbound>" in repr(recorder[1])


def test_an_empty_name_is_refused(watcher, thing):
    thing.n = 1
    with pytest.raises(ValueError, match="a name is not empty"):
        watcher.watch(bytearray(8), "")
    with pytest.raises(ValueError, match="a name is not empty"):
        watcher._core.region_add_external("")
    assert watcher.watch_attr(thing, "n", alias="") in [region["id"] for region in watcher._core.region_list()]


def test_numbers_of_names_are_exported(watched, recorder, thing):
    import json
    import urllib.request

    if "exporter" in memwatch._native.missing:
        pytest.skip("built without the exporter")
    thing.temp, thing.n, thing.on, thing.text, thing.token, thing.huge = 20.5, 3, False, "a", 7, 1 << 80
    for name in ("temp", "n", "on", "text", "token", "huge"):
        watched.watch_attr(thing, name, alias=name)
    server = watched.serve(port=0)

    def gauges():
        lines = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode().splitlines()
        return {
            line.split('"')[1]: float(line.split()[-1]) for line in lines if line.startswith("memwatch_variable_value{")
        }

    assert gauges() == {"temp": 20.5, "n": 3, "on": 0}
    thing.temp, thing.n, thing.on, thing.text, thing.token = 99.5, -4, True, 5, 8
    assert watched.flush()
    assert gauges() == {"temp": 99.5, "n": -4, "on": 1, "text": 5}
    thing.n = None
    assert watched.flush()
    assert "n" not in gauges()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/api/v1/events", headers={"Authorization": f"Bearer {server.token}"}
    )
    events = json.loads(urllib.request.urlopen(request).read())["events"]
    numbers = [(event["name"], event.get("old_number"), event.get("new_number")) for event in events]
    assert numbers == [
        ("temp", 20.5, 99.5),
        ("n", 3, -4),
        ("on", 0, 1),
        ("text", None, 5),
        ("token", None, None),
        ("n", -4, None),
    ]
