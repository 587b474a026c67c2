"""A process that is watched: watched.py SERVICE PORT TOKEN [CAPACITY [PERIOD_S]]; with a period it writes by itself."""

from __future__ import annotations

import contextlib
import sys
import threading
import time

import memwatch

service, port, token, *rest = sys.argv[1:]
capacity = int(rest[0]) if rest else 65536
period = float(rest[1]) if len(rest) > 1 else 0.0
watcher = memwatch.MemoryWatcher(event_capacity=capacity, window_ms=1)
counter, other = memwatch.buffer(8), memwatch.buffer(8)
watcher.watch(counter, "counter")
watcher.watch(other, "other")
for _ in range(50):  # the process that had the port may be on its way out
    try:
        server = watcher.serve(port=int(port), sigterm=True, service=service, **({"token": token} if token else {}))
        break
    except memwatch.Error:
        time.sleep(0.1)


def newest() -> int:
    return int(watcher._core.events_read(2**64 - 1, 0)[1]["newest"])


def write(n: int) -> None:
    for _ in range(n):
        value = (int.from_bytes(counter, "little") + 1) % 2**63
        counter[:] = value.to_bytes(8, "little")
        watcher.flush()


def write_on() -> None:
    while True:
        time.sleep(period)
        write(1)


if period:
    threading.Thread(target=write_on, daemon=True).start()
with contextlib.suppress(BrokenPipeError):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("HEAD", "/-/healthy")
    epoch = connection.getresponse().headers["Memwatch-Epoch"]
    connection.close()
    print(server.port, server.token, epoch, flush=True)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "write":
            write(int(argument))
        elif command == "again":  # another watcher at the same place
            watcher.close()
            watcher = memwatch.MemoryWatcher(event_capacity=capacity, window_ms=1)
            watcher.watch(counter, "counter")
            server = watcher.serve(port=server.port, service=service)
        elif command == "other":
            other[0] = (other[0] + 1) % 256
            watcher.flush()
        print(newest(), flush=True)
