"""The engines beside others: tracers and monitoring tools that were there before, forks, and code that goes."""

import gc
import os
import signal
import sys
import threading

import pytest

from memwatch._scope import watch_name
from memwatch._trace.adapter import TraceAdapter
from memwatch._trace.targets import NamespaceTarget
from memwatch.testing import RecordingWatcher

needs_monitoring = pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")

ENGINES = ["settrace", pytest.param("monitoring", marks=needs_monitoring)]


def opened(engine):
    return RecordingWatcher(TraceAdapter(engine=engine, sweep_s=None))


def test_a_tracer_that_was_there_before_goes_on_and_is_put_back():
    seen = []

    def tracer(frame, event, arg):
        if frame.f_code.co_name in ("before", "during"):
            seen.append((frame.f_code.co_name, event))
        return tracer

    def before():
        return 1

    def during():
        value = 1
        watch_name(watcher, sys._getframe(), "value")
        value = 2
        return [value]

    outer = sys.gettrace()
    watcher = opened("settrace")
    sys.settrace(tracer)
    try:
        before()
        during()
        watcher.close()
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(outer)
    assert [event.new for event in watcher.recorder.events] == [b"2"]
    assert seen.count(("before", "line")) == 1
    assert seen.count(("during", "line")) == 4
    assert seen[-1] == ("during", "return")


def test_new_threads_are_traced_and_their_setting_is_put_back():
    previous = threading.gettrace()
    watcher = opened("settrace")
    names = {"value": 0}
    watcher.adapter.track(NamespaceTarget(names, "value"), {"name": "value"})
    code = compile("value = 1", "<thread>", "exec")
    thread = threading.Thread(target=exec, args=(code, names), name="new")
    thread.start()
    thread.join()
    watcher.close()
    assert [(event.new, event.thread_name) for event in watcher.recorder.events] == [(b"1", "new")]
    assert threading.gettrace() is previous


@needs_monitoring
def test_another_tool_has_the_first_tool_id():
    monitoring = sys.monitoring
    monitoring.use_tool_id(5, "other")
    try:
        watcher = opened("monitoring")
        names = {"value": 0}
        watcher.adapter.track(NamespaceTarget(names, "value"), {"name": "value"})
        assert watcher.adapter.get_stats()["tool_id"] == 4
        exec("value = 1", names)
        assert len(watcher.recorder.events) == 1
        watcher.close()
        assert monitoring.get_tool(5) == "other"
        assert monitoring.get_tool(4) is None
    finally:
        monitoring.free_tool_id(5)


def empty_tracer(frame, event, arg):
    return empty_tracer


@needs_monitoring
def test_a_tracer_that_begins_later_and_ends():
    def rebind(value):
        global bound
        bound = value

    rebind(0)
    watcher = opened("monitoring")
    watch_name(watcher, sys._getframe(), "bound")
    previous = sys.gettrace()
    rebind(1)
    sys.settrace(empty_tracer)
    rebind(2)
    sys.settrace(previous)
    rebind(3)
    assert [event.new_object for event in watcher.recorder.events] == [1, 2, 3]
    watcher.close()


@needs_monitoring
def test_a_tool_that_begins_later_and_ends():
    def rebind(value):  # code of its own: what was once looked at by two tools has no trouble any more
        global bound
        bound = value

    monitoring = sys.monitoring
    rebind(0)
    watcher = opened("monitoring")
    watch_name(watcher, sys._getframe(), "bound")
    rebind(1)
    monitoring.use_tool_id(1, "other")
    try:
        monitoring.set_events(1, monitoring.events.PY_START | monitoring.events.LINE)
        rebind(2)
        monitoring.set_events(1, 0)
        rebind(3)
    finally:
        monitoring.free_tool_id(1)
    assert [event.new_object for event in watcher.recorder.events] == [1, 2, 3]
    watcher.close()


@needs_monitoring
def test_all_tool_ids_are_taken():
    monitoring = sys.monitoring
    taken = [tool for tool in range(6) if monitoring.get_tool(tool) is None]
    for tool in taken:
        monitoring.use_tool_id(tool, "other")
    try:
        watcher = opened("monitoring")
        with pytest.raises(OSError, match="tool id"):
            watcher.adapter.track(NamespaceTarget({"value": 0}, "value"), {"name": "value"})
        assert watcher.recorder.names == {}
        watcher.close()
    finally:
        for tool in taken:
            monitoring.free_tool_id(tool)


