"""The quick half of a check: what it says is unchanged must be so, whatever the name is."""

import collections
import gc
import sys
import types
import weakref

import pytest

from memwatch import _core
from memwatch._trace import pure as trace_pure
from memwatch._trace.values import freeze

from .conftest import here

CORES = [_core, trace_pure]


class Plain:
    kept_in_class = 1


class Slotted:
    __slots__ = ("value",)


def looks(kind, holder, key, value, change):
    """Whether a glance at it is certain before the change and after."""
    glance = _core.Glance(kind, holder, key)
    glance.remember(value)
    before = glance.unchanged(here())
    change()
    return before, glance.unchanged(here())


@pytest.mark.parametrize("core", CORES)
def test_names_of_a_namespace(core):
    names = {"value": "a"}
    glance = core.Glance("namespace", names, "value")
    assert not glance.unchanged(here()), "nothing is certain at first"
    glance.remember("a")
    assert glance.unchanged(here())
    names["value"] = "b"
    assert not glance.unchanged(here())
    glance.remember("b")
    assert glance.unchanged(here())
    del names["value"]
    assert not glance.unchanged(here())
    glance.forget()
    assert not glance.unchanged(here())


def test_attributes():
    plain, slotted = Plain(), Slotted()
    plain.value = slotted.value = "a"
    assert looks("attribute", plain, "value", "a", lambda: setattr(plain, "value", "b")) == (True, False)
    assert looks("attribute", plain, "value", "b", lambda: delattr(plain, "value")) == (True, False)
    assert looks("attribute", slotted, "value", "a", lambda: setattr(slotted, "value", "b")) == (True, False)
    assert looks("attribute", slotted, "value", "b", lambda: delattr(slotted, "value")) == (True, False)
    assert looks("attribute", plain, "kept_in_class", 1, lambda: None) == (True, True)
    assert looks("class", Plain, "kept_in_class", 1, lambda: setattr(Plain, "kept_in_class", 2)) == (True, False)


def test_attributes_of_an_object_that_is_gone():
    plain = Plain()
    plain.value = "a"
    glance = _core.Glance("attribute", weakref.ref(plain), "value")
    glance.remember("a")
    assert glance.unchanged(here())
    del plain
    gc.collect()
    assert not glance.unchanged(here())


def test_an_attribute_that_is_computed_is_not_read():
    class Hostile:
        @property
        def value(self):
            raise AssertionError("user code was called")

        def __getattribute__(self, name):
            raise AssertionError("user code was called")

    glance = _core.Glance("attribute", Hostile(), "value")
    glance.remember("a")
    assert not glance.unchanged(here())


def test_items():
    items, mapping = ["a", "b", "c"], {"a": "b", 7: "c"}
    assert looks("item", items, -1, "c", lambda: items.insert(0, "x")) == (True, True)
    assert looks("item", items, 1, "a", lambda: items.insert(0, "y")) == (True, False)
    assert looks("item", items, 3, "b", items.clear) == (True, False)
    assert looks("item", mapping, 7, "c", lambda: mapping.update({7: "d"})) == (True, False)
    assert looks("item", mapping, "a", "b", mapping.clear) == (True, False)


def test_variables_of_functions():
    shared = "a"

    def bind(value):
        nonlocal shared
        shared = value

    cell = bind.__closure__[0]
    assert looks("cell", cell, None, "a", lambda: bind("b")) == (True, False)
    assert shared == "b"


@pytest.mark.skipif(not _core.FRAMES, reason="this Python's frames are not known")
def test_locals_of_one_frame():
    value = "a"
    frame = here()
    index = frame.f_code.co_varnames.index("value")
    glance = _core.Glance("local", frame, index)
    glance.remember("a")
    assert glance.unchanged(frame)
    value = "b"
    assert not glance.unchanged(frame)
    assert glance.unchanged(other_frame()), "nothing is said of other frames"
    del value
    assert not glance.unchanged(frame)


def other_frame():
    return here()


