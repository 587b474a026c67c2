"""The C host program of these tests, and plain HTTP and SSE clients for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = ROOT / os.environ.get("MEMWATCH_BUILD", "build")
SANITIZERS = {
    "asan": ["-fsanitize=address,undefined"],
    "ubsan": ["-fsanitize=undefined"],
    "tsan": ["-fsanitize=thread"],
}
SANITIZED = BUILD.name in SANITIZERS
TOKEN = "0123456789abcdef0123456789abcdef"
LIMIT_S = 30.0


def compile_program(source: str, *flags: str) -> Path:
    """Returns the program made of a C file of this directory and both libraries, built anew when something is newer."""
    archives = [BUILD / "internal" / "libmemwatch_exporter.a", BUILD / "internal" / "libmemwatch.a"]
    if not all(archive.exists() for archive in archives):
        subprocess.run(["make", "-s", *(str(archive.relative_to(ROOT)) for archive in archives)], cwd=ROOT, check=True)
    program = BUILD / "tests" / "exporter" / Path(source).stem
    inputs = [HERE / source, *archives]
    if program.exists() and all(path.stat().st_mtime < program.stat().st_mtime for path in inputs):
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    include = ["-Iexporter/include", "-Inative/include", "-Iexporter/src", "-D_GNU_SOURCE="]
    libraries = ["-lmicrohttpd", "-lcjson", "-lz", "-ldw", "-lxxhash", "-ldl", "-lm", "-pthread"]
    sanitizer = SANITIZERS.get(BUILD.name, [])
    command = ["cc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", *sanitizer, *include, *flags]
    made = program.with_suffix(f".{os.getpid()}")  # another process may run the program, or make it too
    command += [str(HERE / source), *map(str, archives), *libraries, "-o", str(made)]
    subprocess.run(command, cwd=ROOT, check=True)
    made.replace(program)
    return program


def wait_for(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """Returns what the condition gives as soon as it is true; fails after the limit."""
    end = time.monotonic() + limit_s
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


class Service:
    """A running host program."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("token", TOKEN)
        arguments = [f"{name}={value}" for name, value in options.items() if value is not None]
        self.unix_socket = options.get("unix_socket")
        self.process = subprocess.Popen(
            [compile_program("host.c"), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.hello = self._line()
        if self.hello[0] == "ok":
            self.port, self.token = int(self.hello[1]), self.hello[2]
            self.url = self.hello[3] if len(self.hello) > 3 else ""

    def _line(self) -> list[str]:
        assert self.process.stdout
        return self.process.stdout.readline().split()

    def say(self, command: str) -> list[str]:
        """Sends a command; returns the words of the answer, which begins with ok or error."""
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._line()

    def do(self, command: str) -> list[str]:
        """Sends a command that must succeed; returns what it answered before the ok."""
        answer = self.say(command)
        assert answer[-1:] == ["ok"], answer
        return answer[:-1]

    def open(self) -> None:
        """Opens the exporter again, after "close"; it may get another port."""
        self.port = int(self.do("open")[0])

    def close(self) -> int:
        """Ends the process in good order; returns its status."""
        if self.process.stdin and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            status = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        return status

    # --- requests ---

    def connect(self, limit_s: float = LIMIT_S) -> socket.socket:
        if self.unix_socket:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(limit_s)
            connection.connect(str(self.unix_socket))
            return connection
        return socket.create_connection(("127.0.0.1", self.port), limit_s)

    @property
    def host(self) -> str:
        return "localhost" if self.unix_socket else f"127.0.0.1:{self.port}"

    def raw(self, request: bytes, limit_s: float = LIMIT_S) -> tuple[int, dict[str, str], bytes]:
        """Sends bytes as they are; returns status, headers and body of the answer."""
        with self.connect(limit_s) as connection:
            connection.sendall(request)
            response = http.client.HTTPResponse(connection)
            response.begin()
            body = response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, body

    def get(
        self, path: str, *, method: str = "GET", token: bool = True, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        lines = {"Host": self.host, "Connection": "close"}
        if token:
            lines["Authorization"] = f"Bearer {self.token}"
        lines.update(headers or {})
        text = (
            f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        )
        with self.connect() as connection:
            connection.sendall(text.encode("latin-1"))
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            body = response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, body

    def json(self, path: str, **arguments: Any) -> Any:
        status, headers, body = self.get(path, **arguments)
        assert status == 200, (status, body)
        assert headers["content-type"].startswith("application/json")
        return json.loads(body)

    def get_as(self, uid: int, path: str, *headers: str) -> tuple[int, str]:
        """Asks as another user of this machine; returns status and body."""
        place = ["--unix-socket", str(self.unix_socket)] if self.unix_socket else []
        command = ["curl", "-sk", "-w", "%{stderr}%{http_code}", "-m", str(LIMIT_S), *place]
        command += [argument for header in headers for argument in ("-H", header)]
        scheme = "https" if self.url.startswith("https:") else "http"
        done = subprocess.run(
            [*command, f"{scheme}://{self.host}{path}"],
            user=uid,
            group=uid,
            extra_groups=[],
            capture_output=True,
            text=True,
        )
        return int(done.stderr), done.stdout

    def metrics(self, openmetrics: bool = False) -> str:
        accept = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain"
        status, _, body = self.get("/metrics", token=False, headers={"Accept": accept})
        assert status == 200
        return body.decode()

    def sample(self, series: str) -> float:
        """The value of one series, written as in the exposition."""
        for line in self.metrics().splitlines():
            if line.startswith(series + " "):
                return float(line.rpartition(" ")[2])
        raise KeyError(series)

    def stream(self, path: str = "/api/v1/events/stream", headers: dict[str, str] | None = None) -> Stream:
        return Stream(self, path, headers or {})


class Stream:
    """A client of a stream: frames one by one."""

    def __init__(self, service: Service, path: str, headers: dict[str, str]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=LIMIT_S)
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {service.token}", **headers})
        self.response = self.connection.getresponse()
        self.status = self.response.status

    def frame(self) -> dict[str, str]:
        """The next SSE block as its fields; comments under "comment"."""
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline().decode()
            if not line:
                raise EOFError
            if line == "\n":
                return fields
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name or "comment"] = value

    def frames(self, *kinds: str) -> Iterator[tuple[str, str, Any]]:
        """Frames that are events: kind, id, data; only those kinds when any are named."""
        while True:
            fields = self.frame()
            if "event" in fields and (not kinds or fields["event"] in kinds):
                yield fields["event"], fields["id"], json.loads(fields["data"])

    def next(self, *kinds: str) -> tuple[str, str, Any]:
        return next(self.frames(*kinds))

    def line(self) -> Any:
        """The next line of an NDJSON stream."""
        line = self.response.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    def close(self) -> None:
        self.response.close()
        self.connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
