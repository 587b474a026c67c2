"""NATS JetStream: a real server, which is killed and started again in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .parts import LIMIT_S, Ship, Watched, check_duplicates, free_port, uncovered, wait_for

nats = pytest.importorskip("nats")
pytestmark = pytest.mark.skipif(not shutil.which("nats-server"), reason="no nats-server (apt-get install nats-server)")
Watch = Callable[..., Watched]
Start = Callable[..., Ship]
AT_ONCE = 128


class Server:
    """nats-server with JetStream, whose store outlives it."""

    def __init__(self, store: Path) -> None:
        self.port, self.store = free_port(), store
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, max_payload: int = 1 << 20) -> None:
        config = self.store.with_suffix(".conf")
        config.write_text(f"max_payload: {max_payload}\n")
        command = ["nats-server", "-c", str(config), "-a", "127.0.0.1", "-p", str(self.port)]
        command += ["-js", "-sd", str(self.store)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.answers, what="nats-server")

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            return connection.recv(5) == b"INFO "
        return False

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(LIMIT_S)

    def make_stream(self, window_s: float = 120, subject: str = "memwatch.events", **limits: int) -> None:
        async def make(context: Any) -> None:
            await context.add_stream(name="MEMWATCH", subjects=[subject], duplicate_window=window_s, **limits)

        self._run(make)

    def take_sizes(self) -> dict[str, int]:
        """Of each message, by its id, with its header. The stream is deleted."""
        found = {}

        async def take(context: Any) -> None:
            for seq in range(1, (await context.stream_info("MEMWATCH")).state.last_seq + 1):
                message = await context.get_msg("MEMWATCH", seq)
                id = message.headers["Nats-Msg-Id"]
                found[id] = len(message.data) + len(f"NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n")
            await context.delete_stream("MEMWATCH")

        self._run(take)
        return found

    def messages(self, newest: int = 1 << 60) -> list[tuple[str, dict[str, Any]]]:
        """All that the stream has, or so many of the newest: message id and document."""
        found: list[tuple[str, dict[str, Any]]] = []

        async def read(context: Any) -> None:
            state = (await context.stream_info("MEMWATCH")).state
            end = state.last_seq + 1
            for begin in range(max(state.first_seq, 1, end - newest), end, AT_ONCE):
                seqs = range(begin, min(begin + AT_ONCE, end))
                for message in await asyncio.gather(*(context.get_msg("MEMWATCH", seq) for seq in seqs)):
                    found.append((message.headers["Nats-Msg-Id"], json.loads(message.data)))

        self._run(read)
        return found

    def _run(self, what: Callable[[Any], Any]) -> None:
        async def run() -> None:
            client = await nats.connect(self.url, connect_timeout=10)
            try:
                await what(client.jetstream(timeout=30))
            finally:
                await client.close()

        asyncio.run(run())


@pytest.fixture
def server(runtime: Path) -> Iterator[Server]:
    server = Server(runtime / "jetstream")
    server.start()
    yield server
    server.kill()


def test_each_event_once(watch: Watch, ship: Start, server: Server) -> None:
    watched = watch()
    newest = watched.write(300)
    server.make_stream()
    shipper = ship("--to", server.url)
    shipper.once()
    shipper.once()
    found = server.messages()
    assert [id for id, _ in found] == [f"{watched.epoch}-{seq}" for seq in range(1, newest + 1)]
    assert all(document["id"] == id and document["epoch"] == watched.epoch for id, document in found)


def test_a_lost_cursor_makes_no_duplicates_within_the_window(
    watch: Watch, ship: Start, server: Server, runtime: Path
) -> None:
    watched = watch()
    newest = watched.write(20)
    server.make_stream()
    ship("--to", server.url, "--state", runtime / "one").once()
    ship("--to", server.url, "--state", runtime / "two").once()
    assert len(server.messages()) == newest


def test_no_stream_is_said(watch: Watch, ship: Start, server: Server) -> None:
    watched = watch()
    watched.write(2)
    shipper = ship("--to", server.url, "--subject", "elsewhere", "--give-up-after", "1")
    assert "no stream takes that subject" in shipper.once(status=1)
    server.make_stream(subject="elsewhere")
    shipper.once()
    assert len(server.messages()) >= 2


@pytest.mark.parametrize("whose", ["server", "stream"])
def test_what_is_too_large_is_refused_for_good_and_holds_up_nothing(
    watch: Watch, ship: Start, server: Server, runtime: Path, whose: str
) -> None:
    watch().write(30)
    server.make_stream()
    ship("--to", server.url, "--state", runtime / "one").once()
    sizes = server.take_sizes()
    limit = max(sizes.values()) - 1
    if whose == "stream":
        server.make_stream(max_msg_size=limit)
    else:
        server.make_stream()
        server.kill()
        server.start(max_payload=limit)
    arguments = ("--state", runtime / "two", "--metrics-file", runtime / "m", "--give-up-after", "20")
    said = ship("--to", server.url, *arguments).once(status=1)
    fit = [id for id, size in sizes.items() if size <= limit]
    assert 0 < len(fit) < len(sizes)
    assert sorted(id for id, _ in server.messages()) == sorted(fit)
    n_refused = len(sizes) - len(fit)
    assert said.count("is too large") == n_refused
    assert f"memwatch_ship_rejected_events_total {n_refused}\n" in (runtime / "m").read_text()


def test_nobody_there_is_said(watch: Watch, ship: Start) -> None:
    watch().write(1)
    said = ship("--to", f"nats://127.0.0.1:{free_port()}", "--give-up-after", "1").once(status=1)
    assert "cannot be reached" in said


def test_credentials_that_are_missing_are_said_at_once(watch: Watch, ship: Start, runtime: Path) -> None:
    watch()
    assert "creds: No such file" in ship("--to", "nats://127.0.0.1:4222", "--nats-creds", runtime / "creds").once(1)
    if importlib.util.find_spec("nkeys") is None:
        (runtime / "creds").touch()
        assert "needs nkeys" in ship("--to", "nats://127.0.0.1:4222", "--nats-creds", runtime / "creds").once(1)


def test_the_server_is_killed_in_the_middle(watch: Watch, ship: Start, server: Server) -> None:
    """Twice, while events come all the time; what it acknowledged it has, and all the rest comes."""
    watched = watch("65536", "0.002")
    server.make_stream()
    shipper = ship("--to", server.url).start()
    for _ in range(2):
        before = len(server.messages())
        wait_for(lambda seen=before: len(server.messages()) > seen + 30, what="messages")
        server.kill()
        watched.write(30)
        server.start()
    newest = watched.write(1)
    wait_for(lambda: any(document["seq"] >= newest for _, document in server.messages()), what="the newest event")
    assert shipper.end() == 0
    found = [document for _, document in server.messages()]
    assert uncovered(found, watched.epoch, newest) == []
    check_duplicates(found)
