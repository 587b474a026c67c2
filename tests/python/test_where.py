"""Who wrote: file, function and line of a Python writer, native writers, the kernel, threads."""

import asyncio
import ctypes
import inspect
import os
import signal
import socket
import sys
import threading

import pytest

import memwatch
from memwatch._native import core

FILE = os.path.abspath(__file__)

if not core.FRAMES:
    pytest.skip("this Python's frames are not known", allow_module_level=True)


@pytest.fixture
def data(watched):
    """A watched buffer that owns its pages, so that every first write is its own."""
    data = memwatch.buffer(4096)
    watched.watch(data, "data")
    return data


@pytest.fixture
def last(watched, recorder):
    """The event of what was written since the last call."""

    def last():
        assert watched.flush()
        assert len(recorder) == 1, recorder
        return recorder.pop()

    return last


def line_of(function, text):
    """The number of the line of a function's source that holds a text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def check(event, function, line, file=FILE):
    where = event.where
    assert (where.file, where.function, where.line) == (file, function, line)
    assert where.attribution == "exact"
    assert where.reason is None
    assert where.fault_ip
    assert where.frames[0] == (file, function, line)


def plain(data):
    data[0] += 1  # the write


def test_function(data, last):
    plain(data)
    check(last(), "plain", line_of(plain, "the write"))


class Writer:
    def method(self, data):
        data[5] += 1  # the write

    @staticmethod
    def static(data):
        data[5] += 2  # the write

    @property
    def attribute(self):
        self.data[5] += 3  # the write
        return 1


def test_method_static_method_property(data, last):
    writer = Writer()
    writer.data = data
    writer.method(data)
    check(last(), "Writer.method", line_of(Writer.method, "the write"))
    Writer.static(data)
    check(last(), "Writer.static", line_of(Writer.static, "the write"))
    assert writer.attribute
    check(last(), "Writer.attribute", line_of(Writer.attribute.fget, "the write"))


def generator(data):
    yield 1
    data[7] += 1  # the write
    yield 2


def test_generator(data, last):
    steps = generator(data)
    next(steps)
    next(steps)
    check(last(), "generator", line_of(generator, "the write"))
    steps.close()


def test_generator_that_another_thread_resumes(data, last, in_thread):
    steps = generator(data)
    next(steps)
    in_thread(next, steps, name="resumer")
    check(last(), "generator", line_of(generator, "the write"))
    steps.close()


def comprehension(data):
    return [data.__setitem__(3, data[3] + 1) for _ in range(1)]  # the write


def test_comprehension(data, last):
    comprehension(data)
    event = last()
    assert event.where.line == line_of(comprehension, "the write")
    assert event.where.function.startswith("comprehension")


def test_lambda(data, last):
    (lambda: plain(data))()
    check(last(), "plain", line_of(plain, "the write"))
    write = lambda: data.__setitem__(9, 1)  # noqa: E731
    write()
    assert last().where.function == "test_lambda.<locals>.<lambda>"


async def coroutine(data):
    await asyncio.sleep(0)
    data[2] += 1  # the write


async def async_generator(data):
    await asyncio.sleep(0)
    data[3] += 1  # the write
    yield 1


def test_coroutine_and_async_generator(data, last):
    asyncio.run(coroutine(data))
    check(last(), "coroutine", line_of(coroutine, "the write"))

    async def consume():
        async for _ in async_generator(data):
            pass

    asyncio.run(consume())
    check(last(), "async_generator", line_of(async_generator, "the write"))


def recurse(data, depth):
    if depth == 0:
        data[1] += 1  # the write
        return
    recurse(data, depth - 1)


def test_recursion(data, last):
    recurse(data, 200)
    check(last(), "recurse", line_of(recurse, "the write"))


def test_exec_and_freed_code(data, last):
    for number in range(50):
        code = compile(
            "\n" * number + f"def made_{number}(data):\n  data[0] += 1\nmade_{number}(data)", "made.py", "exec"
        )
        exec(code, {"data": data})
        check(last(), f"made_{number}", number + 2, "made.py")


def test_code_of_the_same_name_at_the_same_place(data, last):
    """All is the same, addresses too, but the line on which it stands."""
    for number in range(50):
        code = compile("\n" * number + "data[0] = (data[0] + 1) & 255", "made.py", "exec")
        exec(code, {"data": data})
        check(last(), "<module>", number + 1, "made.py")
        del code


def test_more_code_than_is_remembered(data, watched, recorder):
    """Locations that have been forgotten are made again, the same ones."""
    lines = [f"def made_{n}(data): data[0] = data[0] ^ 1 or 2" for n in range(6000)]
    scope = {}
    exec(compile("\n".join(lines), "made.py", "exec"), scope)
    for _ in range(2):
        for number in range(0, len(lines), 3):
            event = None
            while event is None or event.where.attribution != "exact":  # of thousands one may meet a busy machine
                scope[f"made_{number}"](data)
                assert watched.flush()
                event = recorder.pop()
            check(event, f"made_{number}", number + 1, "made.py")


@pytest.mark.parametrize("name", ["größe", "функция", "変数", "𐐷"])
def test_names_outside_ascii(name, data, last):
    scope = {"data": data}
    exec(compile(f"def {name}(data): data[0] += 1", f"/Dateien/{name}/{'ü' * 20}.py", "exec"), scope)
    function = next(value for value in scope.values() if inspect.isfunction(value))
    function(data)
    check(last(), function.__qualname__, 1, function.__code__.co_filename)


def test_long_names_keep_the_end_of_the_file(data, last):
    file = "/" + "/".join(["directory"] * 200) + "/last.py"
    scope = {}
    exec(compile(f"def {'f' * 2000}(data): data[0] += 1", file, "exec"), scope)
    scope["f" * 2000](data)
    where = last().where
    assert file.endswith(where.file) and where.file.endswith("/last.py")
    assert where.function and ("f" * 2000).startswith(where.function)
    assert where.line == 1


def test_file_name_that_is_no_text(data, last):
    scope = {}
    exec(
        compile("def write(data): data[0] += 1", b"/tmp/\xff\xfe.py".decode("utf-8", "surrogateescape"), "exec"), scope
    )
    scope["write"](data)
    where = last().where
    assert (where.function, where.line, where.attribution) == ("write", 1, "exact")


def multi_line(data):
    data[4] = data[4] + 1


def test_statement_over_several_lines(data, last):
    multi_line(data)
    first = line_of(multi_line, "data[")
    assert first <= last().where.line <= first + 4


def test_native_writer_shows_both(data, last):
    np = pytest.importorskip("numpy")
    array = np.frombuffer(data, "f8")
    np.add(array, 1.5, out=array)
    where = last().where
    assert where.function == "test_native_writer_shows_both"
    assert where.line == line_of(test_native_writer_shows_both, "np.add")
    assert "numpy" in where.object
    assert where["offset"] is not None


def test_memset_through_ctypes(data, last):
    address = ctypes.addressof(ctypes.c_char.from_buffer(data))
    ctypes.memset(address, 1, 4096)
    where = last().where
    assert where.line == line_of(test_memset_through_ctypes, "ctypes.memset")
    assert "libc" in where.object


def test_threads(data, last, in_thread):
    ids = []

    def write(index):
        ids.append(threading.get_native_id())
        data[index] = 1  # the write

    in_thread(write, 5, name="Schreiber 1")
    event = last()
    check(event, "test_threads.<locals>.write", line_of(test_threads, "the write"))
    assert event.thread_id == ids[0]


def test_name_of_a_live_thread(data, last):
    done = threading.Event()

    def write():
        data[0] = 1
        done.wait()

    thread = threading.Thread(target=write, name="Schreiber 2")
    thread.start()
    while not data[0]:
        pass
    assert last().thread_name == "Schreiber 2"
    done.set()
    thread.join()


def test_names_of_threads_that_end_at_once(data, watched, recorder):
    """Each ends long before its event is told."""

    def write(value):
        data[0] = value

    for value in range(1, 21):
        thread = threading.Thread(target=write, args=(value,), name=f"job-{value}")
        thread.start()
        thread.join()
        del thread
        assert watched.flush()
    assert [event.thread_name for event in recorder] == [f"job-{value}" for value in range(1, 21)]


def test_main_thread(data, last):
    data[0] = 1
    event = last()
    assert (event.thread_id, event.thread_name) == (threading.get_native_id(), "MainThread")


def test_thread_that_python_did_not_start(data, last):
    """A thread of libc's own, which never ran Python: the native writer alone."""
    libc = ctypes.CDLL(None)
    thread = ctypes.c_ulong()
    address = ctypes.addressof(ctypes.c_char.from_buffer(data))
    libc.bzero.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    data[17] = 1
    last()
    start = ctypes.cast(libc.strlen, ctypes.c_void_p)  # reads only; the write is time's
    assert (
        libc.pthread_create(
            ctypes.byref(thread), None, ctypes.cast(libc.time, ctypes.c_void_p), ctypes.c_void_p(address)
        )
        == 0
    )
    assert start
    libc.pthread_join(thread, None)
    where = last().where
    assert where.frames == ()
    assert where.file is None or "test_where" not in where.file


