"""What somebody learns who comes after the fact: the newest events first, and the last one of each region."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable

import pytest

from .service import TOKEN, Service

Start = Callable[..., Service]


def seqs(page: dict[str, list[dict[str, int]]]) -> list[int]:
    return [event["seq"] for event in page["events"]]


def changed(service: Service) -> Service:
    """The temperature changes ten times, the counter between them and after."""
    for i in range(10):
        service.do(f"temperature {i}.5")
        service.do(f"counter {i + 1}")
    for i in range(20, 25):
        service.do(f"counter {i}")
    return service


def test_newest_first(service: Service) -> None:
    changed(service)
    page = service.json("/api/v1/events?order=newest&limit=4")
    newest = page["newest"]
    assert seqs(page) == [newest, newest - 1, newest - 2, newest - 3]
    assert (page["next"], page["before"], page["missed"]) == (newest, newest - 3, 0)
    assert service.json("/api/v1/events?order=oldest&limit=4") == service.json("/api/v1/events?limit=4")


def test_newest_of_a_variable(service: Service) -> None:
    changed(service)
    page = service.json("/api/v1/events?order=newest&name=temp*&limit=3")
    assert [event["new_number"] for event in page["events"]] == [9.5, 8.5, 7.5]
    older = service.json(f"/api/v1/events?order=newest&name=temp*&limit=100&before={page['before']}")
    assert [event["new_number"] for event in older["events"]] == [6.5, 5.5, 4.5, 3.5, 2.5, 1.5, 0.5]
    assert older["before"] is None
    assert service.json("/api/v1/events?order=newest&name=nobody")["events"] == []


def test_every_event_once_page_by_page(service: Service) -> None:
    service.do("many 700")
    service.do("touch_all 700")
    whole = seqs(service.json("/api/v1/events?limit=1000"))
    assert len(whole) >= 700
    got: list[int] = []
    before = ""
    while True:
        page = service.json(f"/api/v1/events?order=newest&limit=97{before}")
        got += seqs(page)
        if page["before"] is None:
            break
        before = f"&before={page['before']}"
    assert got == whole[::-1]


def test_bounds(service: Service) -> None:
    changed(service)
    newest = service.json("/api/v1/status")["newest"]
    assert seqs(service.json(f"/api/v1/events?order=newest&since={newest - 2}")) == [newest, newest - 1]
    assert seqs(service.json("/api/v1/events?order=newest&since=latest")) == []
    assert seqs(service.json("/api/v1/events?order=newest&before=3")) == [2, 1]
    assert seqs(service.json(f"/api/v1/events?order=newest&limit=1&before={newest + 9}")) == [newest]
    for wrong in ("order=up", "before=3", "order=newest&before=x", "order=newest&before=0", "order=newest&wait=1"):
        assert service.get(f"/api/v1/events?{wrong}")[0] == 400, wrong


def test_newest_as_lines(service: Service) -> None:
    changed(service)
    headers = {"Accept": "application/x-ndjson"}
    _, numbers, body = service.get("/api/v1/events?order=newest&limit=2", headers=headers)
    lines = [json.loads(line) for line in body.splitlines()]
    assert [line["seq"] for line in lines] == [int(numbers["memwatch-newest"]), int(numbers["memwatch-newest"]) - 1]
    assert int(numbers["memwatch-before"]) == lines[-1]["seq"]


def test_each_region_has_its_last_event(start: Start) -> None:
    """Also when the log has moved past it, as long as the history keeps it."""
    service = start(event_capacity=32)
    service.do("temperature 36.6")
    service.do("large 3")
    for i in range(50):
        service.do(f"counter {i + 1}")
    regions = {region["name"]: region for region in service.json("/api/v1/regions")["regions"]}
    last = regions["temperature"]["last"]
    assert last["new_number"] == 36.6
    assert (last["seq"], last["time_ms"]) == (
        regions["temperature"]["last_seq"],
        regions["temperature"]["last_time_ms"],
    )
    assert last["where"]["attribution"] in ("exact", "page", "none")
    assert regions["counter"]["last"]["new_number"] == 50
    assert regions["large"]["last"]["new"] is None and regions["large"]["last"]["new_preview"]
    assert regions["text"]["last"] is None


def test_gzip_for_who_asks(service: Service) -> None:
    service.do("many 60")
    service.do("touch_all 60")
    for path in ("/metrics", "/api/v1/events", "/api/v1/regions"):
        plain_status, plain_headers, plain = service.get(path)
        assert plain_status == 200 and "content-encoding" not in plain_headers
        for accept in ("gzip", "deflate, gzip;q=0.5", "*", "br, x-gzip"):
            status, headers, body = service.get(path, headers={"Accept-Encoding": accept})
            assert (status, headers["content-encoding"]) == (200, "gzip"), (path, accept)
            assert "Accept-Encoding" in headers["vary"]
            assert len(body) < len(plain) / 2 and int(headers["content-length"]) == len(body)
            if path == "/api/v1/events":
                assert json.loads(gzip.decompress(body)) == json.loads(plain)
        for accept in ("identity", "gzip;q=0", "*;q=0", "gzip;q=0, *", ""):
            assert "content-encoding" not in service.get(path, headers={"Accept-Encoding": accept})[1], accept
    lines = {"Accept": "application/x-ndjson", "Accept-Encoding": "gzip"}
    assert gzip.decompress(service.get("/api/v1/events", headers=lines)[2]).count(b"\n") >= 60
    assert "content-encoding" not in service.get("/-/healthy", headers={"Accept-Encoding": "gzip"})[1]


def test_streams_are_never_compressed(service: Service) -> None:
    with service.stream("/api/v1/events/stream?since=0", {"Accept-Encoding": "gzip"}) as stream:
        assert stream.response.getheader("Content-Encoding") is None
        service.do("temperature 3")
        assert stream.next("change")[2]["new_number"] == 3


def test_two_colons_are_both_families(start: Start) -> None:
    service = start(host="::", insecure=1, token=TOKEN)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as connection:
            connection.settimeout(30)
            connection.connect((address, service.port))
            connection.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
            assert connection.recv(1000).split()[1] == b"200"


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_probes_come_as_they_are(start: Start, path: str) -> None:
    """By the address of a pod, in HTTP/1.0, by a whole address, with no Host at all."""
    service = start(host="::", insecure=1, token=TOKEN)
    for request in (
        f"GET {path} HTTP/1.0\r\n\r\n",
        f"GET {path} HTTP/1.1\r\nHost: 10.244.0.17:{service.port}\r\nConnection: close\r\n\r\n",
        f"GET http://10.244.0.17:{service.port}{path} HTTP/1.0\r\n\r\n",
        f"GET http://pod:9{path} HTTP/1.1\r\nHost: pod:9\r\nUser-Agent: kube-probe/1.31\r\nConnection: close\r\n\r\n",
        f"HEAD {path} HTTP/1.0\r\n\r\n",
    ):
        with service.connect() as connection:
            connection.sendall(request.encode())
            assert connection.recv(1000).split()[1] == b"200", request
