"""Native writers: who called the C library, with and without a Python line."""

from __future__ import annotations

import ctypes
import json
import pickle
import shutil
import subprocess
import urllib.request

import pytest

import memwatch
from memwatch._cli.events import event_of as feeds_event

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")

SOURCE = """\
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <unistd.h>
static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
static void (*volatile swap)(const void *, void *, ssize_t) = swab;
#define KEPT __attribute__((noinline, noclone))
KEPT void fills(void *to, const char *text) { copy(to, text, strlen(text)); __asm__ volatile("" ::: "memory"); }
KEPT void *runs(void *to) { fills(to, "from a thread"); __asm__ volatile("" ::: "memory"); return NULL; }
KEPT void swaps(void *to) { swap("badcfehg", to, 8); __asm__ volatile("" ::: "memory"); }
int fills_on_a_thread(void *to)
{
	pthread_t thread;
	return pthread_create(&thread, NULL, runs, to) || pthread_join(thread, NULL);
}
"""
FILLS_LINE = next(number for number, line in enumerate(SOURCE.splitlines(), 1) if "void fills(" in line)


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A C library that writes by way of the C library, at -O2 and without frame pointers."""
    place = tmp_path_factory.mktemp("writer")
    (place / "writer.c").write_text(SOURCE)
    made = place / "writer.so"
    flags = ["-O2", "-g", "-fomit-frame-pointer", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["cc", *flags, "-o", made, place / "writer.c"], check=True)
    library = ctypes.CDLL(str(made))
    library.fills.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.fills_on_a_thread.argtypes = library.swaps.argtypes = [ctypes.c_void_p]
    return library


TRIES = 10  # a writer that loses its processor in the midst of a write is not always known


def event_of(write, recorder, depth):
    """The event of a write to a buffer's address: of one that went through in one window."""
    with memwatch.MemoryWatcher(stack_depth=depth, attribution_budget=1) as watcher:
        if not watcher.get_stats()["attribution"]["available"]:
            pytest.skip("no authors here")
        data = memwatch.buffer(4096)
        watcher.watch(data, "data", callback=recorder)
        for _ in range(TRIES):
            write(ctypes.addressof(ctypes.c_char.from_buffer(data)))
            assert watcher.flush()
            if len(recorder) == 1 and recorder[0].where.attribution == "exact":
                break
            data[:] = bytes(len(data))
            assert watcher.flush()
            recorder.clear()
    assert len(recorder) == 1
    return recorder[0]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_native_thread_that_copies_is_named_by_the_caller(writer, recorder, depth):
    event = event_of(lambda address: writer.fills_on_a_thread(address), recorder, depth)
    where = event.where
    assert where.attribution == "exact"
    assert (where.function, where.symbol, where.line, where.native_line) == ("fills", "fills", FILLS_LINE, FILLS_LINE)
    assert where.object.endswith("writer.so")
    through = f" through {where.libc_function}" if where.libc_function else ""  # memcpy's are not told to everybody
    assert str(where) == f"fills (writer.c:{FILLS_LINE}){through}"
    assert [frame.function for frame in where.frames] == ([] if depth == 1 else ["fills", "runs"])


def test_with_a_depth_the_native_function_behind_a_python_line_is_the_caller_too(writer, recorder):
    where = event_of(lambda address: writer.fills(address, b"from a line"), recorder, 2).where
    assert where.attribution == "exact"
    assert (where.symbol, where.native_line) == ("fills", FILLS_LINE)
    assert where.function.endswith("<lambda>")
    assert [frame.function for frame in where.frames][1] == "event_of"


def test_without_a_depth_a_python_line_is_answer_enough(writer, recorder):
    where = event_of(lambda address: writer.fills(address, b"from a line"), recorder, 1).where
    assert where.attribution == "exact"
    assert where.function.endswith("<lambda>")
    assert where.symbol != "fills"
    assert "libc" in where.object


def test_the_c_librarys_own_function_is_told_everywhere(writer, tmp_path):
    """Live, in a copy, by a feed and in a recording."""
    path = tmp_path / "recording"
    with memwatch.MemoryWatcher(stack_depth=2, attribution_budget=1, history_path=path) as watcher:
        if not watcher.get_stats()["attribution"]["available"]:
            pytest.skip("no authors here")
        data = memwatch.buffer(4096)
        watcher.watch(data, "data")
        for _ in range(TRIES):
            writer.swaps(ctypes.addressof(ctypes.c_char.from_buffer(data)))
            assert watcher.flush()
            *_, event = watcher.events(since=0, timeout=0)
            if event.where.attribution == "exact":
                break
            data[:] = bytes(len(data))
            assert watcher.flush()
        with watcher.serve(port=0, runtime_dir="") as server:
            address = f"http://127.0.0.1:{server.port}/api/v1/events?since={event.seq - 1}"
            request = urllib.request.Request(address, headers={"Authorization": f"Bearer {server.token}"})
            with urllib.request.urlopen(request) as answer:
                (fed,) = json.load(answer)["events"]
    with memwatch.open_history(path) as history:
        *_, recorded = history.events()
        assert recorded.seq == event.seq
        for each in (event, pickle.loads(pickle.dumps(event)), feeds_event(fed), recorded):
            where = each.where
            assert (where.symbol, where.libc_function) == ("swaps", "swab")
            assert each.to_dict()["where"] == fed["where"]
            assert str(where).endswith(") through swab")


def test_where_of_an_older_memwatch_is_read(writer, recorder):
    """Its pickles know no function of the C library."""
    event = event_of(lambda address: writer.swaps(address), recorder, 2)
    make, (known,) = event.where.__reduce__()
    del known["libc_function"]
    assert make(known).libc_function is None
    make, (known, *rest) = event.__reduce__()
    del known["libc_function"]
    assert make(known, *rest).where.libc_function is None
