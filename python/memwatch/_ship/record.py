"""What is shipped: events, and what is known to be missing between them."""

from __future__ import annotations

import json
import socket
import time
from typing import Any, Iterable, Iterator, NamedTuple


class Origin(NamedTuple):
    """Whose events they are."""

    epoch: str
    service: str
    worker: str
    pid: int
    host: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def members(self) -> dict[str, Any]:
        """What stands before each event of a line."""
        said = {"epoch": self.epoch, "host": self.host, "service": self.service, "pid": self.pid}
        if self.worker:
            said["worker"] = self.worker
        return {**said, "labels": dict(self.labels)} if self.labels else said


class Record(NamedTuple):
    """One thing that is delivered."""

    id: str
    """Epoch and seq: the same whenever it is sent again."""
    kind: str
    """ "change" and "lost" are events; "gap" and "restart" say what is not there."""
    seq: int
    """Where the cursor stands when it is delivered."""
    document: dict[str, Any]

    @property
    def time_ms(self) -> int:
        """When it happened, or was noticed."""
        return int(self.document["time_ms"])

    def line(self, origin: Origin) -> bytes:
        """As one line of JSON, without its end."""
        said = {"id": self.id, **origin.members, **self.document}
        return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def this_host() -> str:
    """The name of the machine that ships."""
    return socket.gethostname()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def of_event(epoch: str, event: dict[str, Any]) -> Record:
    """An event as the feed tells it."""
    return Record(f"{epoch}-{event['seq']}", str(event["kind"]), event["seq"], event)


def gap(epoch: str, first: int, last: int) -> Record:
    """The events from `first` to `last` had left the log before they were read."""
    document = {"kind": "gap", "time_ms": now_ms(), "from": first, "to": last, "missed": last - first + 1}
    return Record(f"{epoch}-gap-{first}-{last}", "gap", last, document)


def restart(epoch: str, before: str, seq: int) -> Record:
    """Where the watcher `before` was is another now: what came after its event `seq` is not known to anybody."""
    document = {"kind": "restart", "time_ms": now_ms(), "previous_epoch": before, "previous_seq": seq}
    return Record(f"{epoch}-restart-{before}-{seq}", "restart", 0, document)


def of_page(epoch: str, since: int, page: dict[str, Any], filtered: bool) -> Iterator[Record]:
    """A page's events, in order, with the gaps between them."""
    if filtered:  # of what the filter left out nobody says where it was
        if page["missed"]:
            yield gap(epoch, since + 1, since + page["missed"])
        yield from (of_event(epoch, event) for event in page["events"])
        return
    for event in page["events"]:
        if event["seq"] > since + 1:
            yield gap(epoch, since + 1, event["seq"] - 1)
        yield of_event(epoch, event)
        since = event["seq"]


def batches(records: Iterable[Record], most: int, most_bytes: int) -> Iterator[list[Record]]:
    """In pieces of so many records and about so many bytes."""
    batch: list[Record] = []
    n_bytes = 0
    for record in records:
        size = len(json.dumps(record.document))
        if batch and (len(batch) >= most or n_bytes + size > most_bytes):
            yield batch
            batch, n_bytes = [], 0
        batch.append(record)
        n_bytes += size
    if batch:
        yield batch
