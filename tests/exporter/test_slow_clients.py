"""Clients that are slow, silent, or do not read: they lose their place, and stop nobody."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .service import LIMIT_S, Service, wait_for
from .test_metrics import make_certificate
from .test_security import NO_RIGHTS, RIGHTS, request

Start = Callable[..., Service]


def test_a_dripping_request_is_cut(service: Service) -> None:
    """One header byte now and then keeps libmicrohttpd's own timeout from ever running out."""
    connection = service.connect(60)
    connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
    begun = time.monotonic()
    connection.settimeout(0.5)
    answer = b""
    while not answer:
        assert time.monotonic() - begun < 20
        with contextlib.suppress(TimeoutError):
            connection.sendall(b"a")
            answer = connection.recv(4096)
    assert time.monotonic() - begun > 5
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and b"Content-Type: application/json" in head
    assert f"Content-Length: {len(body)}".encode() in head and json.loads(body)["error"]
    assert connection.recv(4096) == b""
    connection.close()
    assert service.sample("memwatch_http_slow_clients_total") == 1


def test_silent_connections_do_not_keep_others_out(start: Start) -> None:
    service = start(connection_limit=20, feed_limit=10)
    silent = [service.connect() for _ in range(10)]
    assert service.get("/metrics")[0] == 200
    for connection in silent:
        connection.close()
    wait_for(lambda: service.sample("memwatch_http_connections") == 1)


def test_more_silent_connections_than_there_are_places(start: Start) -> None:
    """The oldest give way, with a word, and a scrape does not wait for their deadline; who streams stays."""
    service = start(connection_limit=20, feed_limit=10)
    with service.stream() as stream:
        begun = time.monotonic()
        silent = [service.connect() for _ in range(100)]
        assert service.get("/metrics")[0] == 200
        assert time.monotonic() - begun < 5
        head, _, body = silent[0].recv(4096).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ") and json.loads(body)["error"]
        assert service.sample("memwatch_http_slow_clients_total") >= 80
        service.do("temperature 1")
        assert stream.next("change")[2]["name"] == "temperature"
        for connection in silent:
            connection.close()


def stalled(service: Service, header: str) -> socket.socket:
    """A client that asks hundreds of times, and reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    connection.settimeout(LIMIT_S)
    connection.connect(("127.0.0.1", service.port))
    lines = ["GET /metrics HTTP/1.1", f"Host: {service.host}", header]
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError, ConnectionError):
        connection.send(400 * request(service, *lines))
    return connection


def answer_ms(service: Service, path: str) -> float:
    begun = time.monotonic()
    assert service.get(path)[0] == 200
    return 1000 * (time.monotonic() - begun)


def memory_bytes(service: Service) -> int:
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.alone
@pytest.mark.parametrize("n_variables", [0, 2000])
def test_clients_that_do_not_read_stop_nobody(start: Start, slowness: Callable[[], float], n_variables: int) -> None:
    """More of them than there are places, without rights, each with hundreds of requests under way."""
    service = start(variable_limit=2000)
    service.do(f"many {n_variables}")
    service.metrics()
    before = memory_bytes(service)
    with contextlib.ExitStack() as clients:
        for _ in range(200):
            clients.enter_context(stalled(service, NO_RIGHTS))
        wait_for(lambda: service.sample('memwatch_http_requests_total{handler="metrics",code="200"}') >= 200)
        times = [answer_ms(service, path) for _ in range(10) for path in ("/-/healthy", "/metrics")]
        assert sorted(times)[len(times) // 2] < 50 * slowness(), times
        assert memory_bytes(service) - before < 64 << 20


def test_who_holds_all_places_and_does_not_read_gives_way(start: Start) -> None:
    """With the token, so that requests pile up: each new connection takes the place of one that is stalled."""
    service = start(connection_limit=20, feed_limit=10)
    with contextlib.ExitStack() as clients:
        for _ in range(60):
            clients.enter_context(stalled(service, RIGHTS))
        begun = time.monotonic()
        assert service.get("/-/healthy")[0] == 200
        assert time.monotonic() - begun < 4  # sooner than the first of them is late
        assert service.sample("memwatch_http_slow_clients_total") >= 40


def test_who_reads_nothing_for_long_is_cut(service: Service) -> None:
    service.do("many 5000")
    clients = [stalled(service, RIGHTS), stalled(service, RIGHTS)]
    wait_for(lambda: service.sample("memwatch_http_slow_clients_total") == 2)
    for client in clients:
        client.close()


def test_who_reads_slowly_is_not_cut(service: Service) -> None:
    """Longer than the deadline, a little at a time."""
    with stalled(service, RIGHTS) as connection:
        connection.settimeout(LIMIT_S)
        end = time.monotonic() + 12
        while time.monotonic() < end:
            assert connection.recv(4096)
            time.sleep(0.1)
    assert service.sample("memwatch_http_slow_clients_total") == 0


def test_without_the_token_a_connection_has_one_answer(service: Service) -> None:
    lines = ["GET /metrics HTTP/1.1", f"Host: {service.host}"]
    for header, n in ((NO_RIGHTS, 1), (RIGHTS, 3)):
        requests = 2 * request(service, *lines, header) + request(service, *lines, header, "Connection: close")
        with service.connect() as connection:
            connection.sendall(requests)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    answer += chunk
        assert answer.count(b"HTTP/1.1 200 ") == n


def test_globs_cost_little(start: Start) -> None:
    """Names and patterns of the worst kind: health does not wait for them."""
    service = start(event_capacity=65536)
    service.do("long_names 40")
    for _ in range(100):
        service.do("touch_all 40")
    pattern = "&".join(8 * ["name=*" + 115 * "a" + "b"])
    done: list[float] = []

    def search() -> None:
        begun = time.monotonic()
        since = 0
        while not done:
            page = service.json(f"/api/v1/events?since={since}&{pattern}")
            assert page["events"] == []
            if page["next"] == page["newest"]:
                done.append(time.monotonic() - begun)
            since = page["next"]

    thread = threading.Thread(target=search)
    thread.start()
    times = []
    while not done:
        times.append(answer_ms(service, "/-/healthy"))
    thread.join()
    assert sorted(times)[len(times) // 2] < 100, times
    assert max(times) < 1000, times


def test_silent_connections_give_way_under_tls(start: Start, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    service = start(connection_limit=20, feed_limit=10, tls_cert_file=certificate, tls_key_file=key)
    begun = time.monotonic()
    silent = [service.connect() for _ in range(100)]
    context = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection("127.0.0.1", service.port, context=context, timeout=LIMIT_S)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 200
    assert time.monotonic() - begun < 5
    for one in (connection, *silent):
        one.close()
