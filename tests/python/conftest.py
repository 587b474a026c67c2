"""What the tests of traced names share."""

import sys

import pytest

from memwatch._trace.adapter import TraceAdapter
from memwatch.testing import RecordingWatcher

ENGINES = ["settrace"] + (["monitoring"] if sys.version_info >= (3, 12) else [])


def here():
    """The caller's frame."""
    return sys._getframe(1)


def line():
    """The caller's line."""
    return sys._getframe(1).f_lineno


def values(events, name=None):
    """The objects that the events, or those of one name, say are new."""
    return [event.new_object for event in events if name is None or event.name == name]


@pytest.fixture(params=ENGINES)
def traced(request):
    """A watcher of names without a sweep, on every engine that this Python has."""
    previous = sys.gettrace()
    if request.param == "settrace":
        sys.settrace(None)
    watcher = RecordingWatcher(TraceAdapter(engine=request.param, sweep_s=None))
    watcher.engine = request.param
    yield watcher
    watcher.close()
    sys.settrace(previous)


@pytest.fixture
def events(traced):
    """The traced watcher's events."""
    return traced.recorder.events
