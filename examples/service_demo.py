"""A service that never stops, with the variables that matter watched while it runs.

    python3 examples/service_demo.py [--seconds 20] [--port 10764]

The lesson: nothing in the service's code (the methods of Service) knows that it is watched. The operator's side (main)
registers the variables by name, gets a callback for every change with the file and line of the writer, and serves the
same changes as metrics and feeds. Kernel writes count too: the session buffer is filled by `recv_into`.

Two bugs are in the service. `note_latency` writes one place too far and hits the configuration, which nobody would look
for there; and once in a while `normalise` makes a weight NaN. memwatch tells of both, with the line.
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
    'memwatch_variable_value{variable="requests"}',
    "memwatch_events_total",
    'memwatch_attribution_events_total{outcome="exact"',
)
EVENTS_SHOWN = 12
N_LATENCIES = 8

#: Who is expected to write what. Anybody else is worth a look.
EXPECTED = {"config": "reconfigure", "temperature": "measure", "requests": "handle_request"}


class Config(ctypes.Structure):
    _fields_ = [("rate_limit", ctypes.c_double), ("timeout_ms", ctypes.c_int), ("retries", ctypes.c_int)]


class Service:
    """The state of a service and the threads that change it."""

    def __init__(self) -> None:
        self.temperature = np.full((), 20.0)
        self.requests = np.zeros(1, dtype=np.uint64)
        self.errors = array.array("Q", [0])
        # As in many programs, one block of memory holds several things: latencies, and behind them the configuration.
        self.block = buffer(4096)
        self.latencies = self.block.cast("d")
        self.config = Config.from_buffer(self.block, N_LATENCIES * 8)
        self.config.timeout_ms, self.config.retries, self.config.rate_limit = 30, 3, 100.0
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
                (0.6, self.note_latency),
                (1.0, self.train),
                (2.1, self.normalise),
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

    def normalise(self, n: int) -> None:
        # A model that goes wrong for a minute: where the spread is 0, this divides 0 by 0.
        spread = np.float32(0 if n % 45 in range(2, 32) else 1)
        with np.errstate(invalid="ignore"):
            self.weights[3, 17] = np.float32(0.5) * spread / spread

    def note_latency(self, n: int) -> None:
        # The bug: there are N_LATENCIES places, so it has to be n % N_LATENCIES.
        self.latencies[n % (N_LATENCIES + 1)] = 0.002 + n % 5 / 1000

    def reconfigure(self, n: int) -> None:
        self.config.timeout_ms = 30 + n
        self.config.rate_limit = 100.0 + n

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


class Told:
    """Prints the first change of each kind, and remembers what nobody expected."""

    def __init__(self) -> None:
        self.kinds: set[tuple[str, str, bool]] = set()
        self.found: list[str] = []

    def __call__(self, event: ChangeEvent) -> None:
        nan = "→ nan" in what(event)
        writer = (event.where.function or "").rpartition(".")[2]
        kind = (event.variable_name, writer or str(event.where), nan)
        if kind in self.kinds or len(self.kinds) >= EVENTS_SHOWN:
            return
        self.kinds.add(kind)
        clock = datetime.fromtimestamp(event.timestamp_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]
        print(
            f"{clock} {event.seq:5} {event.variable_name:12} {what(event):34.34} {sure(event):7} {who(event)}",
            flush=True,
        )
        expected = EXPECTED.get(event.variable_name, writer)
        if nan or (writer and writer != expected):
            wanted = f", not {expected}" if writer != expected else ""
            self.found.append(f"{event.variable_name}{what(event)}, by {who(event)} ({sure(event)}){wanted}")


def sure(event: ChangeEvent) -> str:
    """Only `exact` is proof; `kernel` says that a system call wrote, and not which."""
    if event.where.reason == "kernel":
        return "kernel"
    return {"exact": "proof", "page": "guess"}.get(event.where.attribution, "unknown")


def what(event: ChangeEvent) -> str:
    """The first changed number, for variables that hold numbers; else how much changed."""
    if event.variable_name == "config":
        before, after = event.old, event.new
        for field, *_ in Config._fields_:
            if getattr(before, field) != getattr(after, field):
                return f".{field}: {getattr(before, field):.6g} → {getattr(after, field):.6g}"
    for index, old, new in event.elements[:1]:
        if isinstance(old, (int, float)):
            place = f"[{', '.join(map(str, index))}]: " if event.how_big > 8 else ""
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
    arguments = {"host": options.host, "insecure": options.insecure, "token": token, "service": "demo"}
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


def print_summary(watcher: MemoryWatcher, metrics: str, found: list[str]) -> None:
    stats = watcher.get_stats()
    print("\nWhat nobody expected:")
    for sentence in found or ["nothing yet: it takes ten seconds"]:
        print("  " + sentence)
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
        told = Told()
        if not options.quiet:
            watcher.set_callback(told)
        exporter = serve(watcher, options)
        print(f"live page   {exporter.url}\nmetrics     http://{options.host}:{exporter.port}/metrics", flush=True)
        if not options.quiet:
            print("\nthe first change of each kind, as it happens:", flush=True)
        service.start()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait(options.seconds or None)
        service.stop()
        watcher.flush(5)
        metrics = scrape(exporter.port)
        print_summary(watcher, metrics, told.found)
        exporter.close()
    return 0 if "memwatch_events_total" in metrics else 1


if __name__ == "__main__":
    sys.exit(main())
