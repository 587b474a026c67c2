"""Memory that goes away under a watched object: the process lives, and the region ends."""

import pytest
from tests.conftest import run_python

BACKENDS = ["uffd", "poll", "mprotect"]

PRELUDE = """
import ctypes, mmap, os, sys, tempfile, time
import memwatch

backend, shadow = sys.argv[1:3]
watcher = memwatch.MemoryWatcher(backend=backend, attribution_budget=0, window_ms=10000)  # only a flush looks
lost = []
watcher.set_callback(lambda event: event.kind == "lost" and lost.append(event.variable_name))
SIZE = 4 << 20  # nothing that the interpreter maps fills a gap of this size

def must_end(name, limit_s=30):
    end = time.monotonic() + limit_s
    while name not in lost:
        assert watcher.flush() and time.monotonic() < end, f"{name} is not lost: {watcher.get_stats()}"
"""

WAYS = """
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
ways = {
    "munmap": lambda address, fd: libc.munmap(address, SIZE),
    "half": lambda address, fd: libc.munmap(address + SIZE // 2, SIZE // 2),
    "none": lambda address, fd: libc.mprotect(address, SIZE, 0),
    "guard": lambda address, fd: libc.madvise(address, SIZE, 102),
    "cut": lambda address, fd: os.ftruncate(fd, 0),
}
for way, leave in ways.items():
    print(way, flush=True)
    fd = os.memfd_create("file")
    os.ftruncate(fd, SIZE)
    address = libc.mmap(None, SIZE, 3, 1, fd, 0) if way == "cut" else libc.mmap(None, SIZE, 3, 0x22, -1, 0)
    data = (ctypes.c_char * SIZE).from_address(address)
    watcher.watch(data, way, shadow=shadow)
    data[0] = data[SIZE - 1] = b"x"
    refused = leave(address, fd)
    if not refused and (way, backend) != ("none", "mprotect"):  # mprotect closes pages, which makes them readable
        must_end(way)
    watcher.unwatch(way)
"""


@pytest.mark.parametrize("shadow", ["full", "hash"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_that_vanishes_after_a_write(backend, shadow):
    result = run_python(PRELUDE + WAYS, backend, shadow)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"


RESIZED = """
import numpy as np
N = 4 << 20
array = np.zeros(N)
watcher.watch(array, "array", shadow=shadow)
address = array.ctypes.data
keep = np.zeros(N)
array[0] = 1
array.resize(8 * N, refcheck=False)  # the memory moves, the old mapping goes
assert array.ctypes.data != address
for _ in range(20):
    other = np.ones(N)  # another array may take the old address ...
    time.sleep(0.002)
    del other  # ... and give it back
    assert watcher.flush()
must_end("array")
"""


@pytest.mark.parametrize("shadow", ["full", "hash"])
@pytest.mark.parametrize("backend", ["uffd", "poll"])  # mprotect's pages stay closed where they go
def test_an_array_that_numpy_resizes(backend, shadow):
    pytest.importorskip("numpy")
    result = run_python(PRELUDE + RESIZED, backend, shadow)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"


VIEWS = """
import array
import numpy as np

def file_of(size):
    file = tempfile.TemporaryFile()
    file.truncate(size)
    return file

def views(file):
    area = mmap.mmap(file.fileno(), SIZE)
    yield "mmap", area
    yield "memoryview", memoryview(area)[8:].cast("d")
    yield "frombuffer", np.frombuffer(area, "u1").reshape(-1, 16)
    yield "from_buffer", (ctypes.c_char * SIZE).from_buffer(area)
    yield "memmap", np.memmap(file, "u1", "r+", shape=SIZE)

for i in range(5):
    file = file_of(SIZE)
    name, view = list(views(file))[i]
    print(name, flush=True)
    watcher.watch(view, name, shadow=shadow)
    writable = memoryview(view).cast("B")
    writable[5000] = 1
    file.truncate(0)
    must_end(name)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_of_a_file_that_is_cut(backend):
    pytest.importorskip("numpy")
    result = run_python(PRELUDE + VIEWS, backend, "full")
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"


ARROW = """
import pyarrow as pa
path = tempfile.mkdtemp() + "/table.arrow"
table = pa.table({"column": list(range(SIZE // 8))})
with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
    writer.write_table(table)
mapped = pa.ipc.open_file(pa.memory_map(path, "r+")).read_all()
column = mapped["column"].chunk(0).to_numpy()
watcher.watch(column, "column")
os.truncate(path, 0)
must_end("column")
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_column_of_arrow_whose_file_is_cut(backend):
    pytest.importorskip("pyarrow")
    result = run_python(PRELUDE + ARROW, backend, "full")
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"
