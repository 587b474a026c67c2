"""What a thousand hosts that ship ask of a server: Collector, NATS JetStream, or a stand-in that decodes and forgets.

Each simulated host has a connection of its own and sends, once a second, what `memwatch ship` sends of a watcher with
EVENTS events a second: the same request with the same records, and messages with the same headers. The server is a
process of its own, whose CPU time, memory and answer times are printed. The hosts share this machine with it: where
they cannot keep their pace, the line says how many a second they came to.

usage: ship_hosts.py [HOSTS, 1000] [SECONDS, 20] [EVENTS, 10]
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from ship.parts import Ship, Watched, free_port, lines, wait_for

from memwatch._ship.otlp_json import request
from memwatch._ship.record import Origin, Record, of_event

VERSION = "0"
COLLECTOR = Path(__file__).resolve().parents[1] / "build" / "collector" / "collector"
CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: 127.0.0.1:PORT}}}}
exporters: {debug: {verbosity: basic}}
service: {pipelines: {logs: {receivers: [otlp], exporters: [debug]}}, telemetry: {metrics: {level: none}}}
"""


class Server(NamedTuple):
    """What is measured."""

    name: str
    pid: int
    port: int


class Host:
    """One shipper, as a server sees it. Of each delivery `taken` gets the time until it was acknowledged."""

    def __init__(self, number: int, events: list[dict[str, Any]], port: int, taken: list[float]) -> None:
        self.epoch = f"{number:016x}"
        self._events, self._port, self._taken = events, port, taken
        self._origin = Origin(self.epoch, "simulated", "", 1, f"host-{number}")
        self._seq = 0

    def _records(self) -> list[Record]:
        begin, self._seq = self._seq, self._seq + len(self._events)
        return [of_event(self.epoch, {**event, "seq": begin + at}) for at, event in enumerate(self._events, 1)]

    async def run(self, end: float, deliver: Callable[[Any, Any], Any]) -> None:
        """A delivery a second until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.sleep(random.random())
        while time.monotonic() < end:
            started = time.monotonic()
            await deliver(reader, writer)
            self._taken.append(time.monotonic() - started)
            await asyncio.sleep(max(started + 1 - time.monotonic(), 0))
        writer.close()

    async def post(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As OTLP."""
        said = request(self._origin, self._records(), VERSION, time.time_ns())
        body = gzip.compress(json.dumps(said, separators=(",", ":")).encode(), 1)
        head = f"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200"), head
        await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))

    async def publish(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As messages of JetStream, each acknowledged."""
        inbox = f"_INBOX.{self.epoch}"
        if not self._seq:
            writer.write(f'CONNECT {{"verbose":false,"headers":true}}\r\nSUB {inbox} 1\r\n'.encode())
        records = self._records()
        for record in records:
            header, line = f"NATS/1.0\r\nNats-Msg-Id: {record.id}\r\n\r\n".encode(), record.line(self._origin)
            size = f"{len(header)} {len(header) + len(line)}"
            writer.write(f"HPUB memwatch.events {inbox} {size}\r\n".encode() + header + line + b"\r\n")
        waiting = len(records)
        while waiting:
            words = (await reader.readuntil(b"\r\n")).split()
            if words[0] == b"PING":
                writer.write(b"PONG\r\n")
            elif words[0] == b"MSG":
                answer = await reader.readexactly(int(words[-1]) + 2)
                assert b'"seq"' in answer, answer
                waiting -= 1


# --- servers ----------------------------------------------------------------------------------------------------------


async def stand_in(port: int) -> None:
    """Decodes each request and forgets it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = int(head.partition(b"Content-Length:")[2].split()[0])
            json.loads(gzip.decompress(await reader.readexactly(size)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024) as server:
        await server.serve_forever()


@contextmanager
def process(name: str, port: int, *command: str) -> Iterator[Server]:
    """A server until it listens, and its end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            wait_for(lambda: listens(port), what=name)
            yield Server(name, running.pid, port)
        finally:
            running.kill()


def listens(port: int) -> bool:
    """Whether somebody does, without a connection."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(line.split()[1:4:2] == [f"0100007F:{port:04X}", "0A"] for line in table)


def cpu_s(pid: int) -> float:
    """What all threads of it have used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> int:
    """Its memory now."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def make_stream(port: int) -> None:
    """What takes the messages, on the disk, as docs/shipping.md says."""
    import nats

    async def make() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        await client.jetstream().add_stream(name="MEMWATCH", subjects=["memwatch.events"])
        await client.close()

    asyncio.run(make())


# --- the measurement --------------------------------------------------------------------------------------------------


def sample(folder: Path, n: int) -> list[dict[str, Any]]:
    """Events as a feed has them."""
    watched = Watched(folder)
    watched.write(n)
    Ship(folder, "--to", folder / "events").once()
    watched.end()
    origin = ("id", "epoch", "host", "service", "worker", "pid", "labels")
    events = [line for line in lines(folder / "events") if line["kind"] == "change"]
    return [{key: value for key, value in line.items() if key not in origin} for line in events[:n]]


def measure(server: Server, events: list[dict[str, Any]], n_hosts: int, seconds: float) -> None:
    """Prints a line of one server."""
    taken: list[float] = []
    hosts = [Host(number, events, server.port, taken) for number in range(n_hosts)]

    async def all_of_them() -> None:
        end = time.monotonic() + seconds
        deliver = "publish" if server.name == "NATS JetStream" else "post"
        await asyncio.gather(*(host.run(end, getattr(host, deliver)) for host in hosts))

    before, started = cpu_s(server.pid), time.monotonic()
    asyncio.run(all_of_them())
    passed, used = time.monotonic() - started, cpu_s(server.pid) - before
    n_records = len(taken) * len(events)
    late = quantiles(taken, n=20)[-1]
    rate, each_us = n_records / passed, used / n_records * 1e6
    print(f"{server.name:15} {n_hosts} hosts: {rate:.0f} records a second, {each_us:.0f} us of CPU each, ", end="")
    print(
        f"{resident_mib(server.pid)} MiB; answers after {median(taken):.3f} s, 19 of 20 within {late:.3f} s", flush=True
    )


def main() -> None:
    """Measures each server that is here."""
    if sys.argv[1:2] == ["--stand-in"]:
        asyncio.run(stand_in(int(sys.argv[2])))
    given = [int(word) for word in sys.argv[1:]]
    n_hosts, seconds, n_events = [*given, *(1000, 20, 10)[len(given) :]]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = Path(tempfile.mkdtemp(prefix="ship-hosts-"))
    try:
        events = sample(folder, n_events)
        port = free_port()
        with process("stand-in", port, sys.executable, __file__, "--stand-in", str(port)) as server:
            measure(server, events, n_hosts, seconds)
        if COLLECTOR.exists():
            (folder / "collector.yaml").write_text(CONFIG.replace("PORT", str(port)))
            with process("Collector", port, str(COLLECTOR), "--config", f"file:{folder}/collector.yaml") as server:
                measure(server, events, n_hosts, seconds)
        if shutil.which("nats-server"):
            command = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "store")]
            with process("NATS JetStream", port, *command) as server:
                make_stream(port)
                measure(server, events, n_hosts, seconds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
