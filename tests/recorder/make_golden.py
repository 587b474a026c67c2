"""Makes golden-N.memwatch and golden-N.json in a folder: a recording by version N of the format, for the next to read.

A copy of it, run elsewhere, so that no path of the machine that made it is in the file: `python service.py FOLDER`.
"""

import contextlib
import ctypes
import json
import sqlite3
import sys
from pathlib import Path

import numpy

import memwatch

PLACE = Path(sys.argv[1]) / "golden-2.memwatch"


class Limits(ctypes.Structure):
    _fields_ = [("low", ctypes.c_int), ("high", ctypes.c_double)]


def main():
    PLACE.unlink(missing_ok=True)
    things = {
        "number": numpy.zeros(()),
        "array": numpy.zeros((3, 4), "f4"),
        "dates": numpy.array(["2026-01-01"], "M8[D]"),
        "limits": Limits(1, 2.0),
        "data": memwatch.buffer(100),
        "token": numpy.zeros(4, "u1"),
    }
    with memwatch.MemoryWatcher(history_path=str(PLACE), history_path_bytes=1 << 20) as watcher:
        for name, thing in things.items():
            watcher.watch(thing, name)
        for value in (1.5, float("nan"), 3.0):
            things["number"][...] = value
            watcher.flush(5)
        things["array"][1, 2], things["dates"][0], things["limits"].high = 5, "2027-05-05", 7.5
        things["data"][3:5], things["token"][0] = b"ab", 7
        watcher.flush(5)
        name = watcher._core.region_add_external("name")
        watcher._core.post(name, old=b"None", new=b"'first'", frames=[("app.py", "main", 7)], backend="trace")
    with contextlib.closing(sqlite3.connect(PLACE)) as connection:
        connection.execute("UPDATE runs SET host = 'host', program = 'service'")
        connection.execute("UPDATE locations SET object = '/lib/library.so', native_file = NULL, native_line = NULL")
        connection.execute("UPDATE locations SET libc_function = 'memcpy' WHERE symbol IS NOT NULL")
        connection.commit()
        connection.execute("VACUUM")
    with memwatch.open_history(PLACE) as history:
        facts = {
            "runs": [[run.run, run.program, run.events_written, run.events_missed] for run in history.runs],
            "regions": [[region.name, region.format, list(region.shape)] for region in history.regions],
            "events": [
                [each.run, each.seq, each.summary, each.where.function, each.where.libc_function]
                for each in history.events()
            ],
            "values": {
                region.name: repr(history.value_at(region.name))
                for region in history.regions
                if region.values == "full"
            },
        }
    PLACE.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
