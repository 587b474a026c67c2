"""A service in which everything goes wrong that an alert tells: a small ring, a small history, a bad callback.

Prints the exporter's address and runs until it is killed. The variables have the names that memwatch.limits.yml knows.
"""

import mmap
import sys
import tempfile
import threading
import time

import numpy as np

from memwatch import MemoryWatcher

PAGE = 4096
N_PAGES = 256
VARIABLE_LIMIT = 8


def complain(event):
    """Fails always, and so slowly that the log overtakes it."""
    time.sleep(0.01)
    raise ValueError(f"no {event.variable_name}, please")


def main():
    sys.unraisablehook = lambda _: None
    temperature = np.full((), 20.0)  # changes once, then is silent, above its bound
    calibration = np.ones(4)  # must not change, and does
    weights = np.ones(1024)
    loss = np.full((), 1.0)
    frame = bytearray(64 * 1024)  # too large for the history's budget to keep for long
    table = mmap.mmap(-1, N_PAGES * PAGE)  # more first writes at once than the ring has places
    recording = f"{tempfile.mkdtemp()}/recording"
    with MemoryWatcher(
        ring_capacity=16, history_budget=128 * 1024, event_capacity=64, history_path=recording
    ) as watcher:
        watcher.watch(temperature, name="temperature")
        watcher.watch(calibration, name="calibration")
        watcher.watch(weights, name="weights", metric=True)
        watcher.watch(loss, name="loss")
        watcher.watch(frame, name="frame")
        watcher.watch(table, name="table")
        others = [np.zeros(1) for _ in range(4)]  # the last two find no labels left
        for n, other in enumerate(others):
            watcher.watch(other, name=f"other {n}")
        watcher.set_callback(complain)
        exporter = watcher.serve(port=int(sys.argv[1]), token=sys.argv[2], variable_limit=VARIABLE_LIMIT)
        print(exporter.url, flush=True)
        temperature[...] = 99.0
        loss[...] = np.nan
        n = 0
        while not threading.Event().wait(0.02):
            n += 1
            weights[n % 1024] = np.nan if n % 2 else n
            weights[0] = n
            calibration[n % 4] = n
            others[n % 4][0] = n
            frame[:] = bytes([n % 256]) * len(frame)
            for page in range(0, len(table), PAGE):
                table[page] = n % 256


if __name__ == "__main__":
    main()
