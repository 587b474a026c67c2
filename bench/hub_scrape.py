"""A scrape of `memwatch hub` over 16 workers of a thousand series, beside other ways to have them all.

Two alternatives: the workers' own exporters asked one after the other over kept connections, unmerged, which is what
a scraper does without a hub; and prometheus_client's multiprocess mode, which merges as many series of as many
processes from files. The ways take turns, so that a busy neighbour slows all of them down. The variables change all
the time. Of each way the median on the wall; of the hub also the quickest and the CPU time of its process, since the
wall counts the workers' time too. Prints lines of "name TAB value TAB unit".

usage: hub_scrape.py [WORKERS, 16]
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

SERIES = 1000
VARIABLES = 440  # of two series each, beside the process's own
ROUNDS, PAUSE_S = 40, 0.05
WORKER = f"""
import sys, time
import memwatch
data = [bytearray(8) for _ in range({VARIABLES})]
watcher = memwatch.MemoryWatcher()
for number, each in enumerate(data):
    watcher.watch(each, f"cache.entry.{{number}}")
server = watcher.serve(port=0, service="bench", runtime_dir=sys.argv[1], variable_limit=2000)
print("ready", flush=True)
number = 0
while True:
    time.sleep(0.1)
    number += 1
    data[number % len(data)][0] = number % 256
"""
MULTIPROCESS_WORKER = f"""
from prometheus_client import Counter
counter = Counter("entries", "What one worker counts.", ["variable"])
for number in range({SERIES}):
    counter.labels(f"cache.entry.{{number}}").inc(number)
"""
MULTIPROCESS_SERVER = """
import sys
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
for _ in sys.stdin:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    print(len(generate_latest(registry)), flush=True)
"""


def cpu_ms(pid: int) -> float:
    """What the process has used."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e6


def get(connection: http.client.HTTPConnection, headers: dict[str, str]) -> bytes:
    """A scrape."""
    connection.request("GET", "/metrics", headers=headers)
    return connection.getresponse().read()


def program(stack: ExitStack, *words: str, **options: str) -> subprocess.Popen[str]:
    """A process that ends with the bench."""
    process = subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **options},
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def hub_of(stack: ExitStack, directory: str) -> tuple[Callable[[], int], int]:
    """A scrape of the hub, and the hub's process."""
    options = ["--port", "0", "--interval", "60", "--directory", directory]
    process = program(stack, "-m", "memwatch", "hub", *options)
    assert process.stdout is not None
    port = re.search(r":(\d+)/", process.stdout.readline())
    assert port is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(port[1]))
    return lambda: get(connection, {}).count(b'{service="'), process.pid


def one_by_one(directory: str) -> Callable[[], int]:
    """All workers asked in turn."""
    connections = []
    for path in Path(directory).glob("*.json"):
        said = json.loads(path.read_text(encoding="utf-8"))
        token = {"Authorization": f"Bearer {said['token']}"}
        connections.append((http.client.HTTPConnection("127.0.0.1", said["port"]), token))
    return lambda: sum(get(connection, token).count(b"\nmemwatch_") for connection, token in connections)


def multiprocess(stack: ExitStack, n_workers: int) -> Callable[[], int]:
    """As many files of prometheus_client, merged by a process that is told when."""
    files = stack.enter_context(tempfile.TemporaryDirectory())
    for _ in range(n_workers):
        command = [sys.executable, "-c", MULTIPROCESS_WORKER]
        subprocess.run(command, env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": files}, check=True)
    process = program(stack, "-c", MULTIPROCESS_SERVER, PROMETHEUS_MULTIPROC_DIR=files)

    def ask() -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    return ask


def main() -> int:
    """Measures the ways by turns."""
    n_workers = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        for worker in [program(stack, "-c", WORKER, directory) for _ in range(n_workers)]:
            assert worker.stdout is not None
            worker.stdout.readline()
        scrape, pid = hub_of(stack, directory)
        ways = {"hub": scrape, "one_by_one": one_by_one(directory), "multiprocess": multiprocess(stack, n_workers)}
        series = scrape()
        taken: dict[str, list[float]] = {name: [] for name in ways}
        cpu = []
        for _ in range(ROUNDS):
            for name, way in ways.items():
                time.sleep(PAUSE_S)
                before, started = cpu_ms(pid), time.perf_counter()
                way()
                taken[name].append((time.perf_counter() - started) * 1e3)
                if name == "hub":
                    cpu.append(cpu_ms(pid) - before)
    print(f"hub.series\t{series}\tseries")
    for name, times in taken.items():
        print(f"{name}.wall\t{median(times):.2f}\tms")
    print(f"hub.wall.quickest\t{min(taken['hub']):.2f}\tms\nhub.cpu\t{median(cpu):.2f}\tms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
