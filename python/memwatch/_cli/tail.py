"""`memwatch tail`: events as lines, as they happen.

DESIGN  One thread reads each watcher's stream and puts lines in a queue; the main thread prints. Once a second it
looks around: a watcher that has ended may have come back, as a new process with a new epoch, whose events are all
new. Where a reader was is told by epoch and seq, so that one that begins again goes on there, and what it missed is
said.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import queue
import re
import select
import sys
import threading
import time
from typing import Any, Iterator, NamedTuple, Optional

from memwatch._cli.client import Answer, Client, Gone, Refused, knock
from memwatch._cli.clock import moment
from memwatch._cli.events import event_line
from memwatch._cli.find import chosen, look, no_watcher
from memwatch._cli.found import Found
from memwatch._cli.frame import OK, Failure, coloured, command, complain, print_json, shown
from memwatch._cli.targets import add_target, ask_each, say

SILENCE_S = 45.0  # three heartbeats
LOOK_S = 1.0
QUEUED = 10_000


class Since(NamedTuple):
    """Where to begin."""

    epoch: Optional[str] = None
    seq: int = 0
    from_ms: Optional[int] = None


def since(text: str) -> Since:
    """EPOCH-SEQ, as the end of an interrupted tail says it, or a time."""
    place = re.fullmatch(r"([0-9a-f]{16})-(\d{1,19})", text)
    if place:
        return Since(place[1], int(place[2]))
    try:
        return Since(from_ms=int(moment(text) * 1000))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or a place as 7157fb2a90de19d7-42") from None


class Line(NamedTuple):
    """What a reader found: an event, a gap, a reset, or its end."""

    found: Found
    said: dict[str, Any]


class Reader:
    """Follows one watcher, on a thread."""

    def __init__(self, found: Found, begin: Since, names: list[str], lines: queue.Queue[Line]) -> None:
        self.found = found
        self._begin, self._names, self._lines = begin, names, lines
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it still follows."""
        return self._thread.is_alive()

    def _run(self) -> None:
        place = self._begin
        while True:
            try:
                with Client(self.found) as client:
                    query = {"since": place.seq, "epoch": place.epoch, "from_ms": place.from_ms}
                    for said in client.lines("/api/v1/events/stream", SILENCE_S, **query, name=self._names or None):
                        place = self._take(said, place)
            except Gone:
                pass
            except Refused as refused:
                if refused.status != 503:  # all places for feeds are taken: later
                    self._lines.put(Line(self.found, {"kind": "refused", "sentence": str(refused)}))
                    return
            if self.found.epoch and knock(self.found) is Answer.NOBODY:
                self._lines.put(Line(self.found, {"kind": "ended", "seq": place.seq}))
                return
            time.sleep(LOOK_S)

    def _take(self, said: dict[str, Any], place: Since) -> Since:
        """Hands a line on; the place behind it."""
        kind = said.get("kind")
        if kind == "bookmark":
            epoch = said.get("epoch") or place.epoch  # events do not say it; a number is one of an epoch's only
            return place._replace(epoch=epoch, seq=max(place.seq, said["seq"]))
        self._lines.put(Line(self.found, said))
        if kind == "reset":
            return Since(said["epoch"], 0, place.from_ms)
        return place._replace(epoch=place.epoch or self.found.epoch or None, seq=said["to" if kind == "gap" else "seq"])