def depth_three(data):
    depth_two(data)


def depth_two(data):
    depth_one(data)


def depth_one(data):
    data[0] += 1


def test_stack_depth(recorder):
    with memwatch.MemoryWatcher(stack_depth=3) as watcher:
        data = memwatch.buffer(4096)
        watcher.watch(data, "data", callback=recorder)
        depth_three(data)
        assert watcher.flush()
        frames = recorder[0].where.frames
        assert [frame.function for frame in frames] == ["depth_one", "depth_two", "depth_three"]
        assert [frame.line for frame in frames] == [
            line_of(depth_one, "data[0]"),
            line_of(depth_two, "depth_one("),
            line_of(depth_three, "depth_two("),
        ]


def test_stack_depth_of_a_coroutine(recorder):
    with memwatch.MemoryWatcher(stack_depth=32) as watcher:
        data = memwatch.buffer(4096)
        watcher.watch(data, "data", callback=recorder)
        asyncio.run(coroutine(data))
        assert watcher.flush()
        functions = [frame.function for frame in recorder[0].where.frames]
        assert functions[0] == "coroutine"
        assert "test_stack_depth_of_a_coroutine" in functions


def test_a_callback_that_writes_is_a_writer_like_any_other(watcher, recorder):
    data, copy = memwatch.buffer(4096), memwatch.buffer(4096)

    def copying(event):
        copy[0] = data[0]  # the write

    watcher.watch(data, "data", callback=copying)
    watcher.watch(copy, "copy", callback=recorder)
    data[0] = 7
    assert watcher.flush() and watcher.flush()
    assert recorder[0].where.line == line_of(test_a_callback_that_writes_is_a_writer_like_any_other, "the write")
    assert recorder[0].thread_name == "memwatch-dispatch"


