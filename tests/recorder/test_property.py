"""Random writes of every kind of variable, with everything that goes wrong: what is told is what was there, or nothing.

The truth is kept on the side: the events as the watcher had them, and copies of what was watched.
"""

import bisect
import contextlib
import ctypes
import mmap
import os
import random
import sqlite3
import struct
import threading
import time

import numpy
import pytest

import memwatch
from memwatch._recording_rows import bytes_of

from .conftest import MIB, Watched

SEEDS = range(60) if os.environ.get("MEMWATCH_STRESS") else (1, 2)
N_STEPS = 240 if os.environ.get("MEMWATCH_STRESS") else 60
FIELDS = """
time_ns detected_ns kind merged attribution reason backend fault_ip fault_address thread_id thread_name frames
symbol object offset native_file native_line libc_function format item_bytes shape values size_bytes
"""


class Limits(ctypes.Structure):
    _fields_ = [("low", ctypes.c_int), ("high", ctypes.c_double), ("name", ctypes.c_char * 6)]


def flat(buffer):
    """Its bytes, in the order of memory."""
    return memoryview(buffer.T if isinstance(buffer, numpy.ndarray) and buffer.flags.fnc else buffer).cast("B")


def numbers(code, *values):
    """What a number may be set to, at random or to these."""

    def write(generator, buffer):
        raw = generator.randbytes(struct.calcsize(code))
        flat(buffer)[:] = generator.choice([struct.pack(code, each) for each in values] + [raw] * 2)

    return write


def anywhere(generator, buffer):
    view = flat(buffer)
    for _ in range(generator.choice((1, 1, 1, 2, 40))):
        at, n = generator.randrange(len(view)), generator.choice((1, 3, 8, 100, 3000))
        n = min(n, len(view) - at)
        view[at : at + n] = generator.choice((generator.randbytes(n), bytes(n)))


def around_100(generator, buffer):
    buffer[generator.randrange(len(buffer))] = generator.choice((1, 50, 101, 200, -3, float("nan")))


inf, nan = float("inf"), float("nan")
KINDS = {  # what makes it, what writes it, how it is watched
    "double": (lambda: numpy.zeros(()), numbers("d", 1, -0.0, 0, inf, -inf, nan, 5e-324), {}),
    "float": (lambda: numpy.zeros((), "f4"), numbers("f", 1, -0.0, inf, nan), {}),
    "unsigned": (lambda: numpy.zeros((), "u8"), numbers("Q", 0, 1 << 63, (1 << 64) - 1, (1 << 63) - 1), {}),
    "signed": (lambda: numpy.zeros((), "i8"), numbers("q", 0, -1, -1 << 63, (1 << 63) - 1), {}),
    "big-endian": (lambda: numpy.zeros((), ">i4"), numbers(">i", 0, -1, 77), {}),
    "byte": (lambda: numpy.zeros((), "i1"), numbers("b", 0, -1, 127), {}),
    "flag": (lambda: numpy.zeros((), "?"), numbers("?", True, False), {}),
    "bytes": (lambda: bytearray(64), anywhere, {}),
    "array": (lambda: numpy.zeros(100), anywhere, {}),
    "pixels": (lambda: numpy.zeros((20, 30), "u2", "F"), anywhere, {}),
    "large": (lambda: numpy.zeros(3_000, "i8"), anywhere, {}),
    "larger": (lambda: numpy.zeros(100_000, "u1"), anywhere, {}),
    "too large": (lambda: numpy.zeros(200_000, "u1"), anywhere, {}),
    "structure": (Limits, anywhere, {}),
    "shared": (lambda: mmap.mmap(-1, 8192), anywhere, {}),
    "rare": (lambda: numpy.zeros(6), around_100, {"when": ("gt", 100.0)}),
    "rare number": (lambda: numpy.zeros(1), around_100, {"when": ("gt", 100.0)}),
    "slow": (lambda: bytearray(32), anywhere, {"max_rate": 40.0}),
    "slow number": (lambda: numpy.zeros(()), numbers("d", 1, 2), {"max_rate": 40.0}),
    "preview": (lambda: bytearray(300), anywhere, {"values": "preview"}),
    "secret": (lambda: bytearray(30), anywhere, {"values": "hash"}),
    "quiet": (lambda: bytearray(30), anywhere, {"values": "none"}),
    "hashed": (lambda: numpy.zeros(10_000, "u1"), anywhere, {"hashed": True}),
}
POSTED = (b"text", b"a\0b", b"", b"\xff\xfe", b"12", b"[1, 2]" * 100, None)


class Region:
    """A region's truth: its values by seq. None: it had none, ...: that is not known."""

    def __init__(self, kind, name, seq, value, buffer=None):
        self.kind, self.name, self.buffer = kind, name, buffer
        self.seqs, self.values = [seq], [value]
        self.since, self.until = seq, 1 << 62

    def note(self, seq, value):
        self.seqs.append(seq)
        self.values.append(value)

    def value(self, seq):
        """After that event."""
        return self.values[bisect.bisect_right(self.seqs, seq) - 1]


