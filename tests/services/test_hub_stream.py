"""The merged stream, over workers that are played: nothing is left out in silence, and nothing comes twice."""

import asyncio
import contextlib
import json
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from memwatch._hub import stream as streams
from memwatch._hub.access import Headers, Refusal
from memwatch._hub.server import Request, _wish
from memwatch._hub.stream import Stream, Wish
from memwatch._hub.upstream import Late

ALL = Wish(None, None, [], [], [])
LIMIT_S = 20


class Played:
    """A worker and its exporter's stream: of what was written, what is after `since`."""

    def __init__(self, epoch, *, beat_s=LIMIT_S):
        self.key = epoch
        self.place = SimpleNamespace(service="shop", worker=epoch)
        self.upstream = self
        self.events = []
        self.beat_s = beat_s
        self.asked = []
        self.stopped = self.breaks = False
        self.more = asyncio.Event()

    def write(self, n=1):
        """So many events."""
        self.events += [{"schema": 2, "seq": len(self.events) + at, "name": "a"} for at in range(1, n + 1)]
        self.more.set()
        self.more = asyncio.Event()

    async def get(self, path, headers):
        """The exporter's answer, which never ends by itself."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        self.asked.append(query)
        if self.stopped:
            raise Late
        since = len(self.events) if query["since"] == "latest" else int(query["since"])
        return self, SimpleNamespace(status=200, body=lambda: self.body(since))

    async def body(self, since):
        """Lines."""
        while True:
            said = [{"kind": "bookmark", "seq": since}, *self.events[since:]]
            since, more = len(self.events), self.more
            yield b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in said)
            if self.breaks:
                yield b'{"schema":2,"se'
                raise EOFError
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(more.wait(), self.beat_s)

    def close(self):
        """Of the connection."""


class Client:
    """Reads the merged stream as lines."""

    def __init__(self, stream, wish=ALL):
        self._stream, self._wish, self._said = stream, wish, []

    async def __aenter__(self):
        await self._stream.join(self._wish)
        self._pieces = self._stream.pieces(self._wish, lines=True)
        self.first = (await self.next())[0]
        return self

    async def __aexit__(self, *_):
        await self._pieces.aclose()

    async def next(self):
        """What comes next: kind, worker, seq."""
        while not self._said:
            piece = await asyncio.wait_for(anext(self._pieces), LIMIT_S)
            self._said = [json.loads(line) for line in piece.splitlines()]
        said = self._said.pop(0)
        return said.get("kind", "change"), said.get("worker"), said.get("seq")

    async def seqs(self, n):
        """Of so many events."""
        return [(worker, seq) for kind, worker, seq in [await self.next() for _ in range(n)] if kind == "change"]


def run(test):
    """Calls it with a stream over workers that it may change, as `tend` does every second."""

    async def within():
        workers = SimpleNamespace(workers={})
        stream = Stream(workers)
        try:
            await test(stream, workers.workers)
        finally:
            await stream.close()

    asyncio.run(within())


def come(workers, *played):
    """They are found."""
    workers.update({each.key: each for each in played})


async def idle(stream, monkeypatch):
    """Nobody has listened for long."""
    monkeypatch.setattr(streams, "LINGER_S", 0)
    stream.tend()
    monkeypatch.undo()
    stream._idle_since = float("-inf")


def test_what_is_written_after_the_answer_comes():
    async def test(stream, workers):
        one, two = Played("one"), Played("two")
        one.write(5)
        come(workers, one, two)
        async with Client(stream) as client:
            one.write()
            assert await client.seqs(1) == [("one", 6)]
            two.write()
            assert await client.seqs(1) == [("two", 1)]

    run(test)


def test_of_a_worker_that_comes_later_all_comes():
    async def test(stream, workers):
        async with Client(stream) as client:
            late = Played("late")
            late.write(3)
            come(workers, late)
            stream.tend()
            assert await client.seqs(3) == [("late", seq) for seq in (1, 2, 3)]
            assert late.asked[0]["since"] == "0"
            assert int(late.asked[0]["from_ms"]) > 0

    run(test)


def test_a_worker_that_hangs_at_first_is_read_from_where_it_was(monkeypatch):
    monkeypatch.setattr(streams, "AGAIN_S", 0.01)
    monkeypatch.setattr(streams, "REACH_S", 0.01)

    async def test(stream, workers):
        hangs = Played("hangs")
        hangs.stopped = True
        come(workers, hangs)
        async with Client(stream) as client:
            hangs.write(2)
            hangs.stopped = False
            assert await client.seqs(2) == [("hangs", 1), ("hangs", 2)]

    run(test)


def test_a_connection_that_breaks_loses_and_doubles_nothing(monkeypatch):
    monkeypatch.setattr(streams, "AGAIN_S", 0.01)

    async def test(stream, workers):
        one = Played("one")
        one.breaks = True
        come(workers, one)
        async with Client(stream) as client:
            while len(one.asked) < 3:  # broken before there was an event
                await asyncio.sleep(0.01)
            one.write(2)
            assert await client.seqs(2) == [("one", 1), ("one", 2)]
            asked = len(one.asked)
            while len(one.asked) < asked + 2:
                await asyncio.sleep(0.01)
            one.write()
            assert await client.seqs(1) == [("one", 3)]

    run(test)


async def come_and_go(stream, workers, monkeypatch):
    """A worker that wrote two events while a client listened, and two since; what the client would go on with."""
    one = Played("one")
    come(workers, one)
    async with Client(stream) as client:
        one.write(2)
        await client.seqs(2)
    wish = ALL._replace(since=stream.newest, epoch=stream.epoch)
    await idle(stream, monkeypatch)
    one.write(2)
    return one, wish


def test_who_comes_back_late_goes_on_where_he_was(monkeypatch):
    async def test(stream, workers):
        _, wish = await come_and_go(stream, workers, monkeypatch)
        new = Played("new")
        new.write()
        come(workers, new)
        async with Client(stream, wish) as client:
            assert sorted(await client.seqs(3)) == [("new", 1), ("one", 3), ("one", 4)]

    run(test)


def test_a_new_client_gets_nothing_old_and_who_comes_back_after_it_is_told(monkeypatch):
    async def test(stream, workers):
        one, wish = await come_and_go(stream, workers, monkeypatch)
        async with Client(stream) as client:
            one.write()
            assert await client.seqs(1) == [("one", 5)]
            async with Client(stream, wish) as old:
                assert old.first == "reset"

    run(test)


def test_a_slow_client_has_a_gap_and_nothing_twice(monkeypatch):
    monkeypatch.setattr(streams, "KEPT", 4)

    async def test(stream, workers):
        one = Played("one")
        come(workers, one)
        async with Client(stream) as client, Client(stream) as other:
            one.write(10)
            while stream.newest < 10:
                await other.next()
            assert (await client.next())[0] == "gap"
            one.write(2)
            while stream.newest < 12:
                await other.next()
            seen = await client.seqs(6)
            assert seen == [("one", seq) for seq in range(7, 13)]

    run(test)


@pytest.mark.parametrize("writes", [False, True])
def test_signs_of_life_come_whatever_the_workers_send(monkeypatch, writes):
    """The heartbeats of workers are none of ours, and neither are events that a client does not want."""
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.1)

    async def test(stream, workers):
        one = Played("one", beat_s=0.02)
        come(workers, one)
        async with Client(stream, ALL._replace(names=["other"])) as client:
            assert client.first == "bookmark"

            async def write():
                while writes:
                    one.write()
                    await asyncio.sleep(0.02)

            writer = asyncio.ensure_future(write())
            kind, _, seq = await client.next()
            writer.cancel()
            assert kind == "bookmark"
            assert seq > 0 if writes else seq == 0, "it moves a client whose filter leaves everything out"

    run(test)


@pytest.mark.parametrize("last", ["7", "x-y", "0123456789abcdef-", "0123456789abcdef-99999999999999999999"])
def test_an_id_that_cannot_be_read_is_another_logs(last):
    def wish(query, **headers):
        given = Headers({name: [value] for name, value in headers.items()})
        return _wish(Request("GET", "/", query, given, None))

    async def test(stream, workers):
        async with Client(stream, wish("", **{"last-event-id": last})) as client:
            assert client.first == "reset"
        async with Client(stream, wish("since=5")) as client:
            assert client.first == "reset", "ahead of the newest"

    run(test)
    for since in ("-1", "x", "", "٣"):
        with pytest.raises(Refusal):
            wish(f"since={since}")
