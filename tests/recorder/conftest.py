"""Fixtures of the recorder's tests: a path, and watchers with a recorder that are closed whatever happens."""

import numpy
import pytest

import memwatch
from memwatch import _core_recorder
from memwatch._native import core, missing

if "recorder" in missing:
    pytest.skip("built without the recorder", allow_module_level=True)

MIB = 1 << 20


class Watched:
    """A core watcher and its recorder."""

    def __init__(self, path, *, patches=True, max_bytes=16 * MIB, commit_ms=20, keep_runs=None, **options):
        self.watcher = core.Watcher(patches=patches, **options)
        self.recorder = _core_recorder.Recorder(
            self.watcher, str(path), max_bytes=max_bytes, commit_ms=commit_ms, keep_runs=keep_runs, sync=False
        )

    def add(self, buffer, name, **options):
        """Watches a buffer; its id."""
        return self.watcher.region_add(buffer, name, **options)

    def settle(self):
        """Makes events of all writes; the newest seq."""
        assert self.watcher.flush(30)
        return self.watcher.events_read((1 << 64) - 1, 0)[1]["newest"]

    def commit(self):
        """Has everything recorded; the newest seq."""
        seq = self.settle()
        assert self.recorder.flush(30), self.recorder.stats()
        return seq

    def stats(self):
        """The recorder's."""
        return self.recorder.stats()

    def close(self):
        """Twice is allowed."""
        self.recorder.close()
        self.watcher.close()


@pytest.fixture
def path(tmp_path):
    """Where to record to."""
    return tmp_path / "recording"


@pytest.fixture
def watch(path):
    """Makes watchers with recorders."""
    made = []

    def make(to=path, **options):
        made.append(Watched(to, **options))
        return made[-1]

    yield make
    for watched in made:
        watched.close()


@pytest.fixture
def opened():
    """Opens recordings."""
    made = []

    def make(path):
        made.append(memwatch.open_history(path))
        return made[-1]

    yield make
    for history in made:
        history.close()


@pytest.fixture
def sample(watch, path):
    """A recording with a bit of everything."""
    watched = watch(max_bytes=MIB)
    array, data = numpy.zeros(4_000), bytearray(64)
    watched.add(array, "array")
    watched.add(data, "data")
    for step in range(1, 400):
        array[step * 11 % 4000] = step
        data[step % 64] = step % 251
        watched.settle()
        if step % 40 == 0:
            watched.commit()
    watched.commit()
    watched.close()
    return path
