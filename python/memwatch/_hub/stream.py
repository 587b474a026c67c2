"""The events of all workers as one stream, with numbers of the hub's own.

DESIGN  One upstream stream a worker, however many clients there are, and none while there is no client. Where it was
in each is kept: a client that comes back after that gets what the workers have kept, or their gap. The newest lines are
kept, so that a client that lost its connection goes on where it was; what left them meanwhile is a gap, which is told.
A slow client is a number in the ring: it holds nobody up. Lines of workers are passed on as they are, with `epoch`,
`service` and `worker` put in at their end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections import deque
from fnmatch import fnmatchcase
from itertools import islice
from typing import AsyncIterator, Iterable, NamedTuple, Optional

from memwatch._hub.upstream import BROKEN, SILENCE_S, Gone, Late
from memwatch._hub.workers import Worker, Workers

KEPT = 10_000
LINGER_S = 30.0
AGAIN_S = 0.5
HEARTBEAT_S = 15.0
REACH_S = 3.0
PLACES = 1000
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


class Place:
    """Where the hub is in one worker's stream."""

    def __init__(self, seq: Optional[int], from_ms: Optional[int]) -> None:
        self.seq = seq
        """All up to it is in the hub's log; None: nothing is yet, and it begins with what comes."""
        self.from_ms = from_ms
        """Before the first event: what is older is none of this log's."""
        self.reached = asyncio.Event()
        """The worker has said where its stream begins."""

    def query(self, epoch: str) -> str:
        """The parameters that go on from there."""
        if self.seq is None:
            return "since=latest"
        since = f"since={self.seq}&epoch={epoch}"
        return since if self.from_ms is None else f"{since}&from_ms={self.from_ms}"