def test_a_signal_handler_writes(data, last):
    def handler(number, frame):
        data[0] += 1  # the write

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        while not data[0]:
            pass
    finally:
        signal.signal(signal.SIGUSR1, previous)
    check(last(), "test_a_signal_handler_writes.<locals>.handler", line_of(test_a_signal_handler_writes, "the write"))


def test_where_reads_both_ways(data, last):
    data[0] = 1
    where = last().where
    assert set(where) >= {
        "file", "function", "line", "fault_ip", "fault_address", "attribution", "reason", "frames", "symbol", "object",
        "offset", "native_file", "native_line", "libc_function", "thread_id", "thread_name", "page_writer",
    }  # fmt: skip
    for key in where:
        assert where[key] == getattr(where, key)
    assert len(where) == len(dict(where))
    assert where.get("nothing") is None
    with pytest.raises(KeyError):
        where["nothing"]
    with pytest.raises(AttributeError):
        where.line = 5
    assert str(where) == f"test_where_reads_both_ways ({os.path.basename(FILE)}:{where.line})"


def test_a_guess_is_not_a_fact(recorder):
    """The first writer on the page changed nothing: what the other one changed is not shown as its work."""
    with memwatch.MemoryWatcher(window_ms=10000, attribution_budget=1) as watcher:
        if not watcher.get_stats()["attribution"]["available"]:
            pytest.skip("no authors here")
        data = memwatch.buffer(64)
        watcher.watch(data, "data")
        watcher.set_callback(recorder)

        def change_nothing():
            data[0] = 0

        def change():
            data[32] = 1

        change_nothing()
        change()
        assert watcher.flush()
    where = recorder[0].where
    assert (where.attribution, where.reason) == ("page", None)
    known = set(where) - {"attribution", "page_writer"}
    assert {where[key] for key in known} == {None, ()}
    assert (recorder[0].thread_id, recorder[0].thread_name) == (0, "")
    assert where.page_writer.function.endswith("change_nothing")
    assert where.page_writer.line and where.page_writer.thread_id and where.page_writer.page_writer is None
    assert "change_nothing" not in repr(recorder[0]) and str(where) == "unknown (page)"
    assert "attribution_budget" in where.hint and "memwatch.buffer()" in where.hint


