"""A service for the tests of the live page, which drive it by lines: page_service.py VARIABLES

It prints its address, port and token. Each line is a piece of Python that is run beside the variables; the answer is a
line when all of it is an event.
"""

import ctypes
import sys

import numpy as np

from memwatch import MemoryWatcher, buffer, empty


class Config(ctypes.Structure):
    _fields_ = [("timeout_ms", ctypes.c_int), ("retries", ctypes.c_int), ("rate_limit", ctypes.c_double)]


watcher = MemoryWatcher()
config = Config.from_buffer(buffer(ctypes.sizeof(Config)))
weights = empty((64, 64), np.float32)
temperature = empty((), np.float64)
name = buffer(5)
quiet = buffer(64)
many = empty(max(1, int(sys.argv[1])), np.float64)

name[:] = b"Hello"
weights[:] = 0.5
temperature[...] = 20
config.timeout_ms, config.retries, config.rate_limit = 30, 3, 100


def train() -> None:
    weights[46, 56] = np.nan


def reconfigure() -> None:
    config.rate_limit = 110


def measure(value: float) -> None:
    temperature[...] = value


def touch(first: int, n: int) -> None:
    many[first : first + n] += 1


def main() -> None:
    for variable, title in (
        (config, "config"),
        (weights, "weights"),
        (temperature, "temperature"),
        (name, "name"),
        (quiet, "never written"),
    ):
        watcher.watch(variable, name=title)
    for i in range(int(sys.argv[1])):
        watcher.watch(many[i : i + 1], name=f"item{i:05}")
    exporter = watcher.serve(port=0)
    print(exporter.url, exporter.port, exporter.token, flush=True)
    for line in sys.stdin:
        exec(line, globals())
        watcher.flush(30)
        print("done", flush=True)
    exporter.close()
    watcher.close()


main()