@needs_monitoring
def test_code_that_goes_takes_its_plan_along():
    watcher = opened("monitoring")
    names = {"value": 0}
    watcher.adapter.track(NamespaceTarget(names, "value"), {"name": "value"})
    for number in range(50):
        exec(compile(f"value = {number + 1}", f"<cell {number}>", "exec"), names)
    gc.collect()
    assert len(watcher.recorder.events) == 50
    assert watcher.adapter.get_stats()["code_objects"] < 10
    watcher.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_forked_child_watches_nothing(engine):
    watcher = opened(engine)
    names = {"value": 0}
    watcher.adapter.track(NamespaceTarget(names, "value"), {"name": "value"})
    pid = os.fork()
    if pid == 0:
        exec("value = 1", names)
        os._exit(len(watcher.recorder.events))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    exec("value = 2", names)
    assert [event.new for event in watcher.recorder.events] == [b"2"]
    watcher.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_end_of_the_stack_ends_no_tracing(engine):
    def descend(depth):
        global bound
        bound = depth
        return descend(depth + 1)

    watcher = opened(engine)
    watch_name(watcher, sys._getframe(), "bound")
    for turn in (1, 2):
        with pytest.raises(RecursionError):
            descend(0)
        bind(turn)
        assert watcher.recorder.events[-1].new_object == turn
        assert watcher.recorder.events[-1].attribution == "exact"
    watcher.close()


bound = None


def bind(value):
    global bound
    bound = value


def bind_each(*values):
    for value in values:
        bind(value)


class Late(Exception):
    """What a signal handler raises."""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("error", [Late, KeyboardInterrupt])
def test_what_a_signal_handler_raises_reaches_the_user_and_no_event_is_lost(engine, error):
    """The handler runs in whatever Python code there is: here in the middle of a check."""

    def handle(number, frame):
        raise error

    def judge(value):
        if not judged:
            judged.append(value)
            signal.raise_signal(signal.SIGUSR1)
        return True

    judged = []
    bind(0)
    watcher = opened(engine)
    watch_name(watcher, sys._getframe(), "bound", when=judge)
    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(error):
            bind_each(1, 2, 3)
        bind(4)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    new = [event.new_object for event in watcher.recorder.events]
    assert new[0] == 1
    assert new[-1] == 4
    assert len(new) == len(set(new))
    assert watcher.adapter.get_stats()["errors"] == 0
    watcher.close()


def test_a_signal_between_two_generators_is_the_inner_ones():
    """As the standard library's test_generators has it, with code that no engine has seen before."""
    testcapi = pytest.importorskip("_testcapi")
    names = {}
    watcher = opened("auto")
    watcher.adapter.track(NamespaceTarget(names, "value"), {"name": "value"})
    exec(SIGNALLED, names)
    generator = names["outer"]()
    generator.send(None)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started with it ignored
    try:
        with pytest.raises(StopIteration) as stopped:
            testcapi.raise_SIGINT_then_send_None(generator)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert stopped.value.value == "caught"
    watcher.close()


SIGNALLED = """
def outer():
    return (yield from inner())
def inner():
    try:
        yield
    except KeyboardInterrupt:
        return "caught"
"""


def test_unknown_engines():
    with pytest.raises(ValueError, match="engine must be"):
        TraceAdapter(engine="magic")
    with pytest.raises(ValueError, match="sweep_s"):
        TraceAdapter(sweep_s=0)


def test_code_that_the_collector_takes_meanwhile():
    """Plans go with their code, which a collection can take while the engine goes through them."""
    watcher = opened("settrace")
    names = {"value": 0}
    watcher.adapter.track(NamespaceTarget(names, "value"), {"name": "value"})
    thresholds, source = gc.get_threshold(), compile("def bind():\n    return 1\nbind()", "<cell>", "exec")
    gc.disable()
    try:
        for _ in range(3000):  # more than there are tuples to be used again
            exec(source.replace(co_consts=(source.co_consts[0].replace(), *source.co_consts[1:])), {})
        gc.set_threshold(gc.get_count()[0] + 300)
        gc.enable()
        watcher.adapter.track(NamespaceTarget(names, "value"), {"name": "again"})
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    exec("value = 1", names)
    assert [event.new for event in watcher.recorder.events] == [b"1", b"1"]
    watcher.close()
