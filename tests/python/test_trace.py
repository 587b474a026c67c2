"""Names bound to any object: what the trace adapter sees, on every engine that this Python has."""

import asyncio
import dataclasses
import gc
import os
import sys
import threading
import types

import pytest

from memwatch._scope import watch_attr, watch_item, watch_name
from memwatch._trace import TraceAdapter
from memwatch.testing import RecordingWatcher

ENGINES = ["settrace"] + (["monitoring"] if sys.version_info >= (3, 12) else [])

module_counter = 0
module_items = [1, 2]


def line():
    """The caller's line."""
    return sys._getframe(1).f_lineno


def here():
    return sys._getframe(1)


@pytest.fixture(params=ENGINES)
def watcher(request):
    previous = sys.gettrace()
    if request.param == "settrace":
        sys.settrace(None)
    watcher = RecordingWatcher(TraceAdapter(engine=request.param, sweep_s=None))
    watcher.engine = request.param
    yield watcher
    watcher.close()
    sys.settrace(previous)


@pytest.fixture
def events(watcher):
    return watcher.recorder.events


def values(events, name=None):
    return [event.new_object for event in events if name is None or event.name == name]


# --- binding ----------------------------------------------------------------------------------------------------------


def test_a_local_that_is_bound_anew(watcher, events):
    value = 1
    watch_name(watcher, here(), "value")
    value = 2
    expected = line() - 1
    assert value == 2
    [event] = events
    assert (event.old, event.new) == (b"1", b"2")
    assert (event.old_object, event.new_object) == (1, 2)
    assert (event.attribution, event.reason) == ("exact", "none")
    assert event.frames[0][0] == __file__
    assert event.function == "test_a_local_that_is_bound_anew"
    assert event.line == expected
    assert event.thread_id == threading.get_native_id()
    assert event.thread_name == threading.current_thread().name
    assert event.backend == "trace"


def test_the_same_value_is_silent(watcher, events):
    value = 1000
    text = "a" * 50
    watch_name(watcher, here(), "value")
    watch_name(watcher, here(), "text")
    value = int("1000")
    text = "".join(["a"] * 50)
    assert events == []
    value, text = 1001, "b"
    assert {event.name for event in events} == {"value", "text"}
    assert value, text


def test_another_type_is_another_value(watcher, events):
    value = 1
    watch_name(watcher, here(), "value")
    value = True
    value = 1.0
    assert value
    assert [event.new for event in events] == [b"True", b"1.0"]


def test_nan_is_the_same_value_as_nan(watcher, events):
    value = float("nan")
    watch_name(watcher, here(), "value")
    value = float("nan")
    assert events == []
    assert value != value


def test_a_global_bound_in_another_function(watcher, events):
    global module_counter
    module_counter = 0
    watch_name(watcher, here(), "module_counter")
    bind_global(5)
    [event] = events
    assert (event.old_object, event.new_object, event.function) == (0, 5, "bind_global")
    assert event.line == bind_global.__code__.co_firstlineno + 2
    assert event.attribution == "exact"


def bind_global(value):
    global module_counter
    module_counter = value


def test_two_assignments_on_lines_of_their_own(watcher, events):
    value = 0
    watch_name(watcher, here(), "value")
    first = line() + 1
    value = 1
    value += 1
    assert value == 2
    assert [(event.line, event.new_object) for event in events] == [(first, 1), (first + 1, 2)]


def test_every_kind_of_binding(watcher, events):
    value = 0
    watch_name(watcher, here(), "value")
    first = line()
    for value in (1, 2):
        pass
    [value, other] = 3, 3
    if (value := 4) and other:
        pass
    with open(os.devnull) as value:
        pass
    import types as value

    def value():
        pass

    class value:
        pass

    match [8]:
        case [value]:
            pass
    try:
        raise ValueError
    except ValueError as value:
        pass
    assert values(events)[:4] == [1, 2, 3, 4]
    lines = [event.line - first for event in events]
    assert lines == sorted(lines)
    # The except clause binds the name; at its end it binds None and then deletes it, which is one line's work.
    assert len(events) == {"settrace": 11, "monitoring": 12}[watcher.engine]
    assert events[-1].note == "ended: name deleted"
    assert watcher.recorder.names == {}


