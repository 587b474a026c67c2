"""Shipper, server and watched process are killed at random: what was retained arrives, every duplicate can be told.

Twenty seconds here; MEMWATCH_SOAK_SECONDS for as long as one likes (`make soak`).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .parts import Ship, Watched, check_duplicates, lines, uncovered, wait_for
from .test_nats import Server

LONG_S = 120  # in which some come twice for sure
SECONDS = float(os.environ.get("MEMWATCH_SOAK_SECONDS", "20"))


class Chaos:
    """One of each, and what was known of each watched process when it was killed."""

    def __init__(self, place: Path, make: Callable[[], Watched], shipper: Ship, server: Server | None) -> None:
        self.place, self.make, self.shipper, self.server = place, make, shipper, server
        self.watched = make()
        self.dead: list[Watched] = []
        self.shipper.start()

    def kill(self, what: str) -> None:
        if what == "shipper":
            if random.random() < 0.5:
                self.wait_for_delivery()
            self.shipper.end(signal.SIGKILL)
            self.shipper.start()
        elif what == "shipper and server" and self.server:
            self.wait_for_delivery()
            self.server.kill()
            self.shipper.end(signal.SIGKILL)
            self.shipper.start()
            self.server.start()
        elif what == "server" and self.server:
            self.server.kill()
            time.sleep(random.uniform(0, 1))
            self.server.start()
        else:
            self.watched.end(signal.SIGKILL)
            self.dead.append(self.watched)
            self.watched = self.make()

    def wait_for_delivery(self) -> None:
        """A shipper that dies between that and its cursor delivers again. For so long as one may take to start."""

        def delivered() -> int:
            files = self.place.rglob("*.blk") if self.place.is_dir() else [self.place]
            return sum(file.stat().st_size for file in files if file.exists())

        before, end = delivered(), time.monotonic() + 5
        while delivered() == before and time.monotonic() < end:
            time.sleep(0.0005)


def run(chaos: Chaos, seed: int) -> None:
    chosen = random.Random(seed)
    end = time.monotonic() + SECONDS
    kinds = ["shipper", "server", "watched", "shipper and server"] if chaos.server else ["shipper", "watched"]
    while time.monotonic() < end:
        time.sleep(chosen.uniform(0.2, 2))
        chaos.kill(chosen.choice(kinds))


def check(records: list[dict[str, object]], chaos: Chaos, newest: int) -> int:
    """Of the living one all is told; of a dead one all up to the last that came. How many came twice."""
    assert uncovered(records, chaos.watched.epoch, newest) == []
    for dead in chaos.dead:
        seqs = [record["seq"] for record in records if record["epoch"] == dead.epoch and "name" in record]
        assert uncovered(records, dead.epoch, max(seqs, default=0)) == []  # type: ignore[type-var]
    n_twice = check_duplicates(records)
    print(f"{len(records)} records, {n_twice} of them twice, {len(chaos.dead)} processes killed")
    return n_twice


@pytest.mark.timeout(SECONDS + 240)
def test_to_a_file(runtime: Path, watch: Callable[..., Watched], ship: Callable[..., Ship]) -> None:
    file = runtime / "events.ndjson"
    chaos = Chaos(file, lambda: watch("65536", "0.005"), ship("--to", file), None)
    run(chaos, 1)
    newest = int(chaos.watched.say("newest"))
    epoch = chaos.watched.epoch
    wait_for(lambda: any(each["epoch"] == epoch and each.get("seq", 0) >= newest for each in lines(file)))
    assert chaos.shipper.end() == 0
    check(lines(file), chaos, newest)


@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.skipif(not shutil.which("nats-server"), reason="no nats-server")
def test_to_nats(runtime: Path, watch: Callable[..., Watched], ship: Callable[..., Ship]) -> None:
    server = Server(runtime / "jetstream")
    server.start()
    try:
        server.make_stream(window_s=0.1)  # the shortest there is: what comes twice is to be seen
        chaos = Chaos(server.store, lambda: watch("65536", "0.01"), ship("--to", server.url), server)
        run(chaos, 2)
        newest, epoch = int(chaos.watched.say("newest")), chaos.watched.epoch

        def has_come() -> bool:
            return any(said["epoch"] == epoch and said.get("seq", 0) >= newest for _, said in server.messages(200))

        wait_for(has_come, what="the newest event")
        assert chaos.shipper.end() == 0
        assert check([document for _, document in server.messages()], chaos, newest) or SECONDS < LONG_S
    finally:
        server.kill()