class Truth:
    """Of one run: its live events by seq, and its regions by id."""

    def __init__(self):
        self.events, self.regions = {}, {}


class Model:
    """The recorder, what it watches, and the truth."""

    def __init__(self, path, seed):
        self.path, self.generator = path, random.Random(seed)
        self.runs, self.n_refused = [], 0
        self.buffers = {kind: make() for kind, (make, _, _) in KINDS.items()}
        self.compared = 0
        self.start()

    # --- what is done ---

    def start(self):
        generator = self.generator
        self.watched = Watched(
            self.path, patches=generator.random() < 0.8, max_bytes=MIB, commit_ms=generator.choice((1, 20))
        )
        self.truth, self.cursor = Truth(), 0
        self.runs.append(self.truth)
        for kind in generator.sample(sorted(KINDS), 14):
            self.watch(kind)
        region_id = self.watched.watcher.region_add_external("posted")
        self.truth.regions[region_id] = Region("posted", "posted", 0, ...)
        self.posted = region_id

    def watched_regions(self):
        return {
            key: each for key, each in self.truth.regions.items() if each.until == 1 << 62 and each.buffer is not None
        }

    def watch(self, kind):
        seq, buffer = self.settle(), self.buffers[kind]
        name = self.generator.choice((kind, kind, f"{kind} ä\n{seq}"))
        region_id = self.watched.add(buffer, name, **{"values": "full", **KINDS[kind][2]})
        self.truth.regions[region_id] = Region(kind, name, seq, bytes(flat(buffer)), buffer)

    def unwatch(self):
        self.settle()
        region_id, region = self.generator.choice(sorted(self.watched_regions().items()))
        self.watched.watcher.region_remove(region_id)
        self.settle()
        region.until = max(self.truth.events, default=0)

    def write(self):
        for region in self.generator.choices(list(self.watched_regions().values()), k=self.generator.choice((1, 2, 6))):
            KINDS[region.kind][1](self.generator, region.buffer)

    def flood(self):
        """So much that older events leave."""
        regions = [each for each in self.watched_regions().values() if each.kind in ("array", "large", "larger")]
        for region in regions * 4:
            view = flat(region.buffer)
            view[:] = self.generator.randbytes(len(view))
            self.write()
            self.settle()

    def post(self):
        self.settle()
        old, new = self.truth.regions[self.posted].values[-1], self.generator.choice(POSTED)
        old = None if old is ... else old
        self.watched.watcher.post(self.posted, old=old, new=new, frames=[("a\xe4.py", "f", 3)])

    def settle(self):
        newest = self.watched.settle()
        while self.cursor < newest:
            events, _ = self.watched.watcher.events_read(self.cursor)
            seen = [event.region_id for event in events]
            for event in events:
                self.note(event, seen.count(event.region_id) == 1)
            self.cursor = events[-1].seq
        return newest

    def note(self, event, alone):
        region = self.truth.regions[event.region_id]
        value = event.new_value
        if region.kind != "posted" and value is None:
            plain = alone and not {"when", "max_rate"} & set(KINDS[region.kind][2])
            value = bytes(flat(region.buffer)) if plain else ...
        if region.kind != "posted" and alone and not KINDS[region.kind][2] and value is not ...:
            assert value == bytes(flat(region.buffer))
        region.note(event.seq, value)
        self.truth.events[event.seq] = event

    def refuse(self):
        self.n_refused += 1
        with contextlib.closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as connection:
            table, how = (
                self.generator.choice(("changes", "patches", "bases")),
                self.generator.choice(("ABORT", "ROLLBACK")),
            )
            connection.execute(
                f"CREATE TRIGGER refuse BEFORE INSERT ON {table} WHEN abs(random()) % 4 = 0 "
                f"BEGIN SELECT raise({how}, 'it may not be'); END"
            )
            for _ in range(3):
                self.write()
                self.settle()
            self.watched.commit()
            connection.execute("DROP TRIGGER refuse")

    def fork(self):
        child = os.fork()
        if not child:
            self.watched.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def restart(self):
        self.settle()
        self.watched.commit()
        self.settle()
        self.watched.close()
        self.start()

    def step(self):
        weights = {self.write: 60, self.flood: 6, self.post: 8, self.settle: 60, self.watched.commit: 6, self.check: 2}
        weights |= {self.unwatch: 3, self.fork: 1, self.restart: 1, self.refuse: 2}
        (step,) = self.generator.choices(list(weights), list(weights.values()))
        if step == self.unwatch and len(self.watched_regions()) < 5:
            return
        step()
        if step == self.unwatch:
            gone = set(KINDS) - {each.kind for each in self.watched_regions().values()}
            for kind in self.generator.sample(sorted(gone), self.generator.choice((0, 1, 2))):
                self.watch(kind)

    # --- what is told ---

    def check(self):
        self.settle()
        self.watched.commit()
        self.settle()
        with memwatch.open_history(self.path) as history:
            assert history.check() == []
            runs = {run.run: run for run in history.runs}
            for number, run in runs.items():
                truth = self.runs[number - 1]
                self.check_events(history, run, truth)
                self.check_values(history, number, truth)
            self.check_view(history)
        assert os.stat(self.path).st_size <= MIB
        stats = self.watched.stats()
        assert stats["bytes_used"] <= MIB
        assert stats["errors"] == 0 or self.n_refused
        assert stats["events_missed"] == 0 or self.n_refused

    def check_events(self, history, run, truth):
        told = {event.seq: event for event in history.events(run=run.run)}
        assert run.events_written + run.events_missed == max(truth.events, default=0) or run.run < len(self.runs)
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            losses = connection.execute("SELECT first_seq, last_seq FROM losses WHERE run = ?", (run.run,)).fetchall()
        lost = {seq for first, last in losses for seq in range(first, last + 1)}
        assert not lost & set(told)
        for seq in range(min(told, default=1), max(truth.events, default=0) + 1 if told else 0):
            assert (seq in told) != (seq in lost), seq
        for seq, event in told.items():
            live, record, region = truth.events[seq], event._record, truth.regions[event.region_id]
            assert event.variable_name == region.name
            for field in FIELDS.split():
                if field == "size_bytes" and region.kind == "posted":
                    continue
                assert getattr(record, field) == getattr(live, field), (region.kind, field)
            if region.kind == "posted":
                assert (event.old_value, event.new_value) == (live.old_value, live.new_value)
                continue
            before, after = region.value(seq - 1), region.value(seq)
            known = live.old_value if live.old_value is not None else before
            assert record.side(True) in (None, after) or after is ..., (region.kind, seq)
            assert record.side(False) in (None, known) or known is ..., (region.kind, seq)
            for field in ("changed_bytes", "changes", "old_hash", "new_hash"):
                assert getattr(event, field) == getattr(live, field), (region.kind, field, seq)
            for field in ("old_preview", "new_preview", "old_value", "new_value"):
                assert getattr(event, field) in (None, getattr(live, field)) or getattr(live, field) is None, (
                    region.kind,
                    field,
                )
            self.compared += record.side(True) is not None

    def check_values(self, history, number, truth):
        names = {}
        for region in truth.regions.values():
            names.setdefault(region.name, []).append(region)
        seqs = sorted(truth.events)
        for name, regions in names.items():
            for seq in self.generator.sample(seqs, min(12, len(seqs))):
                at = [each for each in regions if each.since <= seq <= each.until]
                if len(at) != 1:
                    continue
                try:
                    value = history.value_at(name, seq=seq, run=number, raw=True)
                except (KeyError, memwatch.Error):
                    continue
                if "when" in KINDS.get(at[0].kind, ((), (), ()))[2] and (seq + 1 in at[0].seqs or self.n_refused):
                    continue  # what was filtered may have come before that event or after it
                expected = at[0].value(seq)
                assert expected is ... or value == expected or at[0].since == seq, (at[0].kind, name, seq, number)
                self.compared += 1

    def check_view(self, history):
        with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as connection:
            rows = connection.execute(
                "SELECT run, seq, variable, old, new, element, kind, more FROM events ORDER BY id"
            ).fetchall()
        told = {(event.run, event.seq): event for event in history.events()}
        for run, seq, name, old, new, element, kind, more in rows:
            event = told.pop((run, seq))
            assert (event.variable_name, event.kind) == (name, kind)
            pieces = event._record.pieces
            if event._record.is_posted:
                continue
            if event._record.variable.whole:
                assert bytes_of(new, event._record.variable) == event.new_value
                continue
            assert more == max(len(pieces) - 1, 0)
            if pieces and element is not None:
                assert element == pieces[0][0] // event._record.item_bytes
            if pieces and isinstance(new, bytes):
                assert (old, new) == pieces[0][1:]
        assert not told


def read_slowly(path, stop):
    """A reader that stays inside a statement for a while."""
    while not stop.is_set():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
            rows = connection.execute("SELECT * FROM events")
            rows.fetchone()
            time.sleep(0.02)
            rows.fetchall()
        stop.wait(0.05)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # it is: one thread reads
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_told_is_what_was_there(tmp_path, seed):
    path, stop = str(tmp_path / "recording"), threading.Event()
    model = Model(path, seed)
    readers = [threading.Thread(target=read_slowly, args=(path, stop)) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(N_STEPS):
            model.step()
        model.check()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        model.watched.close()
    assert model.compared > 10