class Stream:
    """The hub's log. On the event loop only."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.n_clients = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._idle_since = float("-inf")
        self._begin_log()

    def _begin_log(self) -> None:
        """Numbers from 1 on, and what comes from now on. Who has numbers of another log is told by a reset."""
        self.epoch = secrets.token_hex(8)
        self.newest = 0
        self._lines: deque[Line] = deque(maxlen=KEPT)
        self._more = asyncio.Event()
        self._places: dict[str, Place] = {}
        """By the workers' epochs."""
        self._since_ms: Optional[int] = None
        """Since when it follows; None: it does not yet."""

    @property
    def _is_wanted(self) -> bool:
        return self.n_clients > 0 or time.monotonic() - self._idle_since < LINGER_S

    def tend(self) -> None:
        """Every second: follows who has come, while anybody listens."""
        wanted = self._is_wanted
        for key in [key for key, task in self._tasks.items() if task.done() or not wanted]:
            self._tasks.pop(key).cancel()
        if wanted:
            self._follow_all()

    def _follow_all(self) -> None:
        """Of a worker that comes while somebody listens all events count, also those from before it was found."""
        for key, worker in self._workers.workers.items():
            if key not in self._places:
                late = self._since_ms is not None
                self._places[key] = Place(0 if late else None, self._since_ms if late else None)
            if key not in self._tasks:
                self._tasks[key] = asyncio.ensure_future(self._follow(worker, self._places[key]))
        if self._since_ms is None:
            self._since_ms = time.time_ns() // 1_000_000
        self._forget_places()

    def _forget_places(self) -> None:
        """Of workers that are gone, but the newest: one that was taken for dead goes on where it was."""
        gone = [key for key in self._places if key not in self._workers.workers and key not in self._tasks]
        for key in gone[:-PLACES]:
            del self._places[key]

    async def join(self, wish: Wish) -> None:
        """Before a client is answered: what is written after that is in the stream.

        While nobody listened nobody read. For who goes on from a number of this log that is read now. For others the
        log begins anew.
        """
        if not self._is_wanted and (wish.since is None or not self._knows(wish)):
            self._begin_log()
        self._idle_since = time.monotonic()
        self.tend()
        waits = [asyncio.ensure_future(self._places[key].reached.wait()) for key in self._workers.workers]
        if waits:
            _, late = await asyncio.wait(waits, timeout=REACH_S)
            for each in late:
                each.cancel()

    async def close(self) -> None:
        """Ends what runs."""
        await end(self._tasks.values())
        self._tasks.clear()

    async def _follow(self, worker: Worker, place: Place) -> None:
        """Reads one worker's stream until the worker is gone."""
        while self._is_mine(worker):
            with contextlib.suppress(Gone, Late, *BROKEN, TimeoutError):
                await self._follow_once(worker, place)
            if place.seq is None:  # what it writes until it answers counts
                place.seq, place.from_ms = 0, self._since_ms
            await asyncio.sleep(AGAIN_S)

    def _is_mine(self, worker: Worker) -> bool:
        """Whether the task that runs is to go on: before 3.12 one that was cancelled may not have noticed."""
        is_there = self._workers.workers.get(worker.key) is worker
        return is_there and self._tasks.get(worker.key) is asyncio.current_task()

    async def _follow_once(self, worker: Worker, place: Place) -> None:
        path = f"/api/v1/events/stream?{place.query(worker.key)}"
        connection, answer = await worker.upstream.get(path, {"Accept": NDJSON})
        try:
            if answer.status == 200:
                await self._read(worker, place, answer.body())
        finally:
            connection.close()

    async def _read(self, worker: Worker, place: Place, body: AsyncIterator[bytes]) -> None:
        rest, pieces = b"", body.__aiter__()
        while True:
            try:
                piece = await asyncio.wait_for(pieces.__anext__(), SILENCE_S)
            except StopAsyncIteration:
                return
            if not self._is_mine(worker):
                return
            *lines, rest = (rest + piece).split(b"\n")
            before = self.newest
            try:
                for line in lines:
                    self._take(worker, place, line)
            finally:
                if self.newest != before:
                    self._more.set()
                    self._more = asyncio.Event()

    def _take(self, worker: Worker, place: Place, line: bytes) -> None:
        """A line of a worker."""
        if not line.startswith(b"{") or not line.endswith(b"}"):
            return
        if not line.startswith(b'{"kind"'):
            start = line.find(b'"seq":') + 6
            place.seq, place.from_ms = int(line[start : line.find(b",", start)]), None
            self._append(worker, "change", line, epoch=True)
            return
        said = json.loads(line)
        kind = str(said.get("kind"))
        if kind == "bookmark":
            place.seq = int(said["seq"])
            place.reached.set()
            return
        if kind == "gap":
            place.seq, place.from_ms = int(said["to"]), None
            self._append(worker, kind, line, epoch=False)

    def _append(self, worker: Worker, kind: str, line: bytes, *, epoch: bool) -> None:
        """To the log, with the worker's names behind it, and its epoch where the line has none."""
        service, name = worker.place.service, worker.place.worker
        members = {**({"epoch": worker.key} if epoch else {}), "service": service, "worker": name}
        more = json.dumps(members, separators=(",", ":")).encode()
        self.newest += 1
        self._lines.append(Line(self.newest, kind, service, name, line[:-1] + b"," + more[1:]))

    # --- clients ------------------------------------------------------------------------------------------------------

    async def pieces(self, wish: Wish, *, lines: bool) -> AsyncIterator[bytes]:
        """What a client is sent: Server-Sent Events, or lines. The caller has joined."""
        self.n_clients += 1
        try:
            self.tend()
            at, first = self._begin(wish)
            begin = _event(self, "reset", at, first, lines) if first else _heartbeat(self, at, lines)
            yield begin if lines else b"retry: 2000\n\n" + begin
            beat = time.monotonic() + HEARTBEAT_S
            while True:
                more = self._more
                piece, at = self._next(wish, at, lines)
                if piece:
                    yield piece
                    beat = time.monotonic() + HEARTBEAT_S
                elif time.monotonic() >= beat:
                    yield _heartbeat(self, at, lines)
                    beat = time.monotonic() + HEARTBEAT_S
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(more.wait(), max(beat - time.monotonic(), 0))
        finally:
            self.n_clients -= 1
            self._idle_since = time.monotonic()

    def _next(self, wish: Wish, at: int, lines: bool) -> tuple[bytes, int]:
        """All that there is behind `at`: what left the log as a gap, then the lines. And where the client is then."""
        pieces = []
        oldest = self._lines[0].seq if self._lines else self.newest + 1
        if at + 1 < oldest:
            said = {"kind": "gap", "epoch": self.epoch, "from": at + 1, "to": oldest - 1, "missed": oldest - 1 - at}
            pieces.append(_event(self, "gap", oldest - 1, said, lines))
        pieces += [_shown(self, line, lines) for line in self._after(at) if wish.takes(line)]
        return b"".join(pieces), self.newest

    def _knows(self, wish: Wish) -> bool:
        """Whether its number is one of this log's."""
        return wish.epoch in (None, self.epoch) and (wish.since or 0) <= self.newest

    def _begin(self, wish: Wish) -> tuple[int, dict[str, object]]:
        """Where it goes on, and a reset when its numbers are another log's."""
        if not self._knows(wish):
            oldest = self._lines[0].seq if self._lines else self.newest + 1
            return oldest - 1, {"kind": "reset", "epoch": self.epoch, "oldest": oldest, "newest": self.newest}
        return self.newest if wish.since is None else wish.since, {}

    def _after(self, seq: int) -> list[Line]:
        if seq >= self.newest:
            return []
        return list(islice(self._lines, max(len(self._lines) - (self.newest - seq), 0), None))


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
