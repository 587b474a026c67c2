"""A watcher that was found: what the file says that its exporter leaves while it serves.

DESIGN  A file is believed only if it is of the user who may read it, as its directory is. Whether what answers has
the epoch that it says is asked by `client.knock`: after a crash the file stays, and the port may be anybody's.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any, Iterator, NamedTuple, Optional
from urllib.parse import urlsplit

from memwatch._cli.processes import my_uid, pid_seen_from_here

FILE_BYTES = 16 * 1024
FILES = 1000


class Found(NamedTuple):
    """What a discovery file says, and where it lies."""

    pid: int
    """As this process sees it; 0 when it is not to be seen from here."""
    service: str
    worker: str
    url: str
    """Where it listens, as it sees it; "" on a Unix socket."""
    port: int
    unix_socket: str
    token: str
    epoch: str
    file: str
    container: int
    """A process in whose network and mounts it lives; 0: in ours."""
    said: dict[str, Any]
    """All that the file says."""

    @property
    def address(self) -> str:
        """For people."""
        return self.url or self.unix_socket

    @property
    def host(self) -> str:
        """Where to connect to: an exporter that listens everywhere says so, and is reached here."""
        host = urlsplit(self.url).hostname or "localhost"
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)

    @property
    def host_header(self) -> str:
        """What it takes for its name in a request."""
        if self.unix_socket:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def title(self) -> str:
        """service, service/worker, or the process alone."""
        name = "/".join(part for part in (self.service, self.worker) if part)
        return f"{name}[{self.pid or self.said['pid']}]"


def at_address(url: str) -> Found:
    """A watcher that was named by its address, with MEMWATCH_TOKEN; it says itself what it is."""
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    name = f"{address.hostname}:{port}"
    token = os.environ.get("MEMWATCH_TOKEN", "")
    said = {"pid": 0, "epoch": ""}
    return Found(0, name, "", f"{address.scheme}://{address.netloc}/", port, "", token, "", "", 0, said)


def runtime_dirs() -> list[str]:
    """Where exporters of this user leave their files."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    found = [f"/tmp/memwatch-{my_uid()}"]
    if base.startswith("/") and os.path.isdir(base) and is_ours(os.stat(base), 0o022):
        found.insert(0, f"{base}/memwatch")
    return found


def runtime_dir() -> str:
    """Where the next exporter of this user leaves its file."""
    return runtime_dirs()[0]


def is_ours(info: os.stat_result, others: int) -> bool:
    """Whether it is this user's, and others have no such rights."""
    return info.st_uid == my_uid() and not info.st_mode & others


def read_file(directory: int, name: str) -> Optional[dict[str, Any]]:
    """What a file of ours says. A link, a pipe, a file of others or of many names says nothing."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        info, owner = os.fstat(descriptor), os.fstat(directory).st_uid
        regular = stat.S_ISREG(info.st_mode) and info.st_nlink == 1
        if not regular or info.st_uid != owner or info.st_mode & 0o077:
            return None
        said = json.loads(file.read(FILE_BYTES))
    return said if _is_whole(said) else None


def _is_whole(said: Any) -> bool:
    if not isinstance(said, dict) or not isinstance(said.get("pid"), int) or not isinstance(said.get("epoch"), str):
        return False
    if isinstance(said.get("url"), str):
        urlsplit(said["url"]).port  # ValueError: it is no address  # noqa: B018
    port, path = said.get("port"), said.get("unix_socket")
    return (type(port) is int and 0 < port < 65536) or (port in (0, None) and isinstance(path, str))


def found_by(said: dict[str, Any], file: str, container: int) -> Found:
    def text(key: str) -> str:
        value = said.get(key)
        return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""

    pid = pid_seen_from_here(said["pid"], container) if container else said["pid"]
    return Found(
        pid=pid,
        service=text("service"),
        worker=text("worker"),
        url=text("url"),
        port=said.get("port") or 0,
        unix_socket=text("unix_socket"),
        token=text("token"),
        epoch=said["epoch"],
        file=file,
        container=(pid or container) if container else 0,
        said=said,
    )


def in_directory(path: str, container: int, words: list[str], anybody: bool) -> Iterator[Found]:
    """What the files of one directory say; `words` gets what a user should know.

    `anybody`: another user's, too, where we may read it. What is in it is told to nobody but that user's own exporter.
    """
    if my_uid() < 0:
        return
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        info = os.fstat(directory)
        if (not anybody and info.st_uid != my_uid()) or info.st_mode & 0o077:
            words.append(f"{path} belongs to somebody else, or others may enter it: not read")
            return
        for name in sorted(name for name in os.listdir(directory) if name.endswith(".json"))[:FILES]:
            try:
                said = read_file(directory, name)
            except (OSError, ValueError, RecursionError):
                continue  # it ended, or is none of ours
            if said is not None:
                yield found_by(said, os.path.join(path, name), container)
    finally:
        os.close(directory)
