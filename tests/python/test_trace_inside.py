"""What names hold: changes in place, attributes and items."""

import collections
import dataclasses
import gc
import sys
import types

import pytest

from memwatch._scope import watch_attr, watch_item, watch_name

from .conftest import here, values

# --- in place ---------------------------------------------------------------------------------------------------------


def test_changes_in_place_rebinding_aliases_and_callees(traced, events):
    """The six ways: an item, a method, a method through an alias, a new list, an item of it, a change in a callee."""
    items = [1, 2, 3]
    watch_name(traced, here(), "items")
    first = sys._getframe().f_lineno
    items[0] = 2
    items.append(4)
    alias = items
    alias.append(5)
    items = {"a": 1}
    items["a"] = 2
    put(items, "b", 3)
    assert [event.line - first for event in events] == [1, 2, 4, 5, 6, 7]
    assert events[2].old == b"[2, 2, 3, 4]"
    assert values(events) == [
        [2, 2, 3], [2, 2, 3, 4], [2, 2, 3, 4, 5], {"a": 1}, {"a": 2}, {"a": 2, "b": 3},
    ]  # fmt: skip


def put(mapping, key, value):
    mapping[key] = value


def test_how_well_a_change_in_place_is_known(traced, events):
    items = [1]
    watch_name(traced, here(), "items")
    items.append(2)
    items[0] = 3
    put(items, 0, 4)
    assert [event.attribution for event in events] == ["exact", "exact", "page"]


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: [1, 2, 3], lambda value: value.__setitem__(slice(0, 2), [])),
        (lambda: [3, 1, 2], lambda value: value.sort()),
        (lambda: [[1], 2], lambda value: value.reverse()),
        (lambda: {"a": 1}, lambda value: value.update(a=2)),
        (lambda: {"a": 1}, lambda value: value.pop("a")),
        (lambda: {1, 2}, lambda value: value.add(3)),
        (lambda: {1, 2}, lambda value: (value.discard(1), value.add(7))),
        (lambda: bytearray(b"abc"), lambda value: value.__setitem__(0, 0)),
        (lambda: collections.deque([1]), lambda value: value.appendleft(0)),
        (lambda: collections.OrderedDict(a=1, b=2), lambda value: value.move_to_end("a")),
        (lambda: types.SimpleNamespace(a=1), lambda value: setattr(value, "a", 2)),
    ],
)
def test_containers(traced, events, make, change):
    value = make()
    watch_name(traced, here(), "value")
    change(value)
    assert len(events) == 1
    assert events[0].old != events[0].new


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: list(range(100_000)), lambda value: value.__setitem__(50_000, -1)),
        (lambda: list(range(100_001)), lambda value: value.__setitem__(100_000, -1)),
        (lambda: dict.fromkeys(range(5000), 0), lambda value: value.update({2500: 1})),
        (lambda: set(range(5000)), lambda value: (value.discard(2500), value.add(-1))),
        (lambda: collections.deque(range(5000)), lambda value: value.__setitem__(2500, -1)),
        (lambda: types.SimpleNamespace(**{f"a{i}": i for i in range(2500)}), lambda value: setattr(value, "a1250", -1)),
    ],
)
def test_the_middle_of_long_containers(traced, events, make, change):
    """What an event has of them is short: old and new may read the same."""
    value = make()
    watch_name(traced, here(), "value")
    change(value)
    assert len(events) == 1
    assert len(events[0].new) <= 1100
    change = None  # another line
    assert traced.adapter.check_changes() == [] and len(events) == 1


def test_equal_items_in_long_containers_are_no_change(traced, events):
    value = [str(number) for number in range(5000)]
    watch_name(traced, here(), "value")
    value[2500] = str(2500)
    assert traced.adapter.check_changes() == [] and events == []


def test_a_set_that_is_only_reordered_is_silent(traced, events):
    value = set(range(100))
    watch_name(traced, here(), "value")
    for number in range(100, 500):
        value.add(number)
    for number in range(100, 500):
        value.discard(number)
    traced.adapter.check_changes()
    assert events[-1].new_object == value == set(range(100))
    n_events = len(events)
    traced.adapter.check_changes()
    assert len(events) == n_events


def test_an_object_its_attributes_and_slots(traced, events):
    class Point:
        __slots__ = ("__dict__", "x")

    point = Point()
    point.x, point.y = 1, 2
    watch_name(traced, here(), "point")
    point.x = 3
    point.y = 3
    assert [event.old for event in events] == [
        events[0].old,
        events[0].new,
    ]
    assert b"y=2 x=3" in events[0].new
    assert {event.attribution for event in events} == {"exact"}


def test_nested_changes_only_when_deep(traced, events):
    shallow = {"a": [1]}
    nested = {"a": [1]}
    watch_name(traced, here(), "shallow")
    watch_name(traced, here(), "nested", deep=True)
    shallow["a"].append(2)
    nested["a"].append(2)
    assert [event.name for event in events] == ["nested"]


def test_a_name_that_comes_to_hold_a_list(traced, events):
    value = None
    watch_name(traced, here(), "value")
    value = []
    value.append(1)
    assert [event.new for event in events] == [b"[]", b"[1]"]


