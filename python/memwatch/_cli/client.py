"""Asks an exporter: one connection, its token, its errors as sentences.

DESIGN  A watcher in a container is asked from within its network: a thread enters that for as long as it takes to
make the socket, which stays there. Certificates of exporters on this machine are mostly made by their owners and
are not checked: the epoch that the discovery file says proves who answers, and only then is the token told. Of an
address that was typed the certificate is checked.
"""

from __future__ import annotations

import ctypes
import enum
import http.client
import json
import os
import socket
import ssl
import threading
from typing import Any, Iterator
from urllib.parse import quote, urlencode, urlsplit

from memwatch._cli.found import Found
from memwatch._cli.frame import Failure
from memwatch._cli.processes import namespace

ASK_S = 2.0
ANSWER_S = 30.0
ERROR_BYTES = 16 * 1024
LINE_BYTES = 64 << 20
BROKEN = (OSError, ValueError, RecursionError, http.client.HTTPException)
_CLONE_NEWNET = 0x40000000


class Refused(Failure):
    """The exporter's own answer: its sentence and its status."""

    def __init__(self, status: int, sentence: str, body: dict[str, Any]) -> None:
        super().__init__(sentence)
        self.status = status
        self.body = body


class Gone(Failure):
    """Nobody answers any more."""


class Answer(enum.Enum):
    """Who answers where a file says that a watcher is."""

    ITSELF = 1
    NOBODY = 2
    NOT_NOW = 3


def _in_network_of(pid: int, make: Any) -> socket.socket:
    """Makes a socket in the network of another process."""
    made: list[socket.socket] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(descriptor, _CLONE_NEWNET) < 0:
                    error = ctypes.get_errno()
                    raise OSError(error, f"the network of process {pid} cannot be entered: {os.strerror(error)}")
            finally:
                os.close(descriptor)
            made.append(make())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket that is ours to make."""

    def __init__(self, found: Found, timeout: float) -> None:
        address = urlsplit(found.url)
        self._found, self._tls = found, address.scheme == "https"
        host = found.host
        super().__init__(host, found.port or 80, timeout=timeout)

    def connect(self) -> None:
        foreign = self._found.container
        if foreign and namespace(foreign, "net") != namespace("self", "net") and not self._found.unix_socket:
            self.sock = _in_network_of(foreign, self._make)
        else:
            self.sock = self._make()
        if self._tls:
            known = bool(self._found.epoch)
            context = ssl._create_unverified_context() if known else ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=None if known else self.host)

    def _make(self) -> socket.socket:
        if not self._found.unix_socket:
            return socket.create_connection((self.host, self.port), self.timeout)
        root = f"/proc/{self._found.container}/root" if self._found.container else ""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(self.timeout)
        made.connect(root + self._found.unix_socket)
        return made


def knock(found: Found) -> Answer:
    """Who answers there? The epoch is no secret: whoever has the port is not told the token."""
    try:
        connection = _Connection(found, ASK_S)
        try:
            connection.request("HEAD", "/-/healthy", headers={"Host": found.host_header})
            same = connection.getresponse().headers.get("Memwatch-Epoch") == found.epoch
            return Answer.ITSELF if same else Answer.NOBODY
        finally:
            connection.close()
    except (ConnectionRefusedError, FileNotFoundError):
        return Answer.NOBODY
    except BROKEN:
        return Answer.NOT_NOW


class Client:
    """One exporter."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self._connection = _Connection(found, ANSWER_S)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, path: str, query: Any, accept: str) -> http.client.HTTPResponse:
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        headers = {"Host": self.found.host_header, "Accept": accept}
        if self.found.token:
            headers["Authorization"] = f"Bearer {self.found.token}"
        try:
            for again in (True, False):
                try:
                    self._connection.request("GET", target, headers=headers)
                    answer = self._connection.getresponse()
                    break
                except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                    self._connection.close()  # it had closed an idle connection; once more on a new one
                    if not again:
                        raise
        except BROKEN as error:
            self._connection.close()
            raise Gone(f"{self.found.title} at {self.found.address} does not answer: {error}") from None
        if answer.status >= 400:
            self._refuse(answer)
        return answer

    def _refuse(self, answer: http.client.HTTPResponse) -> None:
        try:
            body = answer.read(ERROR_BYTES)
        except BROKEN as error:
            self._connection.close()
            raise Gone(f"{self.found.title} broke off: {error}") from None
        try:
            said = json.loads(body)
            sentence = said["error"]
        except (ValueError, KeyError, TypeError):
            said, sentence = {}, body.decode("utf-8", "replace").strip()[:200] or answer.reason
        raise Refused(answer.status, f"{self.found.title}: {sentence}", said)

    def bytes(self, path: str, **query: Any) -> bytes:
        """The answer as it is."""
        answer = self._ask(path, _given(query), "*/*")
        try:
            return answer.read()
        except BROKEN as error:
            self._connection.close()
            raise Gone(f"{self.found.title} broke off: {error}") from None

    def json(self, path: str, **query: Any) -> dict[str, Any]:
        """The answer as an object."""
        try:
            said = json.loads(self.bytes(path, **query))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise Failure(f"{self.found.title} at {self.found.address} answers what is no JSON: is that memwatch?")
        return said

    def regions(self) -> Iterator[dict[str, Any]]:
        """All that is watched, page by page."""
        after = None
        while True:
            page = self.json("/api/v1/regions", limit=1000, **({"continue": after} if after else {}))
            yield from page["regions"]
            after = page.get("next")
            if not after:
                return

    def lines(self, path: str, silence_s: float, **query: Any) -> Iterator[dict[str, Any]]:
        """A stream of lines, each an object, until it ends. `Gone` after such a silence."""
        answer = self._ask(path, _given(query), "application/x-ndjson")
        if self._connection.sock is not None:
            self._connection.sock.settimeout(silence_s)
        try:
            while line := answer.readline(LINE_BYTES):
                if line.strip():
                    yield json.loads(line)
        except BROKEN as error:
            raise Gone(f"{self.found.title} broke off: {error}") from None
        finally:
            answer.close()
            self._connection.close()


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value is not None}


def region_path(region: dict[str, Any], what: str) -> str:
    """Of the address of a region's history, value or blame."""
    return f"/api/v1/regions/{quote(str(region['region_id']))}/{what}"