def test_a_closure_bound_inside_and_outside(watcher, events):
    shared = 0

    def inner():
        nonlocal shared
        shared = 1

    watch_name(watcher, here(), "shared")
    inner()
    shared = 2
    assert [(event.function.rpartition(".")[2], event.new_object) for event in events] == [
        ("inner", 1),
        ("test_a_closure_bound_inside_and_outside", 2),
    ]


def test_a_closure_lives_longer_than_the_function_that_made_it(watcher, events):
    def outer():
        count = 0
        watch_name(watcher, here(), "count")

        def increment():
            nonlocal count
            count += 1
            return count

        return increment

    increment, other = outer(), None
    increment()
    increment()
    assert values(events) == [1, 2]
    assert other is None


def test_closures_of_the_same_code_are_told_apart(watcher, events):
    def make(watched):
        count = 0
        if watched:
            watch_name(watcher, here(), "count")

        def increment():
            nonlocal count
            count += 1

        return increment

    one, two = make(True), make(False)
    two()
    assert events == []
    one()
    assert values(events) == [1]


def test_recursion_watches_one_frame(watcher, events):
    def descend(depth):
        value = depth
        if depth == 3:
            watch_name(watcher, here(), "value")
        if depth:
            descend(depth - 1)
        value = -depth
        return value

    descend(4)
    assert [(event.old_object, event.new_object) for event in events] == [(3, -3)]


def test_a_local_ends_with_its_function(watcher, events):
    def function(fail):
        value = 1
        watch_name(watcher, here(), "value")
        value = 2
        if fail:
            raise KeyError
        return value

    function(False)
    assert watcher.recorder.names == {}
    with pytest.raises(KeyError):
        function(True)
    assert watcher.recorder.names == {}
    assert values(events) == [2, 2]
    assert watcher.adapter.get_stats()["ended"] == 2


def test_locals_are_let_go_of_with_the_function(watcher):
    class Thing:
        pass

    gone = threading.Event()

    def function():
        thing = Thing()
        import weakref

        weakref.finalize(thing, gone.set)
        watch_name(watcher, here(), "thing")

    function()
    gc.collect()
    assert gone.is_set()


def test_an_inlined_comprehension_leaves_the_name_alone(watcher, events):
    if watcher.engine == "settrace" and sys.version_info >= (3, 12):
        pytest.skip("lines are too coarse for that, see _trace_settrace.py")
    value = 1
    watch_name(watcher, here(), "value")
    doubled = [value * 2 for value in (5, 6, 7)]
    named = {value: value for value in (5, 6)}
    assert (doubled, named, value) == ([10, 12, 14], {5: 5, 6: 6}, 1)
    assert events == []
    value = 2
    assert values(events) == [2]


def test_generators(watcher, events):
    def generate():
        state = 0
        watch_name(watcher, here(), "state")
        while True:
            state = yield state

    generator = generate()
    next(generator)
    generator.send(7)
    generator.send(8)
    assert values(events) == [7, 8]
    assert all(event.function.endswith("generate") for event in events)
    generator.close()
    del generator
    watcher.adapter.check_changes()
    assert watcher.recorder.names == {}


def test_a_generator_that_was_suspended_before_the_watch(watcher, events):
    global module_counter
    module_counter = 0

    def generate():
        global module_counter
        while True:
            module_counter = yield

    generator = generate()
    next(generator)
    watch_name(watcher, here(), "module_counter")
    generator.send(3)
    assert values(events) == [3]


def test_coroutines(watcher, events):
    async def work(n):
        total = 0
        watch_name(watcher, here(), "total", alias=f"total-{n}")
        for step in range(1, 3):
            await asyncio.sleep(0)
            total = n * step
        return total

    async def main():
        return await asyncio.gather(work(10), work(100))

    asyncio.run(main())
    assert values(events, "total-10") == [10, 20]
    assert values(events, "total-100") == [100, 200]
    assert watcher.recorder.names == {}