def test_long_containers_are_compared_at_both_ends(traced, events):
    value = list(range(5000))
    watch_name(traced, here(), "value")
    value[4999] = -1
    value[0] = -1
    value.append(1)
    assert len(events) == 3
    assert all(len(event.new) < 5000 for event in events)


def test_a_hot_loop_is_throttled_and_the_sweep_finds_the_rest(traced, events):
    value = list(range(1000))

    def fill():
        for number in range(800):
            value[number % 1000] = -number
        return value

    watch_name(traced, here(), "value")
    fill()
    traced.adapter.check_changes()
    assert events[-1].new_object == value


def test_what_no_engine_sees_is_found_by_a_look(traced, events):
    names = {"value": [1]}
    exec("hold = value", names)
    watch_item(traced, names, "hold")
    names["value"] += [2]
    traced.adapter.check_changes()
    assert events[-1].new == b"[1, 2]"


# --- attributes and items ---------------------------------------------------------------------------------------------


class Thing:
    count = 0

    def bump(self):
        self.count += 1


def test_an_attribute(traced, events):
    thing, other = Thing(), Thing()
    watch_attr(traced, thing, "count")
    thing.bump()
    other.bump()
    thing.count = 1
    thing.count = 5
    setattr(thing, "count", 6)  # noqa: B010
    assert values(events) == [1, 5, 6]
    assert events[0].name == "thing.count"
    assert events[0].function == "Thing.bump"
    assert [event.attribution for event in events] == ["exact", "exact", "page"]


def test_a_slot_and_a_dataclass(traced, events):
    @dataclasses.dataclass
    class Config:
        timeout: int = 30

    class Slotted:
        __slots__ = ("value",)

    config, slotted = Config(), Slotted()
    slotted.value = 1
    watch_attr(traced, config, "timeout")
    watch_attr(traced, slotted, "value")
    config.timeout = 0
    slotted.value = 2
    assert [(event.name, event.new_object) for event in events] == [("config.timeout", 0), ("slotted.value", 2)]


def test_an_attribute_of_a_class(traced, events):
    class Settings:
        debug = False

    watch_attr(traced, Settings, "debug")
    Settings.debug = True
    assert values(events) == [True]


def test_an_object_that_goes_is_not_kept(traced, events):
    thing = Thing()
    watch_attr(traced, thing, "count")
    thing.bump()
    del thing
    gc.collect()
    traced.adapter.check_changes()
    assert [event.note for event in events] == ["", "ended: attribute deleted"]
    assert traced.recorder.names == {}


def test_a_property_is_read_only_when_asked(traced, events):
    class Sensor:
        raw = 1

        @property
        def value(self):
            return self.raw * 10

    sensor = Sensor()
    with pytest.raises(ValueError, match="properties=True"):
        watch_attr(traced, sensor, "value")
    watch_attr(traced, sensor, "value", properties=True)
    sensor.raw = 2
    traced.adapter.check_changes()
    assert values(events) == [20]


def test_items(traced, events):
    items, mapping = [1, 2, 3], {"a": 1, "b": 2}
    watch_item(traced, items, 1)
    watch_item(traced, mapping, "a")
    items[0] = 0
    items[1] = 5
    items[1] = 5
    items.insert(0, 9)
    mapping["b"] = 3
    mapping["a"] = 2
    assert [(event.name, event.new_object) for event in events] == [
        ("items[1]", 5),
        ("items[1]", 0),
        ("mapping['a']", 2),
    ]
    assert {event.attribution for event in events} == {"exact"}


def test_a_slice(traced, events):
    items = [1, 2, 3, 4]
    watch_item(traced, items, slice(0, 2), alias="head")
    items[3] = 0
    items[1] = 0
    assert [(event.name, event.new) for event in events] == [("head", b"[1, 0]")]
    with pytest.raises(ValueError, match="slice"):
        watch_item(traced, items, slice(0, 2), track="binding")


def test_an_item_by_a_key_that_code_only_computes(traced, events):
    mapping = {"key": 1}
    watch_item(traced, mapping, "key", names=["store"])

    def change(store, key):
        store[key] = 2

    change(mapping, "k" + "ey")
    assert [(event.function.rpartition(".")[2], event.attribution) for event in events] == [("change", "exact")]


def test_names_that_are_only_keywords(traced, events):
    """Code that mentions the attribute as a keyword argument alone."""
    thing = Thing()
    thing.count = 0
    change, change_items = compile_keywords()
    watch_attr(traced, thing, "count")
    change(thing)
    change_items(thing)
    assert [(event.new_object, event.function) for event in events] == [(1, "change"), (2, "change_items")]


def compile_keywords():
    names = {}
    exec(
        "def change(it):\n    vars(it).update(count=1)\n"
        "def change_items(it):\n    number = 2\n    vars(it).update({'other': 1, 'count': number})",
        names,
    )
    return names["change"], names["change_items"]


def test_an_item_of_something_that_has_no_name_of_its_own(traced, events):
    rows = [[0, 0], [0, 0]]
    watch_item(traced, rows[1], 0, alias="cell")
    rows[0][0] = 1
    rows[1][0] = 5
    for row in rows:
        row[0] = 7
    assert [(event.new_object, event.attribution) for event in events] == [(5, "page"), (7, "exact")]
