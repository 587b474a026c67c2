"""Processes of these tests: one that is watched, the shipper, and a stand-in for a Collector."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_S = 90.0
HERE = Path(__file__).resolve().parent


def wait_for(condition: Callable[[], Any], limit_s: float = LIMIT_S, what: str = "") -> Any:
    """Returns what the condition gives as soon as it is true; fails after the limit."""
    end = time.monotonic() + limit_s
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, f"did not come true: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watched:
    """tests/ship/watched.py: writes when it is told to."""

    def __init__(self, runtime: Path, *arguments: str, port: int = 0, token: str = "") -> None:
        self.runtime = runtime
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
        command = [sys.executable, str(HERE / "watched.py"), runtime.name, str(port), token, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.port, self.token, self.epoch = self._line().split()
        self.pid = self.process.pid

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def say(self, command: str) -> str:
        """A command and its answer: "write N" makes N events, "newest" is the newest seq."""
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._line().strip()

    def write(self, n: int) -> int:
        return int(self.say(f"write {n}"))

    def end(self, number: int = signal.SIGKILL) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(LIMIT_S)
        for file in (self.process.stdin, self.process.stdout):
            if file:
                with contextlib.suppress(OSError):
                    file.close()


class Ship:
    """`memwatch ship`."""

    def __init__(self, runtime: Path, *arguments: object, named: bool = True, **environment: str) -> None:
        """`named`: of the watchers of this machine only those of the test."""
        self.environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_STATE_HOME": str(runtime / "state"),
            **environment,
        }
        self.command = [sys.executable, "-m", "memwatch", "ship", *([runtime.name] if named else [])]
        self.command += [*map(str, arguments), "--mine"]
        self.errors = runtime / "ship.stderr"
        self.process: subprocess.Popen[str] | None = None

    def once(self, status: int = 0) -> str:
        """Runs it to its end; what it said."""
        done = subprocess.run(
            [*self.command, "--once"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == status, (done.returncode, done.stderr)
        return done.stdout + done.stderr

    def start(self) -> Ship:
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(self.command, env=self.environment, stderr=errors, text=True)
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


class Collector:
    """Answers as it is told to, and keeps what it took. `answers` are status, headers, body, one after the other;
    then 200."""

    def __init__(self, port: int = 0) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.requests: list[tuple[float, bytes, dict[str, str], str]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.always: tuple[int, dict[str, str], bytes] = (200, {}, b'{"partialSuccess":{}}')
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                outer.requests.append((time.monotonic(), data, dict(self.headers), self.path))
                status, headers, body = outer.answers.pop(0) if outer.answers else outer.always
                if status == 0:  # the connection breaks
                    self.close_connection = True
                    return
                if 200 <= status < 300:
                    outer.bodies.append(json.loads(data))
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def records(self) -> list[dict[str, Any]]:
        """All log records that were taken, their attributes by name."""
        found = []
        for body in list(self.bodies):
            for resource in body["resourceLogs"]:
                for scope in resource["scopeLogs"]:
                    for record in scope["logRecords"]:
                        attributes = {each["key"]: next(iter(each["value"].values())) for each in record["attributes"]}
                        found.append({**record, "attributes": attributes})
        return found


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def uncovered(records: list[dict[str, Any]], epoch: str, newest: int) -> list[int]:
    """The seqs up to `newest` that neither an event nor a gap among the records tells of."""
    told: set[int] = set()
    for record in records:
        if record["epoch"] == epoch and record["kind"] in ("change", "lost"):
            told.add(record["seq"])
        elif record["epoch"] == epoch and record["kind"] == "gap":
            told.update(range(record["from"], record["to"] + 1))
    return sorted(set(range(1, newest + 1)) - told)


def check_duplicates(records: list[dict[str, Any]]) -> int:
    """What came more than once is the same event; how many did."""
    by_id: dict[str, dict[str, Any]] = {}
    n = 0
    for record in records:
        first = by_id.setdefault(record["id"], record)
        if first is not record:
            n += 1
            assert record["kind"] in ("gap", "restart") or first == record
    return n
