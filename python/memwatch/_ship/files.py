"""Files that a shipper writes: never through a link, and never into what another user owns or can write."""

from __future__ import annotations

import contextlib
import errno
import os
import stat


def open_own(path: str, flags: int) -> int:
    """Opens it, or makes it for this user alone. OSError when it is not this user's alone."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    info = os.fstat(descriptor)
    wrong = ""
    if not stat.S_ISREG(info.st_mode):
        wrong = "is no regular file"
    elif info.st_uid != os.geteuid():
        wrong = "belongs to another user"
    elif info.st_nlink != 1:
        wrong = "has other names"
    elif info.st_mode & 0o022:
        wrong = "can be written by others: chmod go-w"
    if wrong:
        os.close(descriptor)
        raise OSError(errno.EPERM, wrong, path)
    return descriptor


def replace(path: str, text: str, *, mode: int, synced: bool) -> None:
    """The file holds the text, or what it held before."""
    beside = f"{path}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)  # of one that had our number and was killed; or a link that waits for us
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if synced:
                os.fsync(descriptor)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    if synced:
        sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """The names in a directory are on the disk."""
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