def test_cells_of_a_notebook(watcher, events):
    """Code that is compiled and run in a namespace, cell after cell, with no source file."""
    shell = {"__name__": "__main__", "watch": lambda name: watch_name(watcher, sys._getframe(1), name)}

    def run(number, source):
        exec(compile(source, f"<cell {number}>", "exec"), shell)

    run(1, "x = 1\nwatch('x')\nx = 2")
    run(2, "\nx = 3")
    run(3, "def f():\n    global x\n    x = 4\nf()")
    assert [(event.frames[0][0], event.line, event.new_object) for event in events] == [
        ("<cell 1>", 3, 2),
        ("<cell 2>", 2, 3),
        ("<cell 3>", 3, 4),
    ]
    assert {event.attribution for event in events} == {"exact"}


def test_a_class_body(watcher, events):
    class Body:
        value = 1
        watch_name(watcher, sys._getframe(), "value")
        value = 2

    assert Body.value == 2
    assert values(events) == [2]


def test_a_name_set_through_its_module(watcher, events):
    module = types.ModuleType("settings")
    module.debug = False
    watch_attr(watcher, module, "debug")
    module.debug = True
    setattr(module, "debug", None)  # noqa: B010
    module.__dict__["debug"] = 1
    assert values(events) == [True, None, 1]
    assert events[0].attribution == "exact"
    assert events[0].name == "settings.debug"


def test_threads(watcher, events):
    """Two threads of five writes are ten events that name their threads."""
    global module_counter
    module_counter = 0
    watch_name(watcher, here(), "module_counter")
    turns = [threading.Semaphore(1), threading.Semaphore(0)]

    def write(me):
        global module_counter
        for step in range(5):
            turns[me].acquire()
            module_counter = (me, step)
            turns[1 - me].release()

    threads = [threading.Thread(target=write, args=(me,), name=f"writer-{me}") for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events) == 10
    assert [event.thread_name for event in events] == ["writer-0", "writer-1"] * 5
    assert len({event.thread_id for event in events}) == 2
    assert {event.function.rpartition(".")[2] for event in events} == {"write"}


def test_threads_that_race_end_at_what_the_name_holds(watcher, events):
    global module_counter
    module_counter = 0
    watch_name(watcher, here(), "module_counter")

    def write(me):
        for step in range(200):
            bind_global((me, step))

    threads = [threading.Thread(target=write, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watcher.adapter.check_changes()
    assert events[-1].new_object == module_counter
    assert all(after.old == before.new for before, after in zip(events, events[1:]))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a running thread cannot be given a tracer")
def test_a_thread_that_ran_before_the_watch(request):
    watcher = RecordingWatcher(TraceAdapter(sweep_s=None))
    go, done = threading.Event(), threading.Event()

    def write():
        go.wait()
        bind_global("late")
        done.set()

    thread = threading.Thread(target=write, name="early")
    thread.start()
    bind_global(0)
    watch_name(watcher, sys._getframe(), "module_counter")
    go.set()
    thread.join()
    watcher.close()
    assert [event.thread_name for event in watcher.recorder.events] == ["early"]


# --- in place ---------------------------------------------------------------------------------------------------------


def test_changes_in_place_rebinding_aliases_and_callees(watcher, events):
    """The six ways: an item, a method, a method through an alias, a new list, an item of it, a change in a callee."""
    items = [1, 2, 3]
    watch_name(watcher, here(), "items")
    first = line()
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


def test_how_well_a_change_in_place_is_known(watcher, events):
    items = [1]
    watch_name(watcher, here(), "items")
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
        (lambda: __import__("collections").deque([1]), lambda value: value.appendleft(0)),
        (lambda: __import__("collections").OrderedDict(a=1, b=2), lambda value: value.move_to_end("a")),
        (lambda: types.SimpleNamespace(a=1), lambda value: setattr(value, "a", 2)),
    ],
)
def test_containers(watcher, events, make, change):
    value = make()
    watch_name(watcher, here(), "value")
    change(value)
    assert len(events) == 1
    assert events[0].old != events[0].new


