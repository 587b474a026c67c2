"""What can be watched, and what is refused."""

import array
import ctypes
import gc
import mmap
import tempfile
import weakref

import pytest

import memwatch

np = pytest.importorskip("numpy")


class Pair(ctypes.Structure):
    _fields_ = [("left", ctypes.c_int), ("right", ctypes.c_double)]


def anonymous_map():
    area = mmap.mmap(-1, 8192)
    return area, lambda: area.__setitem__(5000, 7)


def mapped_file():
    with tempfile.TemporaryFile() as file:
        file.truncate(8192)
        return mmap.mmap(file.fileno(), 8192)


def file_map():
    area = mapped_file()
    return area, lambda: area.__setitem__(5000, 7)


def numpy_memmap():
    with tempfile.NamedTemporaryFile() as file:
        area = np.memmap(file.name, dtype="u2", mode="w+", shape=(100, 100))
    return area, lambda: area.__setitem__((50, 50), 7)


def ctypes_structure():
    pair = Pair(1, 2.0)
    return pair, lambda: setattr(pair, "left", 7)


def ctypes_array():
    numbers = (ctypes.c_short * 4)()
    return numbers, lambda: numbers.__setitem__(2, 7)


def item_of(make):
    def build():
        obj = make()
        return obj, lambda: obj.__setitem__(0, 7)

    return build


def numpy_of(dtype, value, shape=(8,), order="C"):
    def build():
        obj = np.zeros(shape, dtype, order=order)
        index = (0,) * len(shape) if shape else ()
        return obj, lambda: obj.__setitem__(index, value)

    return build