def frozen_glance(value):
    frozen = freeze(value)
    glance = _core.Glance("object", value)
    glance.remember(value, frozen.keys, frozen.items)
    return glance


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (["a", "b"], lambda value: value.__setitem__(1, "c")),
        (["a", "b"], lambda value: value.append("c")),
        (["a", "b"], lambda value: value.reverse()),
        ({"a": "b"}, lambda value: value.update(a="c")),
        ({"a": "b", "c": "d"}, lambda value: value.update(a=value.pop("c"))),
        (types.SimpleNamespace(a="b"), lambda value: setattr(value, "a", "c")),
        (types.SimpleNamespace(a="b"), lambda value: setattr(value, "c", "d")),
        (types.SimpleNamespace(a="b"), lambda value: delattr(value, "a")),
    ],
)
def test_what_changes_in_place(value, change):
    glance = frozen_glance(value)
    assert glance.unchanged(here())
    change(value)
    assert not glance.unchanged(here())


class ItemsOfItsOwn(list):
    def __iter__(self):
        raise AssertionError("user code was called")


@pytest.mark.parametrize(
    "value",
    [list(range(65)), {1}, collections.deque([1]), bytearray(b"a"), ItemsOfItsOwn([1]), collections.OrderedDict(a=1)],
)
def test_what_is_too_long_or_not_a_plain_container_is_looked_at_closer(value):
    assert not frozen_glance(value).unchanged(here())


def test_bad_arguments():
    with pytest.raises(ValueError, match="no kind"):
        _core.Glance("magic")
    for arguments in [("namespace", [], "a"), ("namespace", {}, 1), ("local", {}, 0), ("local", here(), -1)]:
        with pytest.raises(TypeError, match="nothing to read"):
            _core.Glance(*arguments)
    for arguments in [("cell", 1), ("attribute", here(), 1), ("item", (1,), 0), ("item", [1], "a")]:
        with pytest.raises(TypeError, match="nothing to read"):
            _core.Glance(*arguments)
    with pytest.raises(OverflowError):
        _core.Glance("item", [1], 1 << 70)
    with pytest.raises(TypeError, match="a frame"):
        _core.Glance("unknown").unchanged(1)
    with pytest.raises(TypeError, match="glances"):
        _core.Spot((1,), print)
    with pytest.raises(TypeError, match="line_step"):
        _core.line_step({}, 1)
    with pytest.raises(TypeError, match="trace function"):
        _core.line_step({})(here(), "line")
    with pytest.raises(TypeError, match="offset"):
        _core.instruction_callback({}, None)(here().f_code)


@pytest.mark.parametrize("core", CORES)
def test_steps_follow_the_lines(core):
    names, looked = {"value": 1}, []
    glance = core.Glance("namespace", names, "value")
    glance.remember(1)
    lines, returned = {}, []
    idle = core.line_step(lines, None, None, returned.append)
    frame = here()
    armed = core.line_step(lines, core.Spot((glance,), looked.append), idle, returned.append)
    assert core.is_line_step(idle)
    assert core.is_line_step(armed)
    assert not core.is_line_step(here)
    assert idle(frame, "line", None) is idle
    lines.update(dict.fromkeys(range(frame.f_lineno, frame.f_lineno + 4), armed))
    assert idle(frame, "line", None) is armed
    assert armed(frame, "exception", None) is armed, "the line may go on"
    assert looked == []
    names["value"] = 2
    lines.clear()
    assert armed(frame, "line", None) is idle
    assert looked == [frame]
    assert armed(frame, "return", None) is idle
    assert returned == [frame]


@pytest.mark.parametrize("core", CORES)
def test_what_a_closer_look_raises_is_raised(core):
    def fail(frame):
        raise KeyError("look")

    step = core.line_step({}, core.Spot((core.Glance("unknown"),), fail), core.line_step({}))
    with pytest.raises(KeyError):
        step(here(), "line", None)


def test_steps_of_code_that_is_gone_go_too():
    mark = Plain()
    gone = weakref.ref(mark)
    lines = {}
    spot = _core.Spot((_core.Glance("unknown"),), types.MethodType(Plain, mark))
    lines[1] = _core.line_step(lines, spot, _core.line_step(lines))
    del lines, mark, spot
    gc.collect()
    assert gone() is None


def test_nothing_leaks():
    names = {"value": object()}
    glance = _core.Glance("namespace", names, "value")
    frame = here()
    before = sys.getrefcount(names["value"])
    for _ in range(100):
        glance.remember(names["value"])
        glance.unchanged(frame)
        glance.remember(names["value"], None, [1])
    glance.forget()
    after = sys.getrefcount(names["value"])
    assert after == before