def test_a_set_that_is_only_reordered_is_silent(watcher, events):
    value = set(range(100))
    watch_name(watcher, here(), "value")
    for number in range(100, 500):
        value.add(number)
    for number in range(100, 500):
        value.discard(number)
    watcher.adapter.check_changes()
    assert events[-1].new_object == value == set(range(100))
    n_events = len(events)
    watcher.adapter.check_changes()
    assert len(events) == n_events


def test_an_object_its_attributes_and_slots(watcher, events):
    class Point:
        __slots__ = ("x", "__dict__")

    point = Point()
    point.x, point.y = 1, 2
    watch_name(watcher, here(), "point")
    point.x = 3
    point.y = 3
    assert [event.old for event in events] == [
        events[0].old,
        events[0].new,
    ]
    assert b"y=2 x=3" in events[0].new
    assert {event.attribution for event in events} == {"exact"}


def test_nested_changes_only_when_deep(watcher, events):
    shallow = {"a": [1]}
    nested = {"a": [1]}
    watch_name(watcher, here(), "shallow")
    watch_name(watcher, here(), "nested", deep=True)
    shallow["a"].append(2)
    nested["a"].append(2)
    assert [event.name for event in events] == ["nested"]


def test_a_name_that_comes_to_hold_a_list(watcher, events):
    value = None
    watch_name(watcher, here(), "value")
    value = []
    value.append(1)
    assert [event.new for event in events] == [b"[]", b"[1]"]


def test_long_containers_are_compared_at_both_ends(watcher, events):
    value = list(range(5000))
    watch_name(watcher, here(), "value")
    value[4999] = -1
    value[0] = -1
    value.append(1)
    assert len(events) == 3
    assert all(len(event.new) < 5000 for event in events)


def test_a_hot_loop_is_throttled_and_the_sweep_finds_the_rest(watcher, events):
    value = list(range(1000))

    def fill():
        for number in range(800):
            value[number % 1000] = -number
        return value

    watch_name(watcher, here(), "value")
    fill()
    watcher.adapter.check_changes()
    assert events[-1].new_object == value


def test_what_no_engine_sees_is_found_by_a_look(watcher, events):
    names = {"value": [1]}
    exec("hold = value", names)
    watch_item(watcher, names, "hold")
    names["value"] += [2]
    watcher.adapter.check_changes()
    assert events[-1].new == b"[1, 2]"


# --- attributes and items ---------------------------------------------------------------------------------------------


class Thing:
    count = 0

    def bump(self):
        self.count += 1


def test_an_attribute(watcher, events):
    thing, other = Thing(), Thing()
    watch_attr(watcher, thing, "count")
    thing.bump()
    other.bump()
    thing.count = 1
    thing.count = 5
    setattr(thing, "count", 6)  # noqa: B010
    assert values(events) == [1, 5, 6]
    assert events[0].name == "thing.count"
    assert events[0].function == "Thing.bump"
    assert [event.attribution for event in events] == ["exact", "exact", "page"]


def test_a_slot_and_a_dataclass(watcher, events):
    @dataclasses.dataclass
    class Config:
        timeout: int = 30

    class Slotted:
        __slots__ = ("value",)

    config, slotted = Config(), Slotted()
    slotted.value = 1
    watch_attr(watcher, config, "timeout")
    watch_attr(watcher, slotted, "value")
    config.timeout = 0
    slotted.value = 2
    assert [(event.name, event.new_object) for event in events] == [("config.timeout", 0), ("slotted.value", 2)]


def test_an_attribute_of_a_class(watcher, events):
    class Settings:
        debug = False

    watch_attr(watcher, Settings, "debug")
    Settings.debug = True
    assert values(events) == [True]


def test_an_object_that_goes_is_not_kept(watcher, events):
    thing = Thing()
    watch_attr(watcher, thing, "count")
    thing.bump()
    del thing
    gc.collect()
    watcher.adapter.check_changes()
    assert [event.note for event in events] == ["", "ended: attribute deleted"]
    assert watcher.recorder.names == {}


