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

SECONDS = float(os.environ.get("MEMWATCH_SOAK_SECONDS", "20"))


class Chaos:
    """One of each, and what was known of each watched process when it was killed."""

    def __init__(self, runtime: Path, make: Callable[[], Watched], shipper: Ship, server: Server | None) -> None:
        self.make, self.shipper, self.server = make, shipper, server
        self.watched = make()
        self.dead: list[Watched] = []
        self.shipper.start()

    def kill(self, what: str) -> None:
        if what == "shipper":
            self.shipper.end(signal.SIGKILL)
            self.shipper.start()
        elif what == "server" and self.server:
            self.server.kill()
            time.sleep(random.uniform(0, 1))
            self.server.start()
        else:
            self.watched.end(signal.SIGKILL)
            self.dead.append(self.watched)
            self.watched = self.make()


def run(chaos: Chaos, seed: int) -> None:
    chosen = random.Random(seed)
    end = time.monotonic() + SECONDS
    kinds = ["shipper", "server", "watched"] if chaos.server else ["shipper", "watched"]
    while time.monotonic() < end:
        time.sleep(chosen.uniform(0.2, 2))
        chaos.kill(chosen.choice(kinds))


def check(records: list[dict[str, object]], chaos: Chaos, newest: int) -> None:
    """Of the living one all is told; of a dead one all up to the last that came."""
    assert uncovered(records, chaos.watched.epoch, newest) == []
    for dead in chaos.dead:
        seqs = [record["seq"] for record in records if record["epoch"] == dead.epoch and "name" in record]
        assert uncovered(records, dead.epoch, max(seqs, default=0)) == []  # type: ignore[type-var]
    print(f"{len(records)} records, {check_duplicates(records)} of them twice, {len(chaos.dead)} processes killed")


@pytest.mark.timeout(SECONDS + 240)
def test_to_a_file(runtime: Path, watch: Callable[..., Watched], ship: Callable[..., Ship]) -> None:
    file = runtime / "events.ndjson"
    chaos = Chaos(runtime, lambda: watch("65536", "0.005"), ship("--to", file), None)
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
        server.make_stream(window_s=60)
        chaos = Chaos(runtime, lambda: watch("65536", "0.01"), ship("--to", server.url), server)
        run(chaos, 2)
        newest, epoch = int(chaos.watched.say("newest")), chaos.watched.epoch

        def has_come() -> bool:
            return any(said["epoch"] == epoch and said.get("seq", 0) >= newest for _, said in server.messages(200))

        wait_for(has_come, what="the newest event")
        assert chaos.shipper.end() == 0
        check([document for _, document in server.messages()], chaos, newest)
    finally:
        server.kill()
