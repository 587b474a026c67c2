"""`memwatch tail` over watchers that are played: where it goes on, and where it ends."""

import argparse
import queue
from types import SimpleNamespace

import pytest

from memwatch._cli import client, tail
from memwatch._cli.client import Client, Gone
from memwatch._cli.found import at_address

FOUND = at_address("http://127.0.0.1:9/")


class Busy:
    """A watcher that writes faster than anybody reads."""

    def __init__(self):
        self.newest = 2500
        self.asked = 0

    def json(self, path, *, since, limit, **_):
        """A page of it."""
        self.asked += 1
        assert self.asked < 10, "it never ends"
        events = [{"seq": seq, "time_ns": str(seq)} for seq in range(since + 1, since + limit + 1)]
        self.newest += 2 * limit
        newest = max(self.newest, since + limit)
        return {"epoch": "e", "newest": newest, "next": since + limit, "missed": 0, "events": events}


def printed(monkeypatch, capsys, **options):
    busy = Busy()
    monkeypatch.setattr(tail, "look", lambda: SimpleNamespace(found=[FOUND], words=[]))
    monkeypatch.setattr(tail, "chosen", lambda target, found: found)
    monkeypatch.setattr(tail, "ask_each", lambda found, ask: [(each, ask(busy)) for each in found])
    monkeypatch.setattr(tail, "event_line", lambda event, who: str(event["seq"]))
    tail._print_once(argparse.Namespace(**{"target": None, "since": None, "name": None, "json": False, **options}))
    return [int(line) for line in capsys.readouterr().out.split()]


def test_once_ends_at_what_was_kept_when_it_began(monkeypatch, capsys):
    assert printed(monkeypatch, capsys, since=tail.Since("e", 0), lines=10) == list(range(1, 4501))


@pytest.mark.parametrize("n", [0, 1, 1500])
def test_once_prints_as_many_lines_as_it_was_told(monkeypatch, capsys, n):
    assert printed(monkeypatch, capsys, lines=n) == list(range(4501 - n, 4501))


def test_a_place_is_one_of_an_epoch_also_where_events_do_not_say_it():
    """Of an address that was typed: a watcher that is opened anew there counts from 1."""
    reader = tail.Reader.__new__(tail.Reader)
    reader.found, reader._lines = FOUND, queue.Queue()
    place = tail.Since(from_ms=5)
    for said in (
        {"kind": "bookmark", "epoch": "e" * 16, "seq": 0},
        {"kind": "change", "seq": 1},
        {"kind": "gap", "to": 4},
    ):
        place = reader._take(said, place)
    assert place == tail.Since("e" * 16, 4, 5)


def test_a_refusal_that_breaks_off_is_told(monkeypatch):
    """As of a process that is killed while it answers."""

    class Broken:
        status = 503

        def read(self, _):
            raise client.http.client.IncompleteRead(b"")

    asking = Client(FOUND)
    monkeypatch.setattr(asking._connection, "request", lambda *_, **__: None)
    monkeypatch.setattr(asking._connection, "getresponse", Broken)
    with pytest.raises(Gone, match="broke off"):
        asking.json("/api/v1/status")