def test_a_property_is_read_only_when_asked(watcher, events):
    class Sensor:
        raw = 1

        @property
        def value(self):
            return self.raw * 10

    sensor = Sensor()
    with pytest.raises(ValueError, match="properties=True"):
        watch_attr(watcher, sensor, "value")
    watch_attr(watcher, sensor, "value", properties=True)
    sensor.raw = 2
    watcher.adapter.check_changes()
    assert values(events) == [20]


def test_items(watcher, events):
    items, mapping = [1, 2, 3], {"a": 1, "b": 2}
    watch_item(watcher, items, 1)
    watch_item(watcher, mapping, "a")
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


def test_a_slice(watcher, events):
    items = [1, 2, 3, 4]
    watch_item(watcher, items, slice(0, 2), alias="head")
    items[3] = 0
    items[1] = 0
    assert [(event.name, event.new) for event in events] == [("head", b"[1, 0]")]
    with pytest.raises(ValueError, match="slice"):
        watch_item(watcher, items, slice(0, 2), track="binding")


def test_an_item_by_a_key_that_code_only_computes(watcher, events):
    mapping = {"key": 1}
    watch_item(watcher, mapping, "key", names=["store"])

    def change(store, key):
        store[key] = 2

    change(mapping, "k" + "ey")
    assert [(event.function.rpartition(".")[2], event.attribution) for event in events] == [("change", "exact")]


# --- the end of a name ------------------------------------------------------------------------------------------------


def test_deleted_names_end_and_say_so(watcher, events):
    value, thing, mapping = 1, Thing(), {"a": 1}
    thing.count = 1
    own = types.SimpleNamespace(x=1)
    watch_name(watcher, here(), "value")
    watch_attr(watcher, own, "x")
    watch_item(watcher, mapping, "a")
    del value
    del own.x
    mapping.pop("a")
    assert [(event.new, event.note) for event in events] == [
        (None, "ended: name deleted"),
        (None, "ended: attribute deleted"),
        (None, "ended: item deleted"),
    ]
    assert watcher.recorder.names == {}
    value = 2
    mapping["a"] = 2
    assert len(events) == 3
    assert value == 2


def test_unwatch_and_watch_again(watcher, events):
    value = 0
    for turn in range(1, 5):
        region_id = watch_name(watcher, here(), "value")
        value = turn * 10
        assert len(events) == turn
        watcher.unwatch(region_id)
        value = turn * 10 + 1
        assert len(events) == turn
    assert value
    assert watcher.adapter.get_stats()["tracked"] == 0


def test_a_name_in_use_is_refused_and_changes_nothing(watcher):
    value = 0
    watch_name(watcher, here(), "value")
    with pytest.raises(ValueError, match="in use"):
        watch_name(watcher, here(), "value")
    assert watcher.adapter.get_stats()["tracked"] == 1
    assert value == 0


def test_what_is_not_there_is_refused(watcher):
    with pytest.raises(ValueError, match="no variable 'nothing'"):
        watch_name(watcher, here(), "nothing")
    with pytest.raises(ValueError, match="no attribute 'nothing'"):
        watch_attr(watcher, Thing(), "nothing")
    with pytest.raises(ValueError, match="no item"):
        watch_item(watcher, [], 0)
    with pytest.raises(TypeError, match="has no items"):
        watch_item(watcher, 5, 0)
    with pytest.raises(TypeError, match="a string"):
        watch_name(watcher, here(), 5)
    assert watcher.recorder.names == {}


# --- options ----------------------------------------------------------------------------------------------------------


def test_track_binding_and_track_value(watcher, events):
    by_value, by_binding = [1], [1]
    watch_name(watcher, here(), "by_value", track="value")
    watch_name(watcher, here(), "by_binding", track="binding")
    by_value.append(2)
    by_binding.append(2)
    by_value = [1, 2]
    by_binding = [1, 2]
    assert by_value == by_binding
    assert [(event.name, event.new) for event in events] == [("by_value", b"[1, 2]"), ("by_binding", b"[1, 2]")]
    assert events[1].old_object is not by_binding


