"""Run by an interpreter that has memwatch installed, and perhaps nothing else: all of it is there, or this fails."""

import json
import os
import sys
import tempfile
import urllib.request
import warnings

warnings.simplefilter("error")

import memwatch  # noqa: E402

events = []


def write(data):
    data[5] = 7  # this line


def line_of(text):
    with open(__file__, encoding="utf-8") as file:
        return next(number for number, line in enumerate(file, 1) if text in line)


with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, "recording")
    with memwatch.MemoryWatcher(history_path=path) as watcher:
        watcher.set_callback(events.append)
        data = memwatch.buffer(9000)
        watcher.watch(data, name="data")
        write(data)
        assert watcher.flush()
        stats = watcher.get_stats()
        server = watcher.serve(port=0)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
            assert b"memwatch_" in answer.read()
    with memwatch.open_history(path) as history:
        recorded = [event.variable_name for event in history.events()]

event = events[0]
where = event.where
told = (os.path.basename(where.file or ""), where.function, where.line, where.attribution)
assert not stats["missing"], stats["missing"]
assert recorded == ["data"], recorded
if stats["attribution"]["available"]:
    assert told == (os.path.basename(__file__), "write", line_of("# this line"), "exact"), told
python = sys.version.split()[0]
print(json.dumps({"python": python, "backend": stats["backend"], "told": told, "from": memwatch.__file__}))
