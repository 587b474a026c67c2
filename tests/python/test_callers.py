"""Native writers: who called the C library, with and without a Python line."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest

import memwatch

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")

SOURCE = """\
#include <pthread.h>
#include <string.h>
static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
#define KEPT __attribute__((noinline, noclone))
KEPT void fills(void *to, const char *text) { copy(to, text, strlen(text)); __asm__ volatile("" ::: "memory"); }
KEPT void *runs(void *to) { fills(to, "from a thread"); __asm__ volatile("" ::: "memory"); return NULL; }
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
    library.fills_on_a_thread.argtypes = [ctypes.c_void_p]
    return library


def event_of(write, recorder, depth):
    """The event of a write to a buffer's address."""
    with memwatch.MemoryWatcher(stack_depth=depth, attribution_budget=1) as watcher:
        if not watcher.get_stats()["attribution"]["available"]:
            pytest.skip("no authors here")
        data = memwatch.buffer(4096)
        watcher.watch(data, "data", callback=recorder)
        write(ctypes.addressof(ctypes.c_char.from_buffer(data)))
        assert watcher.flush()
    assert len(recorder) == 1
    return recorder[0]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_native_thread_that_copies_is_named_by_the_caller(writer, recorder, depth):
    event = event_of(lambda address: writer.fills_on_a_thread(address), recorder, depth)
    where = event.where
    assert where.attribution == "exact"
    assert (where.function, where.symbol, where.line, where.native_line) == ("fills", "fills", FILLS_LINE, FILLS_LINE)
    assert where.object.endswith("writer.so")
    assert str(where) == f"fills (writer.c:{FILLS_LINE})"
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
