"""What a policy hides is in nothing that memwatch says, and once it is overwritten in no copy, as a core dump shows."""

import base64
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

import memwatch

SIZE = 64
HOST = """
import json, logging, sys
import memwatch

logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
seed, path = sys.stdin.readline().split()
buffers = {name: memwatch.buffer(64) for name in ("api_key", "hashed", "unseen")}
watcher = memwatch.MemoryWatcher(history_path=path, window_ms=1)
events = []
watcher.set_callback(lambda event: events.append((repr(event), str(event), event.summary)))
watcher.log_events()
for name, values in (("api_key", None), ("hashed", "hash"), ("unseen", "none")):
    watcher.watch(buffers[name], name, **({} if values is None else {"values": values}))
server = watcher.serve(port=0, runtime_dir="")


def write(mask):  # one byte at a time, so that the host itself makes no copy
    for buffer in buffers.values():
        for at in range(64):
            buffer[at] = (int(seed[2 * at], 16) * 16 + int(seed[2 * at + 1], 16)) ^ mask if mask >= 0 else 0


for line in sys.stdin:
    word, _, argument = line.strip().partition(" ")
    if word == "write":
        write(int(argument))
        assert watcher.flush(30)
    elif word == "say":
        wrong = []
        for ask in (lambda: watcher.load(repr(buffers)), lambda: watcher.history("api_key"),
                    lambda: watcher.value_at("hashed", 1), lambda: watcher.watch(buffers["hashed"], "hashed")):
            try:
                wrong.append(repr(ask()))
            except Exception as error:
                wrong.append(repr(error))
        said = [events, wrong, repr(watcher), repr(server), repr(watcher.get_stats(regions=True))]
        print(json.dumps(said), flush=True)
        continue
    elif word == "close":
        watcher.close()
    print(json.dumps([server.port, server.token]) if word == "where" else "ok", flush=True)
"""


def written(data):
    """How bytes may be written down."""
    return [data, data.hex().encode(), data.hex(" ").encode(), repr(data)[2:-1].encode(), *encoded(data)]


def encoded(data):
    """In base64 it depends on where they stand; what is the same in all that begin so."""
    for skip in range(3):
        text = base64.b64encode(bytes(skip) + data)
        yield text[(8 * skip + 5) // 6 : -4]


def found(where, data):
    """The pieces of a value that stand there, in whatever way."""
    pieces = [data[at : at + 12] for at in range(0, len(data) - 11, 4)]
    return [piece for piece in pieces if any(form in where for form in written(piece))]


def memory(pid):
    """What a core dump would hold."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as file:
        for line in maps:
            start, end, rights, name = re.match(r"(\w+)-(\w+) (\S+)(?: +\S+){3} *(.*)", line).groups()
            if rights.startswith("rw") and name not in ("[vvar]", "[vsyscall]"):
                file.seek(int(start, 16))
                try:
                    yield file.read(int(end, 16) - int(start, 16))
                except OSError:
                    continue


def copies(pid, data):
    pieces = [data[at : at + 16] for at in range(0, len(data), 16)]
    return sum(area.count(piece) for area in memory(pid) for piece in pieces)


@pytest.mark.skipif(bool(memwatch._native.missing), reason="no extension or no exporter here")
def test_a_hidden_value_is_nowhere(tmp_path):
    first = random.Random(time.time_ns()).randbytes(SIZE)
    second = bytes(each ^ 0x5A for each in first)
    recording = tmp_path / "recording"
    process = subprocess.Popen(
        [sys.executable, "-c", HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "MEMWATCH_TOKEN": ""},
    )  # fmt: skip

    def do(line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    with process:
        process.stdin.write(f"{bytes(each ^ 0x33 for each in first).hex()} {recording}\n")
        assert do(f"write {0x33}") == "ok\n"
        assert copies(process.pid, first) >= 12, "this test can see what is there: three variables of four pieces"
        assert do(f"write {0x33 ^ 0x5A}") == "ok\n"
        port, token = json.loads(do("where"))

        def get(path):
            headers = {"Authorization": f"Bearer {token}", "Accept": "*/*"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.read()

        said = {path: get(path) for path in ("/metrics", "/api/v1/status", "/api/v1/regions", "/api/v1/events?since=0")}
        events = json.loads(said["/api/v1/events?since=0"])["events"]
        assert {event["name"] for event in events} == {"api_key", "hashed", "unseen"} and len(events) >= 6
        for region in {event["region_id"] for event in events}:
            said |= {
                path: get(path) for path in (f"/api/v1/regions/{region}/value", f"/api/v1/regions/{region}/value?seq=1")
            }
        said["said"] = do("say").encode()
        assert b"hashed" in said["said"]
        assert do("write -1") == "ok\n"
        gone = {data: copies(process.pid, data) for data in (first, second)}
        assert do("close") == "ok\n"
        said["file"] = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert len(said["file"]) > 4096
        process.stdin.close()
        said["log"] = process.stderr.read().encode()
        assert b"api_key" in said["log"]
    assert process.returncode == 0
    for place, text in said.items():
        for data in (first, second):
            assert not found(text, data), place
    assert gone == {first: 0, second: 0}, "what was overwritten is kept nowhere"
