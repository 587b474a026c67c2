"""Opens a recording: an SQLite file that may be damaged, another user's, or under a process that writes it.

DESIGN  What is read is a file of this process's user, or else a private copy. A stranger's file cannot be shortened
under us then, nor be switched to a mode in which SQLite maps it into memory. The tables are asked, never the views:
what a view runs is the file's choice. Every error of SQLite's is memwatch.Error.

The system drops a process's locks on a file when the process closes it, whoever had opened it. So all recordings that
are open share one descriptor for each file, and the last one closes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import struct
import tempfile
import threading
from pathlib import Path
from typing import Any, Iterator, Optional

from memwatch._errors import Error, printable

APPLICATION, VERSION = 0x6D656D77, 2
OWNER_BYTE = 0x40000000 + 1024  # the process that records has it locked
COPY_MAX_BYTES = 1 << 32
WAIT_S = 10.0
TABLES = {"runs", "variables", "locations", "frames", "writers", "changes", "patches", "details", "bases", "losses"}
_DAMAGE = (sqlite3.Error, UnicodeDecodeError)  # the second, where SQLite's sentence quotes damaged bytes


class RecordingFile:
    """An open recording. Any thread may ask it, one at a time; no forked child."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._moment = threading.RLock()
        self._moments = 0  # that this thread is inside
        self._pid = os.getpid()
        self._copy: Optional[tempfile.TemporaryDirectory[str]] = None
        self._connection: Optional[sqlite3.Connection] = None
        self._file = _open(path)
        try:
            self._check_header()
            if self._needs_copy():
                self._copy = tempfile.TemporaryDirectory(prefix="memwatch-")
                _copy_files(path, self._copy.name)
            self._connect()
        except BaseException:
            self.close()
            raise

    def _check_header(self) -> None:
        header = os.pread(self._file, 100, 0)
        application, version = (int.from_bytes(header[at : at + 4], "big") for at in (68, 60))
        if not header.startswith(b"SQLite format 3\0") or application != APPLICATION:
            raise Error(errno.EPROTO, f"{self.path} is no recording")
        if version > VERSION:
            raise Error(errno.EPROTO, f"{self.path} was recorded by a newer memwatch: update this one to read it")

    def _needs_copy(self) -> bool:
        """Another user's file; one in WAL mode; one whose last commit has to be undone where we may not write."""
        owner, me = os.fstat(self._file).st_uid, getattr(os, "geteuid", lambda: 0)()
        is_ours = owner in (me, 0)
        is_plain = os.pread(self._file, 2, 18) == b"\1\1"
        writable = os.access(self.path, os.W_OK) and os.access(os.path.dirname(self.path) or ".", os.W_OK)
        return not (is_ours and is_plain and (writable or not os.path.exists(self.path + "-journal")))

    def _connect(self) -> None:
        path = self.path if self._copy is None else os.path.join(self._copy.name, "recording")
        try:
            try:
                self._connection = _connect(path, "ro")
            except sqlite3.OperationalError:  # a commit that a kill interrupted: it is undone, by who may write
                self._connection = _connect(path, "rw")
            if self._connection.execute("PRAGMA page_count").fetchone()[0] == 0:
                raise Error(errno.EPROTO, f"{self.path} is no recording")
            self.version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            found = dict(self._connection.execute("SELECT name, type FROM sqlite_master").fetchall())
        except _DAMAGE as error:
            raise self._error(error) from None
        if "trigger" in found.values() or any(found.get(name) != "table" for name in TABLES):
            raise Error(errno.EPROTO, f"{self.path} is no recording: its tables are not those of one")

    def _error(self, error: Exception) -> Error:
        if "locked" in str(error):
            return Error(errno.EBUSY, f"{self.path} is being written: try again")
        return Error(errno.EBADMSG, f"{self.path} is damaged: {printable(str(error))}")

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        if os.getpid() != self._pid:
            raise Error(errno.ECHILD, "this recording was opened by the process that forked this one: open it again")
        with self._lock:
            if self._connection is None:
                raise ValueError("the recording is closed")
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except (*_DAMAGE, OverflowError) as error:
                raise self._error(error) from None

    def row(self, sql: str, *parameters: Any) -> Optional[tuple[Any, ...]]:
        """The first row, if there is one."""
        found = self.rows(sql, *parameters)
        return found[0] if found else None

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        """Queries in here see the same commit. One thread at a time, as often inside as it likes."""
        with self._moment:
            if not self._moments:
                self.rows("BEGIN")
            self._moments += 1
            try:
                yield
            finally:
                self._moments -= 1
                if not self._moments:
                    self.rows("COMMIT")

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file."""
        return [str(row[0]) for row in self.rows("PRAGMA quick_check") if row[0] != "ok"]

    def is_written(self) -> bool:
        """Whether a process records to it now."""
        if self._copy is not None:
            return False
        try:
            import fcntl

            lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, OWNER_BYTE, 1, 0)
            answer = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, lock)
            return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)
        except (ImportError, AttributeError, OSError):
            return False

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._connection is None

    def close(self) -> None:
        """Twice is allowed. In a forked child the files stay as they are: closing would be the parent's."""
        with self._lock:
            connection, self._connection = self._connection, None
            if os.getpid() != self._pid:
                return
            if connection is not None:
                connection.close()
            if self._file >= 0:
                _close(self._file)
                self._file = -1
            if self._copy is not None:
                self._copy.cleanup()
                self._copy = None


_descriptors: dict[tuple[int, int], list[int]] = {}  # by device and inode: a descriptor, and how many have it
_descriptors_lock = threading.Lock()


def _open(path: str) -> int:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    with _descriptors_lock:
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            shared = _descriptors.get((status.st_dev, status.st_ino))
            if shared is None:
                file = os.open(path, flags)
                status = os.fstat(file)
                shared = _descriptors.setdefault((status.st_dev, status.st_ino), [file, 0])
        except OSError as error:
            raise Error(error.errno, f"{path} cannot be opened: {error.strerror}") from None
        shared[1] += 1
        return shared[0]


def _close(file: int) -> None:
    with _descriptors_lock:
        status = os.fstat(file)
        shared = _descriptors[status.st_dev, status.st_ino]
        shared[1] -= 1
        if not shared[1]:
            del _descriptors[status.st_dev, status.st_ino]
            os.close(file)


def _text(data: bytes) -> str:
    """Names of regions and of threads have any bytes."""
    return data.decode("utf-8", "surrogateescape")


def _connect(path: str, mode: str) -> sqlite3.Connection:
    uri = f"{Path(os.path.abspath(path)).as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    try:
        for pragma in ("trusted_schema=OFF", "mmap_size=0", "query_only=ON", "cell_size_check=ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _copy_files(path: str, directory: str) -> None:
    """The file with what SQLite keeps beside it, as "recording"."""
    for end in ("", "-journal", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path + end).st_size > COPY_MAX_BYTES:
                raise Error(errno.EFBIG, f"{path}{end} is larger than a recording ever is")
            shutil.copyfile(path + end, os.path.join(directory, "recording" + end))
