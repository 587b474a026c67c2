"""An exporter for one process's own use, and the checks of who may ask through it.

DESIGN  It listens on a Unix socket in a directory that only this user enters, and the application's own server passes
requests on to it. So what is answered, and to whom, is decided in one place, by the exporter: the token, the methods,
the addresses. Two checks have to be made here, since only here the request is seen as it came: whether its Host is one
of ours, which keeps pages out whose own name was made to point here, and whether a page of another site asks.

It is opened at the first request, and anew in a forked child that has a watcher (`follow_fork=True`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import tempfile
import threading
from typing import Any, Mapping, Optional, Sequence

HOSTS = ("localhost", "127.0.0.1", "[::1]")
HEAD_BYTES = 64 * 1024
ANSWER_S = 30.0
PASSED_ON = ("authorization", "accept", "accept-encoding", "if-none-match", "last-event-id")
NOT_PASSED_BACK = frozenset(("connection", "keep-alive", "transfer-encoding", "date", "server"))
Headers = list[tuple[str, str]]


class Inside:
    """The exporter of a watcher, for this process."""

    def __init__(self, watcher: Any, **options: Any) -> None:
        self._watcher, self._options = watcher, options
        self._mutex = threading.Lock()
        self._pid, self._server, self._directory = 0, None, ""

    def path(self) -> str:
        """Where it listens."""
        with self._mutex:
            if self._pid != os.getpid():
                self._open()
            return f"{self._directory}/socket"

    @property
    def token(self) -> str:
        """What all but health asks for."""
        self.path()
        server: Any = self._server
        return str(server.token)

    def _open(self) -> None:
        directory = tempfile.mkdtemp(prefix="memwatch-")
        try:
            self._server = self._watcher.serve(unix_socket=f"{directory}/socket", runtime_dir="", **self._options)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        self._directory, self._pid = directory, os.getpid()
        atexit.register(_remove, directory, self._pid)

    def connect(self) -> socket.socket:
        """A connection to it."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(self.path())
        except BaseException:
            connection.close()
            raise
        return connection


class Mounted:
    """What the applications that others mount have in common."""

    def __init__(self, watcher: Any, *, allowed_hosts: Sequence[str] = (), token: str = "") -> None:
        if not callable(getattr(watcher, "serve", None)):
            raise TypeError(f"watcher={watcher!r}: it is a MemoryWatcher")
        if isinstance(allowed_hosts, str) or not all(isinstance(host, str) for host in allowed_hosts):
            raise TypeError(f"allowed_hosts={allowed_hosts!r}: it is a list of names, such as ['shop.example']")
        options = {"token": token} if token else {}
        self._inside = Inside(watcher, metrics_need_token=True, **options)
        self._allowed = tuple(allowed_hosts)

    def __repr__(self) -> str:
        return f"<memwatch.{type(self).__name__} for {', '.join(self._allowed) or 'this machine'}>"

    @property
    def token(self) -> str:
        """What all but health asks for, as `Authorization: Bearer TOKEN`; the page asks for it by itself."""
        return self._inside.token


def _remove(directory: str, pid: int) -> None:
    if pid == os.getpid():
        shutil.rmtree(directory, ignore_errors=True)


def refusal(
    method: str, scheme: str, path: str, headers: Sequence[tuple[str, str]], allowed: Sequence[str]
) -> Optional[tuple[int, str]]:
    """Why a request is not passed on: a status and a sentence. None: it is."""
    given: dict[str, list[str]] = {}
    for name, value in headers:
        given.setdefault(name.lower(), []).append(value)
    if method not in ("GET", "HEAD"):
        return 405, "Only GET and HEAD are served."
    if path in ("/-/healthy", "/-/ready"):
        return None
    hosts = given.get("host", [])
    if len(hosts) != 1 or not _is_allowed(hosts[0], allowed):
        return 421, "This does not answer to that Host: name it in allowed_hosts."
    origins = given.get("origin", [])
    if len(origins) > 1 or (origins and origins[0].lower() != f"{scheme}://{hosts[0]}".lower()):
        return 403, "Requests of other origins are refused."
    site, mode = given.get("sec-fetch-site", ["none"])[0], given.get("sec-fetch-mode", [""])[0]
    if site not in ("same-origin", "none") and not (path == "/" and mode == "navigate"):
        return 403, "Requests of other sites are refused."
    return None


def _is_allowed(host: str, allowed: Sequence[str]) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
    known = [*HOSTS, *allowed]
    return any(each.lower() in (name.lower(), host.lower()) for each in known)


def request(method: str, target: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """What is passed on: of the headers those that the exporter looks at; HTTP/1.0, so that the answer ends by itself.

    It says that it is passed on: then it is the token alone which shows what variables hold.
    """
    kept = {name.lower(): value for name, value in headers if name.lower() in PASSED_ON}
    lines = [
        f"{method} {target} HTTP/1.0",
        "Host: localhost",
        "Via: 1.0 memwatch",
        *(f"{name}: {value}" for name, value in kept.items()),
    ]
    text = "\r\n".join(lines)
    if any(character in "".join([target, *kept.values()]) for character in "\r\n\0"):
        raise ValueError("a line end in a request")
    return f"{text}\r\n\r\n".encode("latin-1")


def read_head(data: bytes) -> tuple[int, str, Headers]:
    """Status, reason and headers of an answer, up to its empty line."""
    first, *lines = data.decode("latin-1").split("\r\n")
    _, status, *reason = first.split(" ", 2)
    found = [(line.partition(":")[0].strip(), line.partition(":")[2].strip()) for line in lines if line]
    return int(status), "".join(reason), [each for each in found if each[0].lower() not in NOT_PASSED_BACK]


def ask(inside: Inside, target: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Status and body of one answer, read whole."""
    with contextlib.closing(inside.connect()) as connection:
        connection.sendall(request("GET", target, list(headers.items())))
        pieces = []
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    return read_head(head)[0], body
