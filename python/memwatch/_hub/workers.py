"""Who is there, which place each has, and what the dead of each place had counted.

DESIGN  A place is a service and a worker: what labels say. Who brings no worker's name gets the lowest number that is
free, so that a server that replaces its workers day and night has as many places as it has workers at a time, and not
as many as it ever had. What a worker had counted when it was last asked, in whichever format, is added to its place
when it is gone. So everybody is asked every second, also when nobody asks the hub: what a worker counts after its last
scrape dies with it.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Optional

from memwatch._cli.found import Found
from memwatch._hub import files, merge
from memwatch._hub.upstream import Gone, Late, Upstream

LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OURS = ("service", "worker", "instance", "job", "le")
PLAIN = "text/plain;version=0.0.4"
BURIED_MAX = 256
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


class Place:
    """One worker of one service, whoever it is at the time."""

    def __init__(self, service: str, worker: str) -> None:
        self.service = service
        self.worker = worker
        self.kept: merge.Kept = {}
        self.holder: Optional[Worker] = None
        self.labels = b'service="' + merge.label(service) + b'",worker="' + merge.label(worker) + b'"'


class Worker:
    """One exporter."""

    def __init__(self, found: Found, place: Place) -> None:
        self.found = found
        self.place = place
        self.upstream = Upstream(found)
        self.scrapes: dict[tuple[str, bool], bytes] = {}
        """The last ones, by format and whether they show values."""
        self.up = False

    @property
    def key(self) -> str:
        """Its numbering."""
        return self.found.epoch


class Workers:
    """All of them. On the event loop only."""

    def __init__(self, directories: list[str], urls: list[Found]) -> None:
        self._directories = directories
        self._urls = urls
        self.places: dict[tuple[str, str], Place] = {}
        self.workers: dict[str, Worker] = {}
        self.n_ended: dict[str, int] = {}
        """By service."""
        self._buried: dict[str, tuple[Worker, merge.Kept]] = {}
        """By epoch: the newest that ended, and what was added to their places."""
        self._last_named: dict[str, Found] = {}
        """By address: what an exporter elsewhere said of itself."""
        self._lock = asyncio.Lock()

    # --- who is there -------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Looks who has come and who is gone."""
        async with self._lock:
            found = {each.epoch: each for each in files.candidates(self._directories)}
            for named in await asyncio.gather(*map(self._named, self._urls)):
                if named is not None:
                    found[named.epoch] = named
            for key in [key for key in self.workers if key not in found]:
                self._ended(key)
            new = [each for key, each in found.items() if key not in self.workers]
            answers = await asyncio.gather(*(self._knock(each) for each in new))
            for each, scrape in sorted(zip(new, answers), key=lambda pair: _age(pair[0])):
                if scrape is not None and each.epoch not in self.workers:
                    self._begun(each, scrape)

    async def _knock(self, found: Found) -> Optional[bytes]:
        """Its first scrape, empty when it has none now; None: it does not answer."""
        upstream = Upstream(found)
        try:
            status, text = await upstream.scrape(PLAIN, values=True)
        except (Gone, Late):
            return None
        finally:
            upstream.close()
        return text if status == 200 else b""

    async def _named(self, found: Found) -> Optional[Found]:
        """What an exporter that was named by its address says of itself, or said when it does not answer now; None:
        nobody is there."""
        try:
            self._last_named[found.url] = await self._asked(found)
        except Gone:
            self._last_named.pop(found.url, None)
        except (TimeoutError, Late, ValueError, OSError, EOFError):
            pass
        return self._last_named.get(found.url)

    async def _asked(self, found: Found) -> Found:
        connection, answer = await Upstream(found).get("/api/v1/status", {})
        try:
            said = json.loads(await asyncio.wait_for(answer.whole(), 3.0)) if answer.status == 200 else {}
            epoch = connection.epoch
        finally:
            connection.close()
        if not isinstance(said, dict):
            raise ValueError("that is no status")
        last = self._last_named.get(found.url)
        if not said and last is not None and last.epoch == epoch:
            return last  # as where all its connections are taken
        labels = said.get("labels") or {}
        return found._replace(
            service=said.get("service") or found.service,
            worker=said.get("worker") or "",
            pid=said.get("pid") or 0,
            epoch=epoch,
            said={"pid": said.get("pid") or 0, "labels": labels, "epoch": epoch},
        )

    def _begun(self, found: Found, scrape: bytes) -> None:
        worker = Worker(found, self._free_place(found))
        self._dig_up(worker)
        if scrape:
            worker.scrapes[PLAIN, True] = scrape
        worker.place.holder = worker
        self.workers[found.epoch] = worker

    def _dig_up(self, worker: Worker) -> None:
        """One that was taken for dead, as where its file could not be read for a while, is not counted twice."""
        before, counts = self._buried.pop(worker.key, (None, {}))
        if before is not None and before.place is worker.place:
            worker.scrapes = before.scrapes
            merge.keep(worker.place.kept, counts, -1)

    def _free_place(self, found: Found) -> Place:
        """The one that it had; else that of its own name, or the first number that is free."""
        before, _ = self._buried.get(found.epoch, (None, {}))
        if before is not None and before.place.holder is None:
            return before.place
        service = found.service or "unknown"
        number = 0
        name = found.worker or "0"
        while True:
            place = self.places.get((service, name))
            if place is None:
                place = self.places[service, name] = Place(service, name)
            if place.holder is None:
                return place
            number += 1
            name = f"{found.worker}.{number}" if found.worker else str(number)

    def _ended(self, key: str) -> None:
        worker = self.workers.pop(key)
        worker.upstream.close()
        counts = merge.counts((text, accept == OPENMETRICS) for (accept, _), text in worker.scrapes.items())
        self._buried[key] = worker, merge.keep(worker.place.kept, counts)
        for oldest in list(self._buried)[:-BURIED_MAX]:
            del self._buried[oldest]
        worker.place.holder = None
        self.n_ended[worker.place.service] = self.n_ended.get(worker.place.service, 0) + 1

    # --- scrapes ------------------------------------------------------------------------------------------------------

    async def scrape(self, accept: str, *, values: bool) -> None:
        """Asks all of them at once. Who does not answer in time keeps what he said last."""
        await asyncio.gather(*(self._scrape_one(worker, accept, values) for worker in list(self.workers.values())))

    async def _scrape_one(self, worker: Worker, accept: str, values: bool) -> None:
        try:
            status, text = await worker.upstream.scrape(accept, values=values)
        except Gone:
            if worker.key in self.workers:
                self._ended(worker.key)
            return
        except Late:
            worker.up = False
            return
        worker.up = status == 200
        if worker.up:
            worker.scrapes[accept, values] = text

    def merged(self, accept: str, *, values: bool, own: bytes) -> bytes:
        """One scrape of what all of them said last."""
        openmetrics = accept == OPENMETRICS
        places = []
        for _, place in sorted(self.places.items()):
            holder = place.holder
            scrape = b"" if holder is None else holder.scrapes.get((accept, values), b"")
            places.append(merge.Place(place.labels, scrape, place.kept))
        return merge.merged(places, own, openmetrics)

    def own_families(self, openmetrics: bool) -> bytes:
        """What the hub has to say itself."""
        live = sorted(self.workers.values(), key=lambda worker: (worker.place.service, worker.place.worker))
        said = [(worker.place.labels + _more_labels(worker.found), 1) for worker in live]
        pids = [(worker.place.labels, worker.found.pid) for worker in live]
        up = [(worker.place.labels, int(worker.up)) for worker in live]
        ended = [(b'service="' + merge.label(service) + b'"', n) for service, n in sorted(self.n_ended.items())]
        return b"".join(
            merge.family(name, kind, text, samples, openmetrics)
            for name, kind, text, samples in (
                ("memwatch_process_info", "info", "What the process is called; its labels beside.", said),
                ("memwatch_hub_workers", "gauge", "Workers that are there.", [(b"", len(live))]),
                ("memwatch_hub_worker_pid", "gauge", "The process of the worker.", pids),
                ("memwatch_hub_worker_up", "gauge", "1 when the worker answered the last time, else 0.", up),
                ("memwatch_hub_workers_ended_total", "counter", "Workers that came to an end.", ended),
            )
            if samples
        )

    def find(self, service: str, worker: str) -> Optional[Worker]:
        """Who has that place now."""
        place = self.places.get((service, worker))
        return None if place is None else place.holder

    def close(self) -> None:
        """Ends the connections."""
        for worker in self.workers.values():
            worker.upstream.close()


def _age(found: Found) -> tuple[int, int]:
    """The elder first, so that numbers follow the order in which workers were started."""
    started = found.said.get("process_start_ticks")
    return (started if isinstance(started, int) else 0, found.pid)


def labels_of(found: Found) -> dict[str, str]:
    """Those that it gives itself. Of an exporter elsewhere they may be anything: Prometheus takes a label that begins
    with __ for an order, such as where to send its token, and one of ours twice for no scrape at all."""
    labels = found.said.get("labels")
    return {
        name: value
        for name, value in (labels.items() if isinstance(labels, dict) else ())
        if LABEL.fullmatch(name) and not name.startswith("__") and name not in OURS and isinstance(value, str)
    }


def _more_labels(found: Found) -> bytes:
    """Not the pid: a series for every worker that was ever started fills the database."""
    return b"".join(b"," + name.encode() + b'="' + merge.label(text) + b'"' for name, text in labels_of(found).items())
