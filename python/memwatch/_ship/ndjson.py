"""A file of lines: each record a line of JSON, on the disk before it counts as delivered.

What a crash left of a last line is cut off when the file is opened again: it was never acknowledged, and comes again.
A last line of somebody else stays, and has its end put behind it.
"""

from __future__ import annotations

import os
import threading
from typing import Optional

from memwatch._ship.files import open_own, sync_directory
from memwatch._ship.numbers import Numbers
from memwatch._ship.record import Origin, Record
from memwatch._ship.retry import Waiting
from memwatch._ship.sink import Say

BLOCK = 1 << 16
BEGIN = b'{"id"'


class Ndjson:
    """One file, which is appended to. It is opened anew where it was moved away, as logrotate does."""

    def __init__(self, path: str, numbers: Numbers, say: Say) -> None:
        self._path, self._numbers, self._say = path, numbers, say
        self._mutex = threading.Lock()
        self._descriptor = self._open()

    def _open(self) -> int:
        descriptor = open_own(self._path, os.O_RDWR | os.O_APPEND)
        try:
            self._cut_torn_line(descriptor)
            sync_directory(os.path.dirname(self._path))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    @staticmethod
    def _cut_torn_line(descriptor: int) -> None:
        end = size = os.fstat(descriptor).st_size
        while end > 0:
            begin = max(end - BLOCK, 0)
            at = os.pread(descriptor, end - begin, begin).rfind(b"\n")
            if at >= 0:
                end = begin + at + 1
                break
            end = begin
        if end == size:
            return
        first = os.pread(descriptor, len(BEGIN), end)
        if BEGIN.startswith(first) or not first.strip(b"\0"):  # or what was never written, after a crash of the machine
            os.ftruncate(descriptor, end)
        else:
            os.write(descriptor, b"\n")

    def close(self) -> None:
        """All is on the disk by now."""
        os.close(self._descriptor)

    def send(self, origin: Origin, records: list[Record], stop: threading.Event, give_up_s: Optional[float]) -> None:
        """Appends them; a disk that is full is tried again."""
        lines = b"".join(record.line(origin) + b"\n" for record in records)
        waiting = Waiting(stop, give_up_s)
        while True:
            try:
                with self._mutex:
                    self._append(lines)
                return
            except OSError as error:
                sentence = f"{self._path}: {error.strerror}"
            self._numbers.failed("unreachable", sentence)
            self._numbers.add("retries")
            self._say(sentence)
            waiting.pause(sentence)

    def _append(self, lines: bytes) -> None:
        self._follow_rename()
        before = os.fstat(self._descriptor).st_size
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, before)  # a part of a line helps nobody
            raise

    def _follow_rename(self) -> None:
        ours = os.fstat(self._descriptor)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            descriptor = self._open()
            os.close(self._descriptor)
            self._descriptor = descriptor
