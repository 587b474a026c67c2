"""The events of all workers as one stream, with numbers of the hub's own.

DESIGN  One upstream stream a worker, however many clients there are, and none while there is no client. The newest
lines are kept, so that a client that lost its connection goes on where it was; what left them meanwhile is a gap, which
is told. A slow client is a number in the ring: it holds nobody up. Lines of workers are passed on as they are, with
`service`, `worker` and `epoch` put in at their end.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from fnmatch import fnmatchcase
from typing import AsyncIterator, Iterable, NamedTuple, Optional

from memwatch._hub.upstream import Gone, Late
from memwatch._hub.workers import Worker, Workers

KEPT = 10_000
LINGER_S = 30.0
AGAIN_S = 0.5
HEARTBEAT_S = 15.0
NDJSON = "application/x-ndjson"


class Line(NamedTuple):
    """One event of one worker."""

    seq: int
    kind: str
    service: str
    worker: str
    data: bytes


class Wish(NamedTuple):
    """What a client wants."""

    since: Optional[int]
    epoch: Optional[str]
    names: list[str]
    services: list[str]
    workers: list[str]

    def takes(self, line: Line) -> bool:
        """Whether the line is one of those."""
        if self.services and line.service not in self.services:
            return False
        if self.workers and line.worker not in self.workers:
            return False
        if not self.names or line.kind != "change":
            return True
        name = json.loads(line.data).get("name")
        return isinstance(name, str) and any(fnmatchcase(name, glob) for glob in self.names)


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels them until all have ended: before 3.12, `wait_for` forgets a cancel that meets what it waits for."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)


class Stream:
    """The hub's log. On the event loop only."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.epoch = secrets.token_hex(8)
        self.newest = 0
        self._lines: deque[Line] = deque(maxlen=KEPT)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._more = asyncio.Event()
        self.n_clients = 0
        self._idle_since = 0.0

    def tend(self) -> None:
        """Every second: follows who has come, while anybody listens."""
        wanted = self.n_clients > 0 or time.monotonic() - self._idle_since < LINGER_S
        for key in [key for key, task in self._tasks.items() if task.done() or not wanted]:
            self._tasks.pop(key).cancel()
        for key, worker in self._workers.workers.items() if wanted else ():
            if key not in self._tasks:
                self._tasks[key] = asyncio.ensure_future(self._follow(worker))

    async def close(self) -> None:
        """Ends what runs."""
        await end(self._tasks.values())
        self._tasks.clear()

    async def _follow(self, worker: Worker) -> None:
        """Reads one worker's stream until the worker is gone."""
        path = "/api/v1/events/stream?since=latest"
        while worker.key in self._workers.workers:
            try:
                connection, answer = await worker.upstream.get(path, {"Accept": NDJSON})
            except (Gone, Late):
                await asyncio.sleep(AGAIN_S)
                continue
            try:
                if answer.status == 200:
                    seq = await self._read(worker, answer.body())
                    path = f"/api/v1/events/stream?since={seq}&epoch={worker.key}" if seq is not None else path
            except (OSError, EOFError, ValueError, asyncio.IncompleteReadError):
                pass
            finally:
                connection.close()
            await asyncio.sleep(AGAIN_S)

    async def _read(self, worker: Worker, body: AsyncIterator[bytes]) -> Optional[int]:
        rest, seq = b"", None
        try:
            async for piece in body:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    seq = self._take(worker, line) or seq
                self._more.set()
                self._more = asyncio.Event()
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass
        return seq

    def _take(self, worker: Worker, line: bytes) -> Optional[int]:
        """A line of a worker; the seq that it is at."""
        if not line.startswith(b"{") or not line.endswith(b"}"):
            return None
        kind = "change"
        if line.startswith(b'{"kind"'):
            said = json.loads(line)
            kind = str(said.get("kind"))
            if kind == "bookmark":
                return said.get("seq")  # type: ignore[no-any-return]
        place = worker.place
        more = json.dumps({"service": place.service, "worker": place.worker}).encode()[1:]
        if b'"epoch"' not in line[:80]:
            more = b'"epoch":"' + worker.key.encode() + b'",' + more
        self.newest += 1
        self._lines.append(Line(self.newest, kind, place.service, place.worker, line[:-1] + b"," + more))
        if kind != "change":
            return None
        start = line.find(b'"seq":') + 6
        return int(line[start : line.find(b",", start)])

    # --- clients ------------------------------------------------------------------------------------------------------

    async def pieces(self, wish: Wish, *, lines: bool) -> AsyncIterator[bytes]:
        """What a client is sent: Server-Sent Events, or lines."""
        self.n_clients += 1
        try:
            self.tend()
            at, first = self._begin(wish)
            yield _event(self, "reset", at, first, lines) if first else (b"" if lines else b"retry: 2000\n\n")
            while True:
                more, newest = self._more, self.newest
                oldest = self._lines[0].seq if self._lines else newest + 1
                if at + 1 < oldest and at < newest:
                    said = {"kind": "gap", "epoch": self.epoch, "from": at + 1, "to": oldest - 1}
                    yield _event(self, "gap", oldest - 1, {**said, "missed": oldest - 1 - at}, lines)
                    at = oldest - 1
                taken = [line for line in self._after(at) if wish.takes(line)]
                if taken:
                    yield b"".join(_shown(self, line, lines) for line in taken)
                at = newest
                if self.newest == newest:
                    try:
                        await asyncio.wait_for(more.wait(), HEARTBEAT_S)
                    except TimeoutError:
                        yield _heartbeat(self, at, lines)
        finally:
            self.n_clients -= 1
            self._idle_since = time.monotonic()

    def _begin(self, wish: Wish) -> tuple[int, dict[str, object]]:
        """Where it goes on, and a reset when its numbers are another hub's."""
        if wish.epoch is not None and (wish.epoch != self.epoch or (wish.since or 0) > self.newest):
            oldest = self._lines[0].seq if self._lines else self.newest + 1
            return oldest - 1, {"kind": "reset", "epoch": self.epoch, "oldest": oldest, "newest": self.newest}
        return (self.newest if wish.since is None else min(wish.since, self.newest)), {}

    def _after(self, seq: int) -> list[Line]:
        if not self._lines or seq >= self.newest:
            return []
        return [line for line in self._lines if line.seq > seq]


def _shown(stream: Stream, line: Line, lines: bool) -> bytes:
    if lines:
        return line.data + b"\n"
    return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (stream.epoch.encode(), line.seq, line.kind.encode(), line.data)


def _event(stream: Stream, kind: str, seq: int, said: dict[str, object], lines: bool) -> bytes:
    return _shown(stream, Line(seq, kind, "", "", json.dumps(said).encode()), lines)


def _heartbeat(stream: Stream, seq: int, lines: bool) -> bytes:
    if lines:
        return json.dumps({"kind": "bookmark", "epoch": stream.epoch, "seq": seq}).encode() + b"\n"
    return b": heartbeat\nid: %s-%d\n\n" % (stream.epoch.encode(), seq)
