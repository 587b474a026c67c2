"""The end of a watched name, the options, and what tracing must not do."""

import sys
import types

import pytest

from memwatch._scope import watch_attr, watch_item, watch_name

from .conftest import here, values

module_counter = 0


def bind_global(value):
    global module_counter
    module_counter = value


class Thing:
    count = 0

    def bump(self):
        self.count += 1


# --- the end of a name ------------------------------------------------------------------------------------------------


def test_deleted_names_end_and_say_so(traced, events):
    value, thing, mapping = 1, Thing(), {"a": 1}
    thing.count = 1
    own = types.SimpleNamespace(x=1)
    watch_name(traced, here(), "value")
    watch_attr(traced, own, "x")
    watch_item(traced, mapping, "a")
    del value
    del own.x
    mapping.pop("a")
    assert [(event.new, event.note) for event in events] == [
        (None, "ended: name deleted"),
        (None, "ended: attribute deleted"),
        (None, "ended: item deleted"),
    ]
    assert traced.recorder.names == {}
    value = 2
    mapping["a"] = 2
    assert len(events) == 3
    assert value == 2


def test_unwatch_and_watch_again(traced, events):
    value = 0
    for turn in range(1, 5):
        region_id = watch_name(traced, here(), "value")
        value = turn * 10
        assert len(events) == turn
        traced.unwatch(region_id)
        value = turn * 10 + 1
        assert len(events) == turn
    assert value
    assert traced.adapter.get_stats()["tracked"] == 0


def test_a_name_in_use_is_refused_and_changes_nothing(traced):
    value = 0
    watch_name(traced, here(), "value")
    with pytest.raises(ValueError, match="in use"):
        watch_name(traced, here(), "value")
    assert traced.adapter.get_stats()["tracked"] == 1
    assert value == 0


@pytest.mark.parametrize("container", [(1, 2), "ab", b"ab", range(3)])
def test_items_that_never_change_are_refused(watched, container):
    with pytest.raises(ValueError, match=f"items of a {type(container).__name__} never change: watch the name"):
        watched.watch_item(container, 0)


def test_a_list_in_a_tuple_changes(watched, recorder):
    pair = ([1], 2)
    watched.watch_item(pair, 0, callback=recorder)
    pair[0].append(5)
    assert watched.flush()
    assert [str(event).split(": ")[1].split(", by")[0] for event in recorder] == ["[1] -> [1, 5]"]


def test_what_is_not_there_is_refused(traced):
    with pytest.raises(ValueError, match="no variable 'nothing'"):
        watch_name(traced, here(), "nothing")
    with pytest.raises(ValueError, match="no attribute 'nothing'"):
        watch_attr(traced, Thing(), "nothing")
    with pytest.raises(ValueError, match="no item"):
        watch_item(traced, [], 0)
    with pytest.raises(TypeError, match="have no items"):
        watch_item(traced, 5, 0)
    with pytest.raises(TypeError, match="a string"):
        watch_name(traced, here(), 5)
    assert traced.recorder.names == {}


# --- options ----------------------------------------------------------------------------------------------------------


def test_track_binding_and_track_value(traced, events):
    by_value, by_binding = [1], [1]
    watch_name(traced, here(), "by_value", track="value")
    watch_name(traced, here(), "by_binding", track="binding")
    by_value.append(2)
    by_binding.append(2)
    by_value = [1, 2]
    by_binding = [1, 2]
    assert by_value == by_binding
    assert [(event.name, event.new) for event in events] == [("by_value", b"[1, 2]"), ("by_binding", b"[1, 2]")]
    assert events[1].old_object is not by_binding


def test_bad_options(traced):
    value = 0
    with pytest.raises(ValueError, match="'value' or 'binding'"):
        watch_name(traced, here(), "value", track="object")
    with pytest.raises(TypeError, match="must be a string"):
        watch_name(traced, here(), "value", track=["value"])
    with pytest.raises(TypeError, match="when must be callable"):
        watch_name(traced, here(), "value", when="always")
    assert traced.recorder.names == {}
    assert value == 0


def test_when(traced, events):
    value = 0
    watch_name(traced, here(), "value", when=lambda new: new > 0)
    value = -1
    value = 1
    value = 2
    value = -3
    assert value
    assert values(events) == [1, 2]
    assert traced.adapter.get_stats()["filtered"] == 2


def test_cmp_says_whether_two_values_differ(traced, events):
    never, parity = 0, 0
    watch_name(traced, here(), "never", cmp=lambda old, new: False)
    watch_name(traced, here(), "parity", cmp=lambda old, new: old % 2 != new % 2)
    never, parity = 1, 2
    never, parity = 2, 3
    assert never, parity
    assert [(event.name, event.new_object) for event in events] == [("parity", 3)]


def test_the_old_is_what_was_there_also_when_it_counts_as_the_same(traced, events):
    value = 1.0
    watch_name(traced, here(), "value", cmp=lambda old, new: abs(old - new) > 1)
    for number in (2.0, 2.5, 5.0, 5.5, 9.0):
        value = number
        traced.adapter.check_changes()
    assert [(event.old_object, event.old) for event in events] == [(2.5, b"2.5"), (5.5, b"5.5")]
    assert value == 9.0


def test_copy(traced, events):
    thing = Thing()
    thing.parts = [[1]]
    watch_name(traced, here(), "thing", copy=lambda value: [list(part) for part in value.parts])
    thing.parts[0].append(2)
    thing.other = 1
    thing.parts.append([3])
    assert [event.old for event in events] == [b"[[1]]", b"[[1, 2]]"]


def test_a_failing_function_of_the_user_is_reported_once(traced, events, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    value = 0

    def fail(new):
        raise ZeroDivisionError("when")

    watch_name(traced, here(), "value", when=fail)
    value = 1
    value = 2
    assert value == 2
    assert values(events) == [1, 2]
    assert [type(unraisable.exc_value) for unraisable in seen] == [ZeroDivisionError]
    assert traced.adapter.get_stats()["errors"] == 2


def test_stack_depth(traced, events):
    def outer():
        inner()

    def inner():
        bind_global(object())

    bind_global(None)
    watch_name(traced, here(), "module_counter", stack_depth=3)
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


def test_no_code_of_the_user_runs(traced, events):
    value = Hostile()
    inside = [Hostile(), Hostile()]
    mapping = {"a": Hostile()}
    for name in ("value", "inside", "mapping"):
        watch_name(traced, here(), name, deep=True)
    value = Hostile()
    inside[0] = Hostile()
    inside.append(value)
    mapping["a"] = Hostile()
    value.state = Hostile()
    traced.adapter.check_changes()
    assert [event.name for event in events] == ["value", "inside", "inside", "mapping", "value", "inside"]
    assert traced.adapter.get_stats()["errors"] == 0


def test_shown_values_are_bounded(traced, events):
    value = None
    watch_name(traced, here(), "value")
    value = "x" * 10_000_000
    value = [[["y" * 1000] * 100] * 100] * 100
    value = 10**100_000
    loop = []
    loop.append(loop)
    value = loop
    assert value is loop
    assert all(len(event.new) < 5000 for event in events)
    assert events[-1].new == b"[[...]]" or b"..." in events[-1].new


def test_the_source_is_not_needed(traced, events):
    names = {}
    exec("def f(x, watch):\n    watch()\n    x = 2; x = 3; return x", names)
    names["f"](1, lambda: watch_name(traced, sys._getframe(1), "x"))
    assert values(events)[-1] == 3