OBJECTS = {
    "bytearray": item_of(lambda: bytearray(10)),
    "memoryview": item_of(lambda: memoryview(bytearray(10))),
    "memoryview slice": item_of(lambda: memoryview(bytearray(10))[2:8]),
    "array": item_of(lambda: array.array("i", [1, 2, 3])),
    "anonymous mmap": anonymous_map,
    "file mmap": file_map,
    "np.memmap": numpy_memmap,
    "ctypes structure": ctypes_structure,
    "ctypes array": ctypes_array,
    "memwatch.buffer": item_of(lambda: memwatch.buffer(100)),
    "memwatch.empty": item_of(lambda: memwatch.empty(100, "f4")),
    "float64": numpy_of("f8", 1.5),
    "float16": numpy_of("f2", 1.5),
    "bool": numpy_of("?", True),
    "big endian": numpy_of(">i4", 7),
    "complex": numpy_of("c16", 1j),
    "longdouble": numpy_of(np.longdouble, 7),
    "dates": numpy_of("M8[s]", np.datetime64("2026-01-01")),
    "text": numpy_of("U4", "memo"),
    "bytes": numpy_of("S4", b"memo"),
    "record": numpy_of([("left", "i4"), ("right", "f8")], (1, 2.0)),
    "subarray record": numpy_of([("matrix", "f4", (2, 2))], ([[1, 2], [3, 4]],)),
    "fortran": numpy_of("f4", 7, (4, 5, 6), "F"),
    "three dimensions": numpy_of("u1", 7, (4, 5, 6)),
    "0-d": numpy_of("f8", 7, ()),
    "one megabyte": numpy_of("f8", 7, (131072,)),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_change_of(kind, watched, recorder):
    obj, change = OBJECTS[kind]()
    before = bytes(memoryview(obj).cast("B")) if kind == "bytearray" else None
    region_id = watched.watch(obj, "it")
    change()
    assert watched.flush()
    assert [event.variable_name for event in recorder] == ["it"]
    event = recorder[0]
    assert event.region_id == region_id
    assert event.how_big == memoryview(obj).nbytes if kind != "dates" else obj.nbytes
    assert event.old_preview != event.new_preview or kind in ("anonymous mmap", "file mmap", "np.memmap")
    assert 0 < event.changed_bytes <= event.how_big
    assert sum(change.length for change in event.changes) >= event.changed_bytes
    if before is not None:
        assert event.old_value == before
    assert repr(event).startswith(f"<ChangeEvent {event.seq} it")
    assert watched.unwatch("it") is True


@pytest.mark.parametrize("dtype", ["M8[s]", "m8[ms]", np.dtype([("at", "M8[D]"), ("n", "i4")])], ids=str)
def test_what_has_no_buffer_in_python_is_polled(dtype):
    array = np.zeros(8, dtype)
    with memwatch.MemoryWatcher(backend="poll") as watcher:
        watcher.watch(array, "it")
        array.view("u1")[0] = 1
        assert watcher.flush()
        assert watcher.history("it")[-1].changed_bytes == 1


def test_read_only_buffers_are_watched_too(watched, recorder):
    data = bytes(range(100))
    watched.watch(data, "data")
    assert watched.flush()
    assert recorder == []
    assert watched.get_stats()["tracked_bytes"] == 100


def test_the_export_is_held_until_unwatch(watcher):
    data = bytearray(b"Hello")
    watcher.watch(data, "data")
    with pytest.raises(BufferError):
        data.append(1)
    assert watcher.unwatch("data")
    data.append(1)


def test_the_export_is_let_go_by_close():
    data = bytearray(b"Hello")
    with memwatch.MemoryWatcher() as watcher:
        watcher.watch(data, "data")
    data.append(1)


def test_the_object_may_go_while_it_is_watched(watched, recorder):
    data = bytearray(100)
    view = memoryview(data)
    watched.watch(view, "data")
    del view
    data[0] = 1
    assert watched.flush()
    assert len(recorder) == 1


@pytest.mark.parametrize(
    ("obj", "error", "text"),
    [
        (5, TypeError, "int has no buffer"),
        ("text", TypeError, "str has no buffer"),
        ([1], TypeError, "list has no buffer"),
        (None, TypeError, "NoneType has no buffer"),
        (bytearray(), ValueError, "empty"),
        (np.zeros((0, 5)), ValueError, "empty"),
        (np.zeros(100)[::2], ValueError, "not contiguous"),
        (np.zeros((10, 10))[:, 1:3], ValueError, "not contiguous"),
        (memoryview(bytes(10))[::2], ValueError, "not contiguous"),
    ],
)
def test_refused(obj, error, text, watcher):
    with pytest.raises(error, match=text):
        watcher.watch(obj, "it")
    assert watcher.get_stats()["tracked_regions"] == 0
    watcher.watch(bytearray(1), "it")  # nothing was half done: the name is free


def test_released_memoryview(watcher):
    view = memoryview(bytearray(4))
    view.release()
    with pytest.raises(ValueError, match="released"):
        watcher.watch(view)


def test_whose_memory_stays():
    from memwatch._memory import is_kept

    area = mmap.mmap(-1, 100)
    assert is_kept(bytearray(5))
    assert is_kept(b"12345")
    assert is_kept(array.array("d", [1]))
    assert is_kept(memoryview(memoryview(bytearray(5))[1:]).cast("b"))
    assert not is_kept(area)
    assert not is_kept(memoryview(area)[4:])
    assert not is_kept(np.zeros(5))
    assert not is_kept(np.frombuffer(bytearray(5), "u1"))
    assert not is_kept((ctypes.c_char * 10).from_buffer(bytearray(10)))
    assert not is_kept(memwatch.buffer(5))
    assert not is_kept(memoryview(memwatch.empty((5, 5))))


def test_a_type_that_hands_out_other_memory():
    from memwatch._memory import is_kept

    class Other(bytearray):
        """May have a __buffer__ of its own."""

    assert not is_kept(Other(5))


def test_a_truncated_file_ends_the_region_not_the_process(watched, recorder, wait_for):
    with tempfile.TemporaryFile() as file:
        file.truncate(8192)
        area = mmap.mmap(file.fileno(), 8192)
        watched.watch(area, "area")
        area[5000] = 1
        file.truncate(0)
        wait_for(lambda: watched.flush() and any(event.kind == "lost" for event in recorder), what="the event")
    assert watched.unwatch("area") in (True, False)


@pytest.mark.parametrize("size", [0, -5])
def test_buffer_size(size):
    with pytest.raises(ValueError, match="at least one byte"):
        memwatch.buffer(size)


def test_empty_arrays():
    array = memwatch.empty((3, 4), "i2")
    assert (array.shape, array.dtype, array.any(), array.flags.writeable) == ((3, 4), np.dtype("i2"), False, True)
    assert array.ctypes.data % mmap.PAGESIZE == 0
    with pytest.raises(ValueError, match="no bytes"):
        memwatch.empty((0, 3))
    with pytest.raises(ValueError, match="objects"):
        memwatch.empty(3, object)


@pytest.mark.parametrize("follow_fork", [False, True])
@pytest.mark.parametrize("end", ["unwatch", "close"])
def test_nothing_of_the_users_is_kept_afterwards(follow_fork, end):
    class Thing:
        pass

    class Numbers(np.ndarray):
        pass

    def watched(watcher):
        data, thing, items = np.zeros(8).view(Numbers), Thing(), [Thing()]
        thing.x = np.zeros(8).view(Numbers)
        watcher.watch(data, "data")
        watcher.watch_attr(thing, "x", alias="x")
        watcher.watch_item(items, 0, alias="item")
        data[0] = thing.x[0] = 1
        assert watcher.flush()
        for name in ("data", "x", "item"):
            assert end == "close" or watcher.unwatch(name)
        return [weakref.ref(each) for each in (data, thing, thing.x, items[0])]

    with memwatch.MemoryWatcher(follow_fork=follow_fork) as watcher:
        refs = watched(watcher)
        if end == "close":
            watcher.close()
        gc.collect()
        assert [type(ref()) for ref in refs] == [type(None)] * 4
