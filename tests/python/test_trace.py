"""Names bound to any object: what the trace adapter sees, on every engine that this Python has."""

import asyncio
import gc
import os
import sys
import threading
import types

import pytest

from memwatch._scope import watch_attr, watch_name
from memwatch._trace.adapter import TraceAdapter
from memwatch.testing import RecordingWatcher

from .conftest import here, line, values

module_counter = 0
module_items = [1, 2]


# --- binding ----------------------------------------------------------------------------------------------------------


def test_a_local_that_is_bound_anew(traced, events):
    value = 1
    watch_name(traced, here(), "value")
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


def test_the_same_value_is_silent(traced, events):
    value = 1000
    text = "a" * 50
    watch_name(traced, here(), "value")
    watch_name(traced, here(), "text")
    value = int("1000")
    text = "".join(["a"] * 50)
    assert events == []
    value, text = 1001, "b"
    assert {event.name for event in events} == {"value", "text"}
    assert value, text


def test_another_type_is_another_value(traced, events):
    value = 1
    watch_name(traced, here(), "value")
    value = True
    value = 1.0
    assert value
    assert [event.new for event in events] == [b"True", b"1.0"]


def test_nan_is_the_same_value_as_nan(traced, events):
    value = float("nan")
    watch_name(traced, here(), "value")
    value = float("nan")
    assert events == []
    assert value != value


def test_a_global_bound_in_another_function(traced, events):
    global module_counter
    module_counter = 0
    watch_name(traced, here(), "module_counter")
    bind_global(5)
    [event] = events
    assert (event.old_object, event.new_object, event.function) == (0, 5, "bind_global")
    assert event.line == bind_global.__code__.co_firstlineno + 2
    assert event.attribution == "exact"


def bind_global(value):
    global module_counter
    module_counter = value


def test_two_assignments_on_lines_of_their_own(traced, events):
    value = 0
    watch_name(traced, here(), "value")
    first = line() + 1
    value = 1
    value += 1
    assert value == 2
    assert [(event.line, event.new_object) for event in events] == [(first, 1), (first + 1, 2)]


BINDINGS = """
for value in (1, 2):
    pass
[value, other] = 3, 3
if (value := 4) and other:
    pass
with open(null) as value:
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
"""


def test_every_kind_of_binding(traced, events):
    names = {}
    source = "def function(value, begin, null):\n    begin()\n" + BINDINGS.replace("\n", "\n    ")
    exec(compile(source, "<bindings>", "exec"), names)
    names["function"](0, lambda: watch_name(traced, sys._getframe(1), "value"), os.devnull)
    assert values(events)[:4] == [1, 2, 3, 4]
    lines = [event.line for event in events]
    assert lines == sorted(lines)
    # The except clause binds the name; at its end it binds None and then deletes it, which is one line's work.
    assert len(events) == {"settrace": 11, "monitoring": 12}[traced.engine]
    assert events[-1].note == "ended: name deleted"
    assert traced.recorder.names == {}


def test_a_closure_bound_inside_and_outside(traced, events):
    shared = 0

    def inner():
        nonlocal shared
        shared = 1

    watch_name(traced, here(), "shared")
    inner()
    shared = 2
    assert [(event.function.rpartition(".")[2], event.new_object) for event in events] == [
        ("inner", 1),
        ("test_a_closure_bound_inside_and_outside", 2),
    ]


def test_a_closure_lives_longer_than_the_function_that_made_it(traced, events):
    def outer():
        count = 0
        watch_name(traced, here(), "count")

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


def test_closures_of_the_same_code_are_told_apart(traced, events):
    def make(watched):
        count = 0
        if watched:
            watch_name(traced, here(), "count")

        def increment():
            nonlocal count
            count += 1

        return increment

    one, two = make(True), make(False)
    two()
    assert events == []
    one()
    assert values(events) == [1]


def test_recursion_watches_one_frame(traced, events):
    def descend(depth):
        value = depth
        if depth == 3:
            watch_name(traced, here(), "value")
        if depth:
            descend(depth - 1)
        value = -depth
        return [value]

    descend(4)
    assert [(event.old_object, event.new_object) for event in events] == [(3, -3)]


def test_a_local_ends_with_its_function(traced, events):
    def function(fail):
        value = 1
        watch_name(traced, here(), "value")
        value = 2
        if fail:
            raise KeyError
        return [value]

    function(False)
    assert traced.recorder.names == {}
    with pytest.raises(KeyError):
        function(True)
    assert traced.recorder.names == {}
    assert values(events) == [2, 2]
    assert traced.adapter.get_stats()["ended"] == 2


