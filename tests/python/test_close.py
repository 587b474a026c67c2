"""Closing while others are at it: from any thread, at any time, a watcher ends without a crash or a hang."""

import pytest

#: A watcher and a server with clients waiting for answers are closed at the same moment.
CLOSE_BOTH = """
import socket, threading, memwatch

REQUEST = b"GET /metrics HTTP/1.1\\r\\nHost: 127.0.0.1:%d\\r\\n\\r\\n"

for _ in range(25):
    watcher = memwatch.MemoryWatcher()
    data = bytearray(10)
    watcher.watch(data, "data")
    server = watcher.serve(port=0, runtime_dir="")
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
    for client in clients:
        client.sendall(REQUEST % server.port * 20)
    barrier = threading.Barrier(2)

    def close(what):
        barrier.wait()
        what.close()

    threads = [threading.Thread(target=close, args=(what,)) for what in (watcher, server)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
"""

#: Four threads call whatever there is while two others close the watcher.
CALL_ANYTHING = """
import os, random, sys, tempfile, threading, time, memwatch

random.seed(int(sys.argv[1]))
calls = {
    "watch": lambda watcher, data, name: watcher.watch(data, name),
    "unwatch": lambda watcher, data, name: watcher.unwatch(name),
    "flush": lambda watcher, data, name: watcher.flush(1),
    "stats": lambda watcher, data, name: watcher.get_stats(regions=True),
    "history": lambda watcher, data, name: watcher.history(name),
    "value_at": lambda watcher, data, name: watcher.value_at(name, time=time.time()),
    "blame": lambda watcher, data, name: watcher.blame(name),
    "serve": lambda watcher, data, name: watcher.serve(port=0, runtime_dir="").close(),
    "leave a server": lambda watcher, data, name: watcher.serve(port=0, runtime_dir=""),
    "callback": lambda watcher, data, name: watcher.set_callback(random.choice([None, lambda event: None])),
    "precise": lambda watcher, data, name: watcher.watch(memoryview(data)[:8], name + "!", precise=True),
    "write": lambda watcher, data, name: data.__setitem__(random.randrange(len(data)), random.randrange(256)),
}

def call(watcher, buffers, enough, seed):
    chosen = random.Random(seed)
    for n in range(100_000):
        if enough.is_set() and n > 20:
            return
        which = chosen.randrange(len(buffers))
        try:
            calls[chosen.choice(list(calls))](watcher, buffers[which], f"buffer {which}")
        except (memwatch.Error, KeyError, ValueError):
            pass  # closed, or watched or not already

with tempfile.TemporaryDirectory() as folder:
    for n in range(8):
        options = {"history_path": os.path.join(folder, str(n))} if n % 3 == 0 else {}
        watcher = memwatch.MemoryWatcher(backend=sys.argv[2], **options)
        buffers, enough = [memwatch.buffer(size) for size in (8, 64, 4000, 9000)], threading.Event()
        threads = [threading.Thread(target=call, args=(watcher, buffers, enough, n * 10 + i)) for i in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(random.random() / 5)
        enough.set()
        threads += [threading.Thread(target=watcher.close) for _ in range(2)]
        for thread in threads[4:]:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a call hangs"
"""


def check(run_python, code, *arguments):
    result = run_python(code, *arguments, options=("-X", "faulthandler"), timeout=200)
    assert result.returncode == 0, (result.returncode, result.stderr)


def test_a_server_is_closed_while_its_watcher_is(run_python):
    check(run_python, CLOSE_BOTH)


@pytest.mark.parametrize("backend", ["auto", "mprotect", "poll"])
def test_any_call_while_the_watcher_closes(run_python, backend):
    check(run_python, CALL_ANYTHING, "1", backend)
