"""Random writes against plain copies: what is still held loads exactly, what is not is an error that says so."""

import os
import tempfile

import numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memwatch

from .conftest import MIB, Watched

SIZES = {"tiny": 3, "small": 600, "inline": 4096, "large": 20_000, "larger": 150_001}

writes = st.tuples(
    st.just("write"),
    st.sampled_from(sorted(SIZES)),
    st.integers(0, 1 << 20),
    st.integers(1, 9_000),
    st.integers(0, 255),
)
steps = st.one_of(
    writes,
    writes,
    writes,
    st.tuples(st.just("settle")),
    st.tuples(st.just("commit")),
    st.tuples(st.just("rewatch"), st.sampled_from(sorted(SIZES))),
    st.tuples(st.just("restart")),
    st.tuples(st.just("flood"), st.integers(1, 40)),
)


class Model:
    """A recorder, the buffers it watches, and a plain copy of each at every seq that was seen."""

    def __init__(self, path, patches):
        self.path, self.patches = path, patches
        self.copies = {}  # (run, name) -> [(seq, copy), ...]
        self.skipped = set()  # runs with versions for which the file, a small one, had no room
        self.since = {}  # (run, name) -> the seqs after which it was watched
        self.run = 0
        self.buffers = {name: numpy.zeros(size, "u1") for name, size in SIZES.items()}
        self.start()

    def start(self):
        self.run += 1
        self.watched = Watched(self.path, patches=self.patches, max_bytes=2 * MIB, commit_ms=5)
        self.ids = {}
        for name in SIZES:
            self.watch(name)

    def watch(self, name):
        self.since.setdefault((self.run, name), []).append(self.watched.settle())
        self.ids[name] = self.watched.add(self.buffers[name], name)

    def note(self):
        seq = self.watched.settle()
        for name, buffer in self.buffers.items():
            self.copies.setdefault((self.run, name), []).append((seq, buffer.tobytes()))

    def step(self, step):
        kind, *arguments = step
        if kind == "write":
            name, at, length, value = arguments
            buffer = self.buffers[name]
            at %= buffer.size
            buffer[at : at + length] = value
        elif kind == "flood":
            for number in range(arguments[0]):
                self.buffers["larger"][number * 3000 : number * 3000 + 9000] = number + 1
                self.note()
        elif kind == "settle":
            self.note()
        elif kind == "commit":
            self.note()
            self.watched.commit()
        elif kind == "rewatch":
            self.note()
            self.watched.commit()  # the first value of a large region that is gone cannot be had any more
            self.watched.watcher.region_remove(self.ids[arguments[0]])
            self.watch(arguments[0])
        elif kind == "restart":
            self.close()
            self.start()

    def close(self):
        self.note()
        self.watched.commit()
        stats = self.watched.stats()
        assert (stats["errors"], stats["events_missed"]) == (0, 0), stats
        if stats["versions_skipped"]:
            self.skipped.add(self.run)
        self.watched.close()

    def check(self):
        """How many versions were compared."""
        compared = 0
        with memwatch.open_history(self.path) as history:
            oldest = {run.run: run.oldest_seq for run in history.runs}
            first = {}  # the seq of a name's first event
            for region in sorted(history.regions, key=lambda region: region.first_seq, reverse=True):
                first[region.run, region.name] = region.first_seq
            for (run, name), copies in self.copies.items():
                for seq, copy in copies:
                    if not seq or (run, name) not in first:
                        continue
                    watched = max(seq for seq in self.since[run, name] if seq < first[run, name])
                    try:
                        value = history.value_at(name, seq=seq, run=run, raw=True)
                    except KeyError:
                        evicted = run not in oldest or not oldest[run] or seq < oldest[run]
                        assert evicted or seq < watched or run in self.skipped, (run, name, seq)
                        continue
                    assert value == copy, (run, name, seq)
                    compared += 1
        return compared


@settings(
    max_examples=40 if os.environ.get("MEMWATCH_STRESS") else 10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(steps, min_size=1, max_size=40), st.booleans())
def test_what_is_held_is_what_was_there(script, patches):
    with tempfile.TemporaryDirectory() as directory:
        model = Model(os.path.join(directory, "recording"), patches)
        try:
            for step in script:
                model.step(step)
            model.close()
            model.check()
        finally:
            model.watched.close()


def test_the_model_compares_something(tmp_path):
    model = Model(str(tmp_path / "recording"), True)
    for step in [
        ("write", "small", 3, 4, 5),
        ("settle",),
        ("flood", 40),
        ("write", "tiny", 0, 1, 1),
        ("flood", 40),
        ("restart",),
    ]:
        model.step(step)
    model.step(("write", "large", 3, 9000, 9))
    model.close()
    assert not model.skipped
    assert model.check() > 50