class Tail:
    """Who is followed, and what is printed of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._lines: queue.Queue[Line] = queue.Queue(QUEUED)
        self._readers: dict[str, Reader] = {}
        self._first: list[Found] = []
        self._place: dict[str, int] = {}
        self._names: list[str] = options.name or []

    def run(self) -> None:
        """Follows until it is interrupted."""
        seen = look()
        self._first = chosen(self._options.target, seen.found)
        if not self._first:
            say(seen)
            raise no_watcher(self._options.target, seen.found)
        for found, begin in ask_each(self._first, self._begin):
            self._follow(found, begin)
        self._print_all()

    def _begin(self, client: Client) -> Since:
        """Where the first look begins: where it was said, or the last lines."""
        given: Optional[Since] = self._options.since
        if given is not None:
            return given
        status = client.json("/api/v1/status")
        oldest = max(status["oldest"] - 1, 0)
        return Since(status["epoch"], max(status["newest"] - self._options.lines, oldest))

    def _follow(self, found: Found, begin: Since) -> None:
        self._readers[found.epoch] = Reader(found, begin, self._names, self._lines)

    def _print_all(self) -> None:
        looked = time.monotonic()
        while any(reader.is_alive() for reader in self._readers.values()) or self._returns():
            try:
                self._print(self._lines.get(timeout=LOOK_S / 4))
            except queue.Empty:
                sys.stdout.flush()
                if _reader_has_gone():
                    raise BrokenPipeError from None
            if time.monotonic() - looked >= LOOK_S:
                self._look_again()
                looked = time.monotonic()
        with contextlib.suppress(queue.Empty):
            while True:
                self._print(self._lines.get_nowait())

    def _returns(self) -> bool:
        """Whether it is worth waiting: what was typed as an address elsewhere is asked by its reader."""
        return not self._lines.empty() or any(found.epoch for found in self._first)

    def _look_again(self) -> None:
        for found in look().found:
            if found.epoch in self._readers or not self._is_meant(found):
                continue
            started = {"kind": "started", "epoch": found.epoch}
            self._notice(found, started, f"{found.title} has started, with new numbers")
            self._follow(found, Since())

    def _is_meant(self, found: Found) -> bool:
        """Whether it is one of those that were asked for, or has taken the place of one."""
        if self._options.target is None or found in chosen(self._options.target, [found]):
            return True
        return any((found.service, found.worker) == (old.service, old.worker) for old in self._first if old.service)

    def _print(self, line: Line) -> None:
        found, said = line
        kind = said["kind"]
        if kind == "ended":
            self._notice(found, said, f"{found.title} has ended; waiting for it to come back")
        elif kind == "refused":
            complain(said["sentence"])
        elif kind == "gap":
            missed = f"{said['missed']} events of {found.title} missed ({said['from']} to {said['to']})"
            self._notice(found, said, f"{missed}: they had left the log before they were read")
        elif kind == "reset":
            self._notice(found, said, f"{found.title} knows nothing of that place: all that it has kept follows")
        elif self._options.json:
            print_json({"pid": found.pid, "service": found.service, "worker": found.worker, **said})
        else:
            print(event_line(said, found.title if len(self._readers) > 1 else ""))
        if "seq" in said:
            self._place[found.epoch] = said["seq"]

    def _notice(self, found: Found, said: dict[str, Any], sentence: str) -> None:
        """What is no event: in its place among them."""
        if self._options.json:
            print_json({"pid": found.pid, "service": found.service, "worker": found.worker, **said})
        else:
            print(coloured(shown(f"-- {sentence}"), "yellow"))

    def places(self) -> Iterator[str]:
        """Where each reader was, for --since."""
        return (f"{epoch}-{seq}" for epoch, seq in self._place.items() if epoch)


def _reader_has_gone() -> bool:
    """Whether nobody reads what is printed any more, as of `| head` that has enough."""
    with contextlib.suppress(OSError, ValueError):
        waiter = select.poll()
        waiter.register(sys.stdout.fileno(), 0)
        return any(events & (select.POLLERR | select.POLLNVAL) for _, events in waiter.poll(0))
    return False


def _print_once(options: argparse.Namespace) -> None:
    """What is kept, of all watchers by time; then it ends."""
    seen = look()
    found = chosen(options.target, seen.found)
    if not found:
        say(seen)
        raise no_watcher(options.target, seen.found)

    def ask(client: Client) -> tuple[list[dict[str, Any]], int]:
        begin: Since = options.since or Since(from_ms=0)
        events: list[dict[str, Any]] = []
        missed, place, epoch = 0, begin.seq, begin.epoch
        end: Optional[int] = None  # what is written meanwhile may have none
        while True:
            query = {"since": place, "epoch": epoch, "from_ms": begin.from_ms, "name": options.name or None}
            page = client.json("/api/v1/events", **query, limit=1000)
            end = page["newest"] if end is None else end
            events += [event for event in page["events"] if event["seq"] <= end]
            missed += page["missed"] if options.since or place else 0
            if options.since is None:
                del events[: max(len(events) - options.lines, 0)]
            if page["next"] == place or page["next"] >= end:
                return events, missed
            place, epoch = page["next"], page["epoch"]

    streams = []
    for each, (events, missed) in ask_each(found, ask):
        if missed:
            complain(f"{missed} events of {each.title} had left the log")
        streams.append([(int(event["time_ns"]), each, event) for event in events])
    for _, each, event in heapq.merge(*streams, key=lambda line: line[0]):  # each watcher's in its own order
        if options.json:
            print_json({"pid": each.pid, "service": each.service, "worker": each.worker, **event})
        else:
            print(event_line(event, each.title if len(found) > 1 else ""))


def run(options: argparse.Namespace) -> int:
    """The command's exit status."""
    if options.once:
        _print_once(options)
        return OK
    tail = Tail(options)
    try:
        tail.run()
    except KeyboardInterrupt:
        places = list(tail.places())
        if len(places) == 1 and sys.stderr.isatty():
            print(f"to go on from here: --since {places[0]}", file=sys.stderr)
        raise
    raise Failure("nothing is left to follow")


def _lines(text: str) -> int:
    if not text.isdecimal() or int(text) > 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return int(text)


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = command(
        commands,
        "tail",
        run,
        help="print events as lines, as they happen",
        description="Prints the last events and then each as it happens, until it is interrupted. A watcher that ends "
        "is waited for: when it has come back its events go on. What was missed is said.",
        examples=[
            ("memwatch tail", "of all watchers here"),
            ("memwatch tail 4711 --name 'config.*'", "of one process, some variables"),
            ("memwatch tail web --since 10m", "of a service, from ten minutes ago"),
            ("memwatch tail --once --json | jq .where.file", "what is kept, for a program"),
            ("memwatch tail http://127.0.0.1:10764/", "by its address; MEMWATCH_TOKEN has the token of one elsewhere"),
        ],
        json_help="the events as the feed has them, one on a line; gaps and ends are lines, too",
    )
    add_target(parser)
    parser.add_argument("--name", action="append", metavar="GLOB", help="only of such variables; up to eight times")
    parser.add_argument(
        "--since", type=since, metavar="TIME|PLACE", help="from 10m ago, a date and time, or EPOCH-SEQ, where one ended"
    )
    parser.add_argument("-n", "--lines", type=_lines, default=10, help="how many to begin with, without --since (10)")
    parser.add_argument("--once", action="store_true", help="print what is kept and end")
