"""Run by an interpreter that has memwatch installed, and perhaps nothing else: all of it is there, or this fails.

With the README as its argument it runs the quick start, too.
"""

import importlib.metadata
import json
import os
import re
import subprocess
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


def quick_start(readme):
    """What the README's first program prints, as a program of its own, and the line of its write."""
    with open(readme, encoding="utf-8") as file:
        source = re.search(r"^```python\n(.*?)^```", file.read(), re.DOTALL | re.MULTILINE)[1]
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "quick_start.py")
        with open(program, "w", encoding="utf-8") as file:
            file.write(source)
        printed = subprocess.run([sys.executable, program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return printed.replace(directory, "DIRECTORY").splitlines(), 1 + source.splitlines().index('data[0] = ord("J")')


def licences():
    """Those of the libraries that came along, where they did, and ours: named as PEP 639 has it, and there."""
    files = importlib.metadata.files("memwatch") or []
    named = set(importlib.metadata.metadata("memwatch").get_all("License-File"))
    assert named == {file.name for file in files if "licenses" in file.parts}, named
    assert "LICENSE" in named
    assert len(named) > 1 or not [file for file in files if "memwatch.libs" in file.parts], named


licences()
event = events[0]
where = event.where
told = (os.path.basename(where.file or ""), where.function, where.line, where.attribution)
assert not stats["missing"], stats["missing"]
assert recorded == ["data"], recorded
if stats["attribution"]["available"]:
    assert told == (os.path.basename(__file__), "write", line_of("# this line"), "exact"), told
for readme in sys.argv[1:]:
    printed, line = quick_start(readme)
    author = f"written by <module>, DIRECTORY/quick_start.py:{line}"
    assert printed == ["data: b'Hello' -> b'Jello'", author], printed
python = sys.version.split()[0]
print(json.dumps({"python": python, "backend": stats["backend"], "told": told, "from": memwatch.__file__}))
