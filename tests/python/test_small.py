"""Small objects in ordinary services keep their authors: one write each 20 ms, defaults, nothing made for us."""

import array
import asyncio
import ctypes
import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import memwatch

WRITES = 50
PAUSE_S = 0.02


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int))


def numpy_array():
    return pytest.importorskip("numpy").zeros(2, "i4")


def write_item(data, value):
    data[0] = value


def write_field(data, value):
    data.y = value


OBJECTS = {
    "bytearray": (lambda: bytearray(5), write_item),
    "array": (lambda: array.array("d", [0.0] * 3), write_item),
    "numpy": (numpy_array, write_item),
    "ctypes": (Point, write_field),
}


async def asyncio_service(write):
    """Tasks, timers and callbacks."""

    async def beside(n):
        for i in range(n):
            await asyncio.sleep(PAUSE_S / 3)
            json.dumps({"i": i, "list": list(range(10))})

    others = [asyncio.create_task(beside(WRITES)) for _ in range(2)]
    for value in range(1, WRITES + 1):
        write(value)
        await asyncio.sleep(PAUSE_S)
    await asyncio.gather(*others)


async def http_service(write):
    """Each request parses and writes JSON, in the way of a web framework, with a thread pool for what blocks."""
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(2)

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split()[0])
        body = json.loads(await reader.readexactly(length))
        write(body["value"])
        text = await loop.run_in_executor(pool, json.dumps, {"value": body["value"], "ok": True})
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text.encode()))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for value in range(1, WRITES + 1):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"value": value}).encode()
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await asyncio.sleep(PAUSE_S)
    server.close()
    pool.shutdown()


def threaded_service(write):
    """The standard library's threading server: a thread a request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            write(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["value"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for value in range(1, WRITES + 1):
            body = json.dumps({"value": value}).encode()
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}", body, timeout=60) as answer:
                assert answer.status == 200
            time.sleep(PAUSE_S)
        server.shutdown()
        thread.join()


SERVICES = {
    "asyncio": lambda write: asyncio.run(asyncio_service(write)),
    "http": lambda write: asyncio.run(http_service(write)),
    "threads": threaded_service,
}


def exact_share(service, data, write):
    """The share of events that are exact; none of these may name another function."""
    events = []
    with memwatch.MemoryWatcher() as watcher:
        if not watcher.get_stats()["attribution"]["available"]:
            pytest.skip("nobody can tell who writes here")
        watcher.watch(data, "data", callback=events.append)
        SERVICES[service](lambda value: write(data, value))
        assert watcher.flush()
    assert events  # several writes are one event when the machine is busy
    exact = [event for event in events if event.where.attribution == "exact"]
    assert {event.where.function for event in exact} <= {write.__name__}
    return len(exact) / len(events)


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("service", SERVICES)
def test_a_small_object_keeps_its_author(service, name):
    make, write = OBJECTS[name]
    shares = []
    while not shares or (shares[-1] < 0.95 and len(shares) < 3):  # a machine that others use may stall a thread
        shares.append(exact_share(service, make(), write))
    assert shares[-1] >= 0.95, shares
