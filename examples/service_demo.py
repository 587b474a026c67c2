"""A service that never stops, with the variables that matter watched while it runs.

    python3 examples/service_demo.py [--seconds 20] [--port 10764]

The lesson: nothing in the service's code (the methods of Service) knows that it is watched. The operator's side (main)
registers the variables by name, gets a callback for every change with the file and line of the writer, and serves the
same changes as metrics and feeds. Kernel writes count too: the session buffer is filled by `recv_into`.
"""

import argparse
import array
import contextlib
import ctypes
import errno
import math
import mmap
import os
import socket
import sys
import threading
import urllib.request
from datetime import datetime
from pathlib import Path

import numpy as np

from memwatch import ChangeEvent, MemoryWatcher, buffer

METRICS_SHOWN = (
    "memwatch_variable_value",
    "memwatch_variable_events_total",
    "memwatch_events_total",
    "memwatch_events_dropped_total",
    "memwatch_attribution_events_total",
)


class Config(ctypes.Structure):
    _fields_ = [("timeout_ms", ctypes.c_int), ("retries", ctypes.c_int), ("rate_limit", ctypes.c_double)]


class Service:
    """The state of a service and the threads that change it."""

    def __init__(self) -> None:
        self.temperature = np.full((), 20.0)
        self.requests = np.zeros(1, dtype=np.uint64)
        self.errors = array.array("Q", [0])
        self.config = Config(timeout_ms=30, retries=3, rate_limit=100.0)
        self.weights = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
        # On pages of its own: only there a change that no thread made is known to be a system call's.
        self.session = buffer(4096)
        self.cache = mmap.mmap(-1, 64 * 1024)
        self.calibration = np.array([1.0, 0.5, 0.25])
        self._stopping = threading.Event()
        self._ours, self._client = socket.socketpair()
        self._threads = [
            threading.Thread(target=self._every, args=(seconds, step), name=step.__name__)
            for seconds, step in (
                (0.5, self.measure),
                (0.3, self.handle_request),
                (1.0, self.train),
                (4.0, self.reconfigure),
                (1.5, self.receive),
                (2.5, self.fill_cache),
            )
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._ours.close()
        self._client.close()

    def _every(self, seconds, step) -> None:
        n = 0
        while not self._stopping.wait(seconds):
            step(n)
            n += 1

    def measure(self, n: int) -> None:
        self.temperature[...] = round(20 + 5 * math.sin(n / 10), 2)

    def handle_request(self, n: int) -> None:
        self.requests[0] += 1
        if n % 20 == 19:
            self.errors[0] += 1

    def train(self, n: int) -> None:
        row = n % 64
        self.weights[row] *= 0.9
        # A model that goes wrong for a moment: the kind of change one wants to hear of.
        self.weights[3, 17] = np.nan if n % 10 == 7 else 0.5

    def reconfigure(self, n: int) -> None:
        self.config.timeout_ms = 30 + n
        self.config.rate_limit *= 1.1

    def receive(self, n: int) -> None:
        self._client.sendall(b"message %d" % n)
        self._ours.recv_into(self.session)

    def fill_cache(self, n: int) -> None:
        page = n % 16 * 4096
        self.cache[page : page + 8] = n.to_bytes(8, "little")


def watch(watcher: MemoryWatcher, service: Service) -> None:
    watcher.watch(service.temperature, name="temperature")
    watcher.watch(service.requests, name="requests")
    watcher.watch(service.errors, name="errors")
    watcher.watch(service.config, name="config")
    watcher.watch(service.weights, name="weights", metric=True)
    watcher.watch(service.session, name="session", values="preview")
    watcher.watch(service.cache, name="cache")
    watcher.watch(service.calibration, name="calibration")


def print_event(event: ChangeEvent) -> None:
    clock = datetime.fromtimestamp(event.timestamp_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]
    print(f"{clock} {event.seq:5} {event.variable_name:12} {what(event):40.40} {who(event)}", flush=True)


def what(event: ChangeEvent) -> str:
    """The first changed number, for variables that hold numbers; else how much changed."""
    for index, old, new in event.elements[:1]:
        if isinstance(old, (int, float)):
            place = f"[{', '.join(map(str, index))}] " if event.how_big > 8 else ""
            more = " ..." if len(event.elements) > 1 else ""
            return f"{place}{old:.6g} → {new:.6g}{more}"
    return f"{event.changed_bytes} of {event.how_big} bytes"


def who(event: ChangeEvent) -> str:
    where = event.where
    if where.line:
        return f"{os.path.basename(where.file)}:{where.line} {where.function}"
    return str(where)


def serve(watcher: MemoryWatcher, options: argparse.Namespace):
    token = options.token_file.read_text(encoding="ascii").strip() if options.token_file else None
    arguments = {"host": options.host, "insecure": options.insecure, "token": token}
    try:
        return watcher.serve(port=options.port, **arguments)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        print(f"port {options.port} is in use: another one is taken", flush=True)
        return watcher.serve(port=0, **arguments)


def scrape(port: int) -> str:
    """What Prometheus would get now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def print_summary(watcher: MemoryWatcher, metrics: str) -> None:
    stats = watcher.get_stats()
    print("\nA scrape of /metrics says:")
    for line in metrics.splitlines():
        if line.startswith(METRICS_SHOWN) and not line.endswith((" 0", " 0.0")):
            print("  " + line)
    print(
        f"\nbackend {stats['backend']}: {stats['detected']} changes detected = {stats['delivered']} delivered"
        f" + {stats['coalesced']} coalesced + {stats['unchanged']} unchanged + {stats['filtered']} filtered"
        f" + {sum(stats['dropped'].values())} dropped"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="how long to run; 0: until interrupted")
    parser.add_argument("--port", type=int, default=10764, help="of the exporter; 0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="address that the exporter listens on")
    parser.add_argument("--insecure", action="store_true", help="allow another address than loopback, without TLS")
    parser.add_argument("--token-file", type=Path, help="the exporter's token, as Prometheus reads it; default: random")
    parser.add_argument("--quiet", action="store_true", help="do not print the events")
    options = parser.parse_args()

    service = Service()
    with MemoryWatcher() as watcher:
        watch(watcher, service)
        if not options.quiet:
            watcher.set_callback(print_event)
        exporter = serve(watcher, options)
        print(f"live page   {exporter.url}\nmetrics     http://{options.host}:{exporter.port}/metrics", flush=True)
        service.start()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait(options.seconds or None)
        service.stop()
        watcher.flush(5)
        metrics = scrape(exporter.port)
        print_summary(watcher, metrics)
        exporter.close()
    return 0 if "memwatch_events_total" in metrics else 1


if __name__ == "__main__":
    sys.exit(main())
