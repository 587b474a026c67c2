"""The exporter in its host process: ports, forks, closing, descriptors and threads."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable

import pytest

from .service import SANITIZED, Service, wait_for
from .test_feeds import EVENTS, closing_s, open_streams

Start = Callable[..., Service]


def test_a_port_in_use_is_an_error_and_the_host_lives(start: Start) -> None:
    first = start()
    second = Service(port=first.port)
    assert second.hello[:2] == ["error", "98"]
    assert "in use" in " ".join(second.hello)
    second.close()
    assert first.get("/metrics")[0] == 200


def test_any_port_is_reported(service: Service) -> None:
    assert service.port > 1024
    address, _, code = service.url.partition("#")
    assert (address, len(code)) == (f"http://127.0.0.1:{service.port}/", 32)


def test_nothing_is_left_after_close(service: Service) -> None:
    service.do("close")
    threads, descriptors = service.do("threads"), service.do("descriptors")
    for _ in range(5):
        service.open()
        assert service.do("threads") == [str(int(threads[0]) + 2)]
        clients = open_streams(service, 5)
        service.metrics()
        service.do("close")
        assert (service.do("threads"), service.do("descriptors")) == (threads, descriptors)
        for client in clients:
            client.close()


@pytest.mark.skipif(SANITIZED, reason="sanitizers have a pthread_create of their own")
def test_without_threads_nothing_is_closed_that_is_anothers(service: Service) -> None:
    service.do("close")
    descriptors = service.do("descriptors")
    failures, bad_closes = map(int, service.do("crowded"))
    assert failures >= 2
    assert bad_closes == 0
    service.do("close")
    assert service.do("descriptors") == descriptors


@pytest.mark.alone
def test_nothing_is_left_of_a_thousand_clients(start: Start, slowness: Callable[[], float]) -> None:
    service = start(feed_limit=1000, connection_limit=1100, heartbeat_ms=60000)
    service.do("close")
    threads, descriptors = service.do("threads"), service.do("descriptors")
    service.open()
    clients = open_streams(service, 1000)
    assert closing_s(service) < (5 if SANITIZED else 0.25) * slowness()
    assert (service.do("threads"), service.do("descriptors")) == (threads, descriptors)
    for client in clients:
        client.close()


@pytest.mark.alone
def test_closing_does_not_wait_for_the_pump(start: Start) -> None:
    """With a client the pump sits in the watcher, where closing has to end its wait."""
    service = start(heartbeat_ms=60000)
    times = []
    for _ in range(15):
        (client,) = open_streams(service, 1)
        times.append(closing_s(service))
        client.close()
        service.open()
    assert sorted(times)[7] < (1 if SANITIZED else 0.015)


def test_closing_is_quick_and_ends_streams(start: Start) -> None:
    service = start()
    clients = open_streams(service, 20)
    begun = time.monotonic()
    service.do("close")
    assert time.monotonic() - begun < 1
    for client in clients:
        client.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(65536):
                pass
        client.close()


def sockets_of(pid: int) -> list[str]:
    names = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return [name for name in names if name.startswith("socket:")]


def test_a_child_does_not_hold_the_port_or_the_clients(service: Service) -> None:
    (client,) = open_streams(service, 1)
    child = int(service.do("fork")[1])
    try:
        service.do("temperature 1")
        assert service.json(EVENTS)["newest"] >= 1
        wait_for(lambda: not sockets_of(child))  # it lets go by itself
        port = service.port
        service.do("close")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            probe.listen()
    finally:
        os.kill(child, signal.SIGKILL)
        client.close()


def test_the_port_is_free_at_once_after_the_end(start: Start) -> None:
    first = start()
    port = first.port
    first.metrics()
    assert first.close() == 0
    assert start(port=port).get("/metrics")[0] == 200