def read_v(data, source):
    os.write(source[1], b"kernel")
    return os.readv(source[0], [data])


def pread_v(data, source, tmp_path=None):
    with open(__file__, "rb") as file:
        return os.preadv(file.fileno(), [data], 0)


def read_into(data, source):
    with open(__file__, "rb", buffering=0) as file:
        return file.readinto(data)


def datagram(data, source):
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.send(b"datagram")
        return right.recv_into(data)


def stream(data, source):
    left, right = socket.socketpair()
    with left, right:
        left.send(b"stream")
        return right.recv_into(data)


def udp(data, source):
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as left,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as right,
    ):
        right.bind(("127.0.0.1", 0))
        left.sendto(b"datagram", right.getsockname())
        return right.recv_into(data)


@pytest.mark.parametrize("call", [read_v, pread_v, read_into, datagram, stream, udp])
@pytest.mark.parametrize("make", [memwatch.buffer, bytearray])
def test_kernel_writes(call, make, watched, recorder):
    if watched.get_stats()["backend"] == "mprotect":
        pytest.skip("with mprotect they fail; docs/limits.md says so")
    data = make(4096)
    watched.watch(data, "data")
    source = os.pipe()
    try:
        size = call(data, source)
        assert size > 0
        assert watched.flush()
    finally:
        for descriptor in source:
            os.close(descriptor)
    event = recorder[-1]  # a window may end in the middle of a long copy: then there are two
    assert event.new_value[:size] == bytes(data[:size]) != bytes(size)
    if make is memwatch.buffer:
        where = event.where
        assert (where.attribution, where.reason, where.fault_ip, where.file) == ("none", "kernel", None, None)
        assert str(where) == "unknown (kernel)"


def test_the_frame_table_does_not_grow_with_repetition(data, watched):
    def round_trip():
        plain(data)
        assert watched.flush()
        return watched.get_stats()["attribution"]["locations"]

    round_trip()
    before = round_trip()
    for _ in range(20):
        assert round_trip() == before


def test_intern():
    number = core.intern("a.py", "f", 3)
    assert number > 0
    assert core.intern("a.py", "f", 3) == number
    assert core.intern("a.py", "f", 4) != number
    assert core.intern("a.py", "f", 3, number) != number


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with 3.12")
def test_under_monitoring(data, last):
    monitoring = sys.monitoring
    monitoring.use_tool_id(3, "test")
    try:
        monitoring.register_callback(3, monitoring.events.LINE, lambda code, line: None)
        monitoring.set_events(3, monitoring.events.LINE)
        plain(data)
    finally:
        monitoring.set_events(3, 0)
        monitoring.free_tool_id(3)
    check(last(), "plain", line_of(plain, "the write"))


def test_under_settrace(data, last):
    def tracer(frame, event, argument):
        return tracer

    previous = sys.gettrace()
    sys.settrace(tracer)
    try:
        plain(data)
    finally:
        sys.settrace(previous)
    check(last(), "plain", line_of(plain, "the write"))