def test_locals_are_let_go_of_with_the_function(traced):
    class Thing:
        pass

    gone = threading.Event()

    def function():
        thing = Thing()
        import weakref

        weakref.finalize(thing, gone.set)
        watch_name(traced, here(), "thing")

    function()
    gc.collect()
    assert gone.is_set()


def test_an_inlined_comprehension_leaves_the_name_alone(traced, events):
    if traced.engine == "settrace" and sys.version_info >= (3, 12):
        pytest.skip("lines are too coarse for that, see _trace/settrace.py")
    value = 1
    watch_name(traced, here(), "value")
    doubled = [value * 2 for value in (5, 6, 7)]
    named = {value: value for value in (5, 6)}
    assert (doubled, named, value) == ([10, 12, 14], {5: 5, 6: 6}, 1)
    assert events == []
    value = 2
    assert values(events) == [2]


def test_generators(traced, events):
    def generate():
        state = 0
        watch_name(traced, here(), "state")
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
    traced.adapter.check_changes()
    assert traced.recorder.names == {}


def test_a_generator_that_was_suspended_before_the_watch(traced, events):
    global module_counter
    module_counter = 0

    def generate():
        global module_counter
        while True:
            module_counter = yield

    generator = generate()
    next(generator)
    watch_name(traced, here(), "module_counter")
    generator.send(3)
    assert values(events) == [3]


def test_bindings_that_wait_in_the_middle_of_their_line(traced, events):
    global module_counter
    module_counter = 0

    def give(value):
        yield None
        return value

    async def answer(value):
        return value

    def generate():
        global module_counter
        first = line() + 1
        module_counter = yield from give(1)
        nothing = None
        module_counter = yield nothing
        nothing = None
        return first

    async def work():
        global module_counter
        module_counter = await answer(3)
        return line() - 1

    watch_name(traced, here(), "module_counter")
    generator, coroutine = generate(), work()
    next(generator)
    next(generator)
    with pytest.raises(StopIteration) as generated:
        generator.send(2)
    with pytest.raises(StopIteration) as awaited:
        coroutine.send(None)
    first = generated.value.value
    assert [(event.new_object, event.line) for event in events] == [
        (1, first),
        (2, first + 2),
        (3, awaited.value.value),
    ]


def test_coroutines(traced, events):
    async def work(n):
        total = 0
        watch_name(traced, here(), "total", alias=f"total-{n}")
        for step in range(1, 3):
            await asyncio.sleep(0)
            total = n * step
        return total

    async def main():
        return await asyncio.gather(work(10), work(100))

    asyncio.run(main())
    assert values(events, "total-10") == [10, 20]
    assert values(events, "total-100") == [100, 200]
    assert traced.recorder.names == {}


def test_cells_of_a_notebook(traced, events):
    """Code that is compiled and run in a namespace, cell after cell, with no source file."""
    shell = {"__name__": "__main__", "watch": lambda name: watch_name(traced, sys._getframe(1), name)}

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


def test_a_class_body(traced, events):
    names = {"begin": lambda: watch_name(traced, sys._getframe(1), "value")}
    exec("class Body:\n    value = 1\n    begin()\n    value = 2", names)
    assert names["Body"].value == 2
    assert values(events) == [2]


def test_a_name_set_through_its_module(traced, events):
    module = types.ModuleType("settings")
    module.debug = False
    watch_attr(traced, module, "debug")
    module.debug = True
    setattr(module, "debug", None)  # noqa: B010
    module.__dict__["debug"] = 1
    assert values(events) == [True, None, 1]
    assert events[0].attribution == "exact"
    assert events[0].name == "settings.debug"


def test_threads(traced, events):
    """Two threads of five writes are ten events that name their threads."""
    global module_counter
    module_counter = 0
    watch_name(traced, here(), "module_counter")
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


def test_threads_that_race_end_at_what_the_name_holds(traced, events):
    global module_counter
    module_counter = 0
    watch_name(traced, here(), "module_counter")

    def write(me):
        for step in range(200):
            bind_global((me, step))

    threads = [threading.Thread(target=write, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    traced.adapter.check_changes()
    assert events[-1].new_object == module_counter
    assert all(after.old == before.new for before, after in zip(events, events[1:]))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a running thread cannot be given a tracer")
def test_a_thread_that_ran_before_the_watch(request):
    traced = RecordingWatcher(TraceAdapter(sweep_s=None))
    go, done = threading.Event(), threading.Event()

    def write():
        go.wait()
        bind_global("late")
        done.set()

    thread = threading.Thread(target=write, name="early")
    thread.start()
    bind_global(0)
    watch_name(traced, sys._getframe(), "module_counter")
    go.set()
    thread.join()
    traced.close()
    assert [event.thread_name for event in traced.recorder.events] == ["early"]
