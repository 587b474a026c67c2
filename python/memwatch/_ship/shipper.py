"""The shipper: a thread for each watcher that reads, delivers, saves, in this order, for ever or once."""

from __future__ import annotations

import threading
from typing import Callable, NamedTuple, Optional

from memwatch._cli.client import Gone, Refused
from memwatch._cli.found import Found
from memwatch._cli.frame import Failure
from memwatch._cli.processes import is_there
from memwatch._ship.cursors import Cursors
from memwatch._ship.numbers import Numbers
from memwatch._ship.record import Origin, Record, batches, of_page, restart
from memwatch._ship.retry import GaveUp, Stopped, Waiting
from memwatch._ship.sink import Say, Sink
from memwatch._ship.source import Another, Source

WAIT_S, LOOK_S = 20.0, 2.0
LINGER_S = 1.0  # between requests of one watcher, so that a thousand of them are a thousand a second at most
BATCH_RECORDS, BATCH_BYTES = 512, 1 << 20


class Plan(NamedTuple):
    """What all threads of one shipper share."""

    sink: Sink
    cursors: Cursors
    numbers: Numbers
    say: Say
    names: list[str]
    once: bool
    give_up_s: Optional[float]


class Reader(threading.Thread):
    """One watcher, read and delivered."""

    def __init__(self, plan: Plan, found: Found, stop: threading.Event) -> None:
        super().__init__(name=f"memwatch-ship-{found.pid}", daemon=True)
        self.found, self.failure = found, ""
        self._replaced = threading.Event()
        self._plan, self._stop_asked = plan, stop
        self._source = Source(found, plan.names)

    def cancel(self) -> None:
        """Any thread, after the stop was asked for: nobody waits for the next event."""
        self._source.cancel()

    def replace(self) -> None:
        """Another watcher is at this place, with a token of its own: who is refused from now on ends."""
        self._replaced.set()

    def run(self) -> None:
        """Until there is nobody to read, or nothing more to read, or the end."""
        try:
            self._read_on()
        except Stopped:
            pass
        except (GaveUp, Failure, OSError, ValueError, KeyError, TypeError) as error:
            self.failure = str(error) or type(error).__name__
            self._plan.numbers.failed("source", self.failure)
        finally:
            self._source.close()
            self._plan.numbers.forget(self._source.key)

    def _read_on(self) -> None:
        waiting = self._waiting()
        while not self._stop_asked.is_set():
            try:
                origin, newest = self._source.status()
                self._ship(origin, newest if self._plan.once else None)
                if self._plan.once:
                    return
            except Another:
                waiting = self._waiting()
            except (Gone, Refused) as error:
                if self._has_ended() or self._replaced.is_set():
                    return
                self._plan.numbers.failed("source", str(error))
                self._plan.say(str(error))
                waiting.pause(str(error))
            else:
                waiting = self._waiting()

    def _waiting(self) -> Waiting:
        return Waiting(self._stop_asked, self._plan.give_up_s)

    def _has_ended(self) -> bool:
        """Of a process that was found: it is no more. At an address that was given somebody may come again."""
        return bool(self.found.epoch) and not is_there(self.found.pid)

    def _ship(self, origin: Origin, end: Optional[int]) -> None:
        """From the cursor on; up to the event `end`, or until the watcher is another."""
        since = self._begin(origin)
        while not self._stop_asked.is_set() and (end is None or since < end):
            page = self._source.page(origin.epoch, since, 0 if end is not None else WAIT_S)
            newest = page["newest"]
            records = list(of_page(origin.epoch, since, page, self._source.is_filtered))
            oldest_ms = records[0].time_ms if records else None
            for batch in batches(records, BATCH_RECORDS, BATCH_BYTES):
                self._plan.numbers.lag(self._source.key, newest - since, oldest_ms)
                self._deliver(origin, batch)
                since = max(since, batch[-1].seq)
                self._plan.cursors.save(origin.epoch, since, self._source.key)
            if page["next"] > since:  # past what a filter left out
                since = page["next"]
                self._plan.cursors.save(origin.epoch, since, self._source.key)
            self._plan.numbers.lag(self._source.key, newest - since, None)
            if end is None and since >= newest:
                self._stop_asked.wait(LINGER_S)

    def _begin(self, origin: Origin) -> int:
        """Where to go on. A watcher that nobody knows is read from its oldest event."""
        since = self._plan.cursors.get(origin.epoch)
        if since is not None:
            return since
        before = self._plan.cursors.epoch_before(self._source.key, origin.epoch)
        if before is not None:
            self._deliver(origin, [restart(origin.epoch, *before)])
        self._plan.cursors.save(origin.epoch, 0, self._source.key)
        return 0

    def _deliver(self, origin: Origin, batch: list[Record]) -> None:
        numbers = self._plan.numbers
        self._plan.sink.send(origin, batch, self._stop_asked, self._plan.give_up_s)
        numbers.succeeded()
        n_events = sum(record.kind in ("change", "lost") for record in batch)
        numbers.add("events", n_events)
        numbers.add("gaps", len(batch) - n_events)
        numbers.add("missed_events", sum(record.document.get("missed", 0) for record in batch))


class Shipper:
    """All readers. `find` looks around for the watchers that are meant."""

    def __init__(self, plan: Plan, find: Callable[[], list[Found]]) -> None:
        self._plan, self._find = plan, find
        self._readers: dict[tuple[int, str], Reader] = {}
        self._stop = threading.Event()

    def stop(self) -> None:
        """Any thread, and a signal handler: ends all, soon."""
        self._stop.set()

    def run(self, every_round: Callable[[], None]) -> list[str]:
        """Ships until it is stopped, or, once, until all is shipped. What went wrong for good, as sentences."""
        failures: list[str] = []
        while not self._stop.is_set():
            found = self._find()
            self._reap()
            for each in found:
                self._begin(each)
            self._plan.numbers.sources(sum(reader.is_alive() for reader in self._readers.values()))
            if self._plan.once:
                self._join(None)
                failures += [reader.failure for reader in self._readers.values() if reader.failure]
                every_round()
                return failures
            every_round()
            self._stop.wait(LOOK_S)
        for reader in self._readers.values():
            reader.cancel()
        self._join(10.0)
        every_round()
        return failures

    def _begin(self, found: Found) -> None:
        key = (found.container, found.address)  # one reader for each place, whoever is there
        if key in self._readers:
            if self._readers[key].found.epoch != found.epoch:
                self._readers[key].replace()
        else:
            self._readers[key] = Reader(self._plan, found, self._stop)
            self._readers[key].start()

    def _reap(self) -> None:
        """Readers that have ended are forgotten; one whose watcher is still there begins anew."""
        for key, reader in list(self._readers.items()):
            if not reader.is_alive():
                if reader.failure:
                    self._plan.say(reader.failure)
                del self._readers[key]

    def _join(self, timeout: Optional[float]) -> None:
        for reader in self._readers.values():
            while reader.is_alive() and timeout is None:
                reader.join(0.2)
            reader.join(timeout)
