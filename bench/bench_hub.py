"""How long a scrape of `memwatch hub` takes with many workers: .venv/bin/python bench/bench_hub.py [WORKERS, 16]

Each worker is a process with about a thousand series, whose variables change all the time. Wall and CPU time of the
hub, for scrapes over one connection: median, and the quickest.
"""

from __future__ import annotations

import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

VARIABLES, SCRAPES, AIM_MS = 300, 40, 50
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


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scrape(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/metrics")
    return connection.getresponse().read()


def main() -> int:
    n_workers = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    with tempfile.TemporaryDirectory() as directory:
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, directory], stdout=subprocess.PIPE, text=True)
            for _ in range(n_workers)
        ]
        command = [sys.executable, "-m", "memwatch", "hub", "--port", "0", "--interval", "60", "--directory", directory]
        try:
            for worker in workers:
                assert worker.stdout is not None
                worker.stdout.readline()
            hub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            workers.append(hub)
            assert hub.stdout is not None
            port = re.search(r":(\d+)/", hub.stdout.readline())
            assert port is not None
            connection = http.client.HTTPConnection("127.0.0.1", int(port[1]))
            series = sum(not line.startswith(b"#") for line in scrape(connection).splitlines())
            walls, before = [], cpu_s(hub.pid)
            for _ in range(SCRAPES):
                time.sleep(0.05)
                started = time.perf_counter()
                scrape(connection)
                walls.append((time.perf_counter() - started) * 1e3)
            cpu_ms = (cpu_s(hub.pid) - before) / SCRAPES * 1e3
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
    median = statistics.median(walls)
    print(f"hub.scrape  {n_workers} workers, {series} series: median {median:.1f} ms, quickest {min(walls):.1f} ms,")
    print(f"            {cpu_ms:.1f} ms of CPU in the hub; aim: {AIM_MS} ms for 16 workers of 1,000 series")
    return 0


if __name__ == "__main__":
    sys.exit(main())