def test_bad_options(watcher):
    value = 0
    with pytest.raises(ValueError, match="'value' or 'binding'"):
        watch_name(watcher, here(), "value", track="object")
    with pytest.raises(TypeError, match="must be a string"):
        watch_name(watcher, here(), "value", track=["value"])
    with pytest.raises(TypeError, match="when must be callable"):
        watch_name(watcher, here(), "value", when="always")
    assert watcher.recorder.names == {}
    assert value == 0


def test_when(watcher, events):
    value = 0
    watch_name(watcher, here(), "value", when=lambda new: new > 0)
    value = -1
    value = 1
    value = 2
    value = -3
    assert value
    assert values(events) == [1, 2]
    assert watcher.adapter.get_stats()["filtered"] == 2


def test_cmp_says_whether_two_values_differ(watcher, events):
    never, parity = 0, 0
    watch_name(watcher, here(), "never", cmp=lambda old, new: False)
    watch_name(watcher, here(), "parity", cmp=lambda old, new: old % 2 != new % 2)
    never, parity = 1, 2
    never, parity = 2, 3
    assert never, parity
    assert [(event.name, event.new_object) for event in events] == [("parity", 3)]


def test_copy(watcher, events):
    thing = Thing()
    thing.parts = [[1]]
    watch_name(watcher, here(), "thing", copy=lambda value: [list(part) for part in value.parts])
    thing.parts[0].append(2)
    thing.other = 1
    thing.parts.append([3])
    assert [event.old for event in events] == [b"[[1]]", b"[[1, 2]]"]


def test_a_failing_function_of_the_user_is_reported_once(watcher, events, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    value = 0

    def fail(new):
        raise ZeroDivisionError("when")

    watch_name(watcher, here(), "value", when=fail)
    value = 1
    value = 2
    assert value == 2
    assert values(events) == [1, 2]
    assert [type(unraisable.exc_value) for unraisable in seen] == [ZeroDivisionError]
    assert watcher.adapter.get_stats()["errors"] == 2


def test_stack_depth(watcher, events):
    def outer():
        inner()

    def inner():
        bind_global(object())

    bind_global(None)
    watch_name(watcher, here(), "module_counter", stack_depth=3)
    outer()
    assert [frame[1].rpartition(".")[2] for frame in events[0].frames] == ["bind_global", "inner", "outer"]


# --- what must not happen ---------------------------------------------------------------------------------------------


class Hostile:
    """Every method that a curious tool might call fails."""

    def _fail(self, *arguments):
        raise AssertionError("user code was called")

    __eq__ = __hash__ = __repr__ = __str__ = __len__ = __bool__ = __iter__ = __copy__ = __deepcopy__ = _fail
    __getattr__ = __sizeof__ = __format__ = __lt__ = __contains__ = __reduce_ex__ = __dir__ = __index__ = _fail
    loud = property(_fail)


def test_no_code_of_the_user_runs(watcher, events):
    value = Hostile()
    inside = [Hostile(), Hostile()]
    mapping = {"a": Hostile()}
    for name in ("value", "inside", "mapping"):
        watch_name(watcher, here(), name, deep=True)
    value = Hostile()
    inside[0] = Hostile()
    inside.append(value)
    mapping["a"] = Hostile()
    value.state = Hostile()
    watcher.adapter.check_changes()
    assert [event.name for event in events] == ["value", "inside", "inside", "mapping", "value", "inside"]
    assert watcher.adapter.get_stats()["errors"] == 0


def test_shown_values_are_bounded(watcher, events):
    value = None
    watch_name(watcher, here(), "value")
    value = "x" * 10_000_000
    value = [[["y" * 1000] * 100] * 100] * 100
    value = 10**100_000
    loop = []
    loop.append(loop)
    value = loop
    assert value is loop
    assert all(len(event.new) < 5000 for event in events)
    assert events[-1].new == b"[[...]]" or b"..." in events[-1].new


def test_the_source_is_not_needed(watcher, events):
    names = {}
    exec("def f(x, watch):\n    watch()\n    x = 2; x = 3; return x", names)
    names["f"](1, lambda: watch_name(watcher, sys._getframe(1), "x"))
    assert values(events)[-1] == 3
