"""The event feeds: pages, long polls, NDJSON and SSE; what is told when events are gone, and what waiting costs."""

from __future__ import annotations

import base64
import json
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .service import SANITIZED, TOKEN, Service, wait_for
from .test_security import refused

Start = Callable[..., Service]
EVENTS = "/api/v1/events"


def cpu_s(service: Service) -> float:
    """Processor time of the service so far."""
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(service: Service) -> int:
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seqs(page: dict[str, Any]) -> list[int]:
    return [event["seq"] for event in page["events"]]


# --- one event ---


def test_the_fields_of_an_event(service: Service) -> None:
    service.do("temperature 36.6")
    page = service.json(EVENTS)
    (event,) = page["events"]
    assert (page["schema"], page["oldest"], page["newest"], page["next"], page["missed"]) == (2, 1, 1, 1, 0)
    assert len(page["epoch"]) == 16
    assert (event["seq"], event["name"], event["kind"], event["size"], event["values"]) == (
        1,
        "temperature",
        "change",
        8,
        "full",
    )
    assert base64.b64decode(event["new"]) == struct.pack("<d", 36.6) == base64.b64decode(event["new_preview"])
    assert (event["old_number"], event["new_number"]) == (0, 36.6)
    assert int(event["time_ns"]) // 1_000_000 == event["time_ms"]
    assert abs(event["time_ms"] / 1000 - time.time()) < 60
    assert event["changed_bytes"] == sum(length for _, length in event["changes"])
    assert event["where"]["attribution"] in {"exact", "page", "none"}
    assert (event["where"]["reason"] is None) == (event["where"]["attribution"] != "none")


def test_whole_numbers_are_exact(service: Service) -> None:
    numbers: list[tuple[int, Any]] = [
        (2**53 - 1, 2**53 - 1),
        (2**53, 2**53),
        (2**53 + 1, str(2**53 + 1)),
        (-(2**53) - 1, str(-(2**53) - 1)),
        (2**63 - 1, str(2**63 - 1)),
        (-(2**63), str(-(2**63))),
        (4503599627370499, 4503599627370499),
        (1750000000000000, 1750000000000000),
    ]
    for number, expected in numbers:
        service.do(f"counter {number}")
        assert service.json(EVENTS + "?since=latest")["newest"]
        event = service.json(EVENTS + "?name=counter&limit=1000")["events"][-1]
        assert event["new_number"] == expected
    service.do(f"huge {2**64 - 1}")
    assert service.json(EVENTS + "?name=huge")["events"][-1]["new_number"] == str(2**64 - 1)


def test_changed_items_of_an_array_are_decoded(service: Service) -> None:
    service.do("weight 6 0.5")
    service.do("weight 6 nan")
    first, second = service.json(EVENTS + "?name=weights")["events"]
    assert first["elements"] == [{"index": [1, 2], "old": 0, "new": 0.5}]
    assert second["elements"] == [{"index": [1, 2], "old": 0.5, "new": "NaN"}]
    assert second["shape"] == [3, 4]


def test_policies_hide_what_they_say(service: Service) -> None:
    service.do("secret 77")
    (hashed,) = service.json(EVENTS + "?name=secret-hash")["events"]
    (hidden,) = service.json(EVENTS + "?name=secret-none")["events"]
    for event in (hashed, hidden):
        assert event["old"] is event["new"] is event["old_preview"] is event["new_preview"] is event["key_new"] is None
        assert base64.b64encode(b"MMMM").decode()[:5] not in json.dumps(event)
    assert hashed["old_hash"] != hashed["new_hash"]
    assert "new_hash" not in hidden


def test_large_values_are_read_by_key(service: Service) -> None:
    service.do("large 1")
    service.do("large 2")
    first, second = service.json(EVENTS + "?name=large")["events"]
    assert first["new"] is None
    assert len(base64.b64decode(first["new_preview"])) == 256
    for key, byte in ((first["key_old"], 0), (second["key_old"], 1), (second["key_new"], 2)):
        status, headers, body = service.get(f"/api/v1/values/{key}")
        assert (status, body) == (200, bytes([byte]) * 8192)
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment")
        again = service.get(f"/api/v1/values/{key}", headers={"If-None-Match": headers["etag"]})
        assert (again[0], again[2]) == (304, b"")
    refused(service.get("/api/v1/values/" + 32 * "0"), 404)
    refused(service.get("/api/v1/values/../status"), 400)
    refused(service.get("/api/v1/values/" + 32 * "G"), 400)


def test_an_evicted_version_is_gone_and_names_the_oldest_kept(start: Start) -> None:
    service = start(history_budget=20000)
    for byte in range(1, 6):
        service.do(f"large {byte}")
    events = service.json(EVENTS + "?name=large")["events"]
    status, _, body = service.get(f"/api/v1/values/{events[0]['key_old']}")
    assert status == 410
    assert "the oldest kept is" in json.loads(body)["error"]
    assert service.get(f"/api/v1/values/{events[-1]['key_old']}")[0] == 200


def test_a_key_that_was_never_given_out_is_not_found(service: Service) -> None:
    service.do("large 1")
    (event,) = service.json(EVENTS + "?name=large")["events"]
    ahead = f"{int(event['key_new'], 16) + 7:032x}"
    refused(service.get(f"/api/v1/values/{ahead}"), 404)
    service.do("remove large")
    refused(service.get(f"/api/v1/values/{event['key_new']}"), 410)


def region_id(service: Service, name: str) -> str:
    return next(region["region_id"] for region in service.json("/api/v1/regions")["regions"] if region["name"] == name)


def test_the_past_of_a_region(service: Service) -> None:
    for number in (1, 2, 3):
        service.do(f"counter {number}")
    region = f"/api/v1/regions/{region_id(service, 'counter')}"
    history = service.json(f"{region}/history?limit=2")
    assert [event["new_number"] for event in history["events"]] == [3, 2]
    older = service.json(f"{region}/history?before={history['next']}")
    assert [event["new_number"] for event in older["events"]] == [1]
    assert older["next"] is None
    by_seq = {event["seq"]: event["new_number"] for event in history["events"] + older["events"]}
    for seq, number in [*by_seq.items(), (0, 0)]:
        status, headers, body = service.get(f"{region}/value?seq={seq}")
        assert (status, struct.unpack("<q", body)[0]) == (200, number)
        assert headers["content-type"] == "application/octet-stream"
    assert struct.unpack("<q", service.get(f"{region}/value")[2])[0] == 3
    last_ms = history["events"][0]["time_ms"]
    assert struct.unpack("<q", service.get(f"{region}/value?time_ms={last_ms + 1000}")[2])[0] == 3
    for never in ("time_ms=1", "seq=4"):
        refused(service.get(f"{region}/value?{never}"), 404)


def test_blame(service: Service) -> None:
    service.do("weight 2 1.5")
    service.do("weight 3 2.5")
    region = f"/api/v1/regions/{region_id(service, 'weights')}"
    runs = service.json(f"{region}/blame?offset=16&size=16")["runs"]
    assert sum(run["size"] for run in runs) == 16
    assert {run["seq"] for run in runs} - {None} == {1, 2}
    assert all("attribution" in run["where"] for run in runs if run["seq"])
    assert service.json(f"{region}/blame")["runs"][0]["offset"] == 0


def test_what_a_region_does_not_give(service: Service) -> None:
    service.do("secret 7")
    secret, weights = (f"/api/v1/regions/{region_id(service, name)}" for name in ("secret-hash", "weights"))
    refused(service.get(f"{secret}/value"), 403)
    refused(service.get(f"{secret}/blame"), 403)
    for path in (
        f"{weights}/nothing",
        f"{weights}",
        f"{weights}/",
        "/api/v1/regions/99999/value",
        "/api/v1/regions/x/value",
        "/api/v1/regions/",
        "/api/v1/regions//value",
    ):
        refused(service.get(path), 404)
    for path in (
        f"{weights}/value?seq=1&time_ms=1",
        f"{weights}/value?seq=x",
        f"{weights}/history?limit=0",
        f"{weights}/blame?size=0",
        f"{weights}/blame?offset=96",
        f"{weights}/blame?offset=90&size=10",
        f"{weights}/history?since=1",
    ):
        refused(service.get(path), 400)


def test_posted_events_keep_both_lengths(service: Service) -> None:
    service.do("post 1")
    (event,) = service.json(EVENTS)["events"]
    assert (base64.b64decode(event["old"]), base64.b64decode(event["new"])) == (b"before", b"afterwards")
    assert event["where"]["file"] == "/srv/app.py"
    assert event["where"]["line"] == 12
    assert event["where"]["frames"] == [{"file": "/srv/app.py", "function": "update", "line": 12}]


# --- pages ---


def test_paging_gives_each_event_once(service: Service) -> None:
    service.do("post 250")
    since, found = 0, []
    while True:
        page = service.json(f"{EVENTS}?since={since}")
        found += seqs(page)
        since = page["next"]
        if not page["events"]:
            break
    assert found == list(range(1, 251))
    assert len(service.json(f"{EVENTS}?limit=1000")["events"]) == 250
    assert seqs(service.json(f"{EVENTS}?since=248")) == [249, 250]
    assert seqs(service.json(f"{EVENTS}?since=latest")) == []


def test_filters(service: Service) -> None:
    service.do("temperature 1")
    service.do("counter 1")
    service.do("weight 1 1")
    names = lambda query: [event["name"] for event in service.json(f"{EVENTS}?{query}")["events"]]  # noqa: E731
    assert names("name=*er*") == ["temperature", "counter"]
    assert names("name=c*&name=w*s") == ["counter", "weights"]
    assert names("name=[a-d]ounte?") == ["counter"]
    assert names("name=%5Bcounter") == []
    times = [event["time_ms"] for event in service.json(EVENTS)["events"]]
    assert names(f"from_ms={times[1]}&to_ms={times[1] + 1}")[:1] in (["counter"], ["temperature"])
    assert names(f"to_ms={times[0]}") == []
    assert names(f"from_ms={times[-1] + 1}") == []
    assert service.json(f"{EVENTS}?name=nothing")["next"] == 3


@pytest.mark.parametrize(
    "query",
    [
        "since=-1",
        "since=x",
        "since=99999999999999999999",
        "limit=0",
        "limit=1001",
        "wait=31",
        "wait=x",
        "wait=-1",
        "epoch=1",
        "from_ms=now",
        "to_ms=1.5",
        "colour=red",
        "name=" + 300 * "a",
        "&".join(["name=a"] * 9),
        "limit=1&limit=2",
    ],
)
def test_bad_parameters(service: Service, query: str) -> None:
    refused(service.get(f"{EVENTS}?{query}"), 400)


def test_another_epoch_is_gone(service: Service) -> None:
    service.do("post 2")
    for query in ("since=1&epoch=0123456789abcdef", "since=3"):
        status, _, body = service.get(f"{EVENTS}?{query}")
        answer = json.loads(body)
        assert (status, answer["newest"], len(answer["epoch"])) == (410, 2, 16)
    epoch = service.json(EVENTS)["epoch"]
    assert seqs(service.json(f"{EVENTS}?since=1&epoch={epoch}")) == [2]


def test_evicted_events_are_counted_as_missed(start: Start) -> None:
    service = start(event_capacity=64)
    service.do("post 200")
    page = service.json(EVENTS)
    assert page["missed"] == page["oldest"] - 1 > 0
    assert seqs(page)[0] == page["oldest"]
    assert service.sample("memwatch_feed_missed_events_total") == 0
    late = service.json(f"{EVENTS}?since=5")
    assert service.sample("memwatch_feed_missed_events_total") == late["missed"] == page["missed"] - 5


def test_what_a_page_has_missed_begins_behind_its_since(start: Start) -> None:
    """Also where the exporter still has older events than the log: a filter leaves no holes that would tell."""
    service = start(event_capacity=64)
    service.do("post 40")
    name = service.json(f"{EVENTS}?limit=1")["events"][0]["name"]
    service.do("post 9960")
    since, seen, missed = 0, [], []
    while since < 10000:
        page = service.json(f"{EVENTS}?since={since}&limit=1000&name={name}")
        missed += range(since + 1, since + page["missed"] + 1)
        seen += seqs(page)
        assert page["next"] > since
        since = page["next"]
    assert seen[0] == 1, "of the first read"
    assert sorted(seen + missed) == list(range(1, 10001)), "each is an event or missed, and none is both"


def test_ndjson_page(service: Service) -> None:
    service.do("post 3")
    status, headers, body = service.get(EVENTS, headers={"Accept": "application/x-ndjson"})
    assert status == 200
    assert headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line)["seq"] for line in body.splitlines()] == [1, 2, 3]
    assert (headers["memwatch-next"], headers["memwatch-missed"]) == ("3", "0")


def test_what_cannot_be_served_is_not_acceptable(service: Service) -> None:
    refused(service.get(EVENTS, headers={"Accept": "image/png"}), 406)
    refused(service.get(EVENTS + "/stream", headers={"Accept": "application/json"}), 406)
    assert service.get(EVENTS, headers={"Accept": "text/html, */*;q=0.1"})[1]["content-type"].startswith(
        "application/json"
    )


# --- long polls ---


def test_a_long_poll_answers_when_something_happens(service: Service) -> None:
    answers: list[Any] = []
    waiter = threading.Thread(
        target=lambda: answers.append(service.json(f"{EVENTS}?since=latest&wait=30&name=counter"))
    )
    waiter.start()
    wait_for(lambda: service.sample('memwatch_feed_clients{transport="long_poll"}') == 1)
    service.do("temperature 1")
    service.do("counter 5")
    waiter.join(5)
    assert [event["name"] for event in answers[0]["events"]] == ["counter"]
    assert service.sample('memwatch_feed_clients{transport="long_poll"}') == 0


def test_a_long_poll_ends(service: Service) -> None:
    begun = time.monotonic()
    page = service.json(f"{EVENTS}?since=latest&wait=0.5")
    assert page["events"] == []
    assert 0.4 < time.monotonic() - begun < 5


# --- streams ---


def test_sse(service: Service) -> None:
    with service.stream() as stream:
        assert stream.status == 200
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        assert stream.frame() == {"retry": "2000"}
        epoch = stream.frame()["id"].partition("-")[0]
        service.do("temperature 1")
        kind, event_id, event = stream.next()
        assert (kind, event_id, event["name"]) == ("change", f"{epoch}-1", "temperature")
        assert service.sample('memwatch_feed_clients{transport="sse"}') == 1
    wait_for(lambda: (service.do("post 1"), service.sample('memwatch_feed_clients{transport="sse"}'))[1] == 0)


def test_a_line_break_in_a_name_does_not_break_the_frame(service: Service) -> None:
    service.do("many 12")
    with service.stream() as stream:
        service.do("touch 2")
        assert stream.next()[2]["name"] == "line\nend2"


def test_resuming_gives_every_retained_event_once_then_the_gap(start: Start) -> None:
    """Each seq comes exactly once: as an event, or inside one gap; what the log still has comes as an event."""
    service = start(event_capacity=64)
    service.do("post 40")
    with service.stream(f"{EVENTS}/stream?since=0") as stream:
        ids = [stream.next()[1] for _ in range(10)]
    with service.stream(headers={"Last-Event-ID": ids[-1]}) as stream:
        assert [stream.next("change")[2]["seq"] for _ in range(30)] == list(range(11, 41))
    service.do("post 9960")
    oldest = service.json(EVENTS + "?since=latest")["oldest"]
    position, missed, frames = 40, 0, []
    with service.stream(headers={"Last-Event-ID": ids[-1].partition("-")[0] + "-40"}) as stream:
        while position < 10000:
            kind, event_id, data = stream.next()
            first, last = (data["from"], data["to"]) if kind == "gap" else (data["seq"], data["seq"])
            assert first == position + 1
            assert event_id.endswith(f"-{last}")
            if kind == "gap":
                assert data["missed"] == last - first + 1
                assert last < oldest
                missed += data["missed"]
            position = last
            frames.append(kind)
    assert "gap" in frames
    assert frames.count("change") == 9960 - missed
    assert frames[-(10000 - oldest + 1) :] == ["change"] * (10000 - oldest + 1)


@pytest.mark.parametrize("event_id", ["0123456789abcdef-1", "nonsense", "{epoch}-99", "{epoch}-x", "{epoch}-"])
def test_an_unknown_id_is_a_reset(service: Service, event_id: str) -> None:
    service.do("post 3")
    epoch = service.json(EVENTS)["epoch"]
    with service.stream(headers={"Last-Event-ID": event_id.format(epoch=epoch)}) as stream:
        kind, _, reset = stream.next()
        assert (kind, reset["epoch"], reset["newest"]) == ("reset", epoch, 3)
        assert [stream.next()[2]["seq"] for _ in range(3)] == [1, 2, 3]


def test_ndjson_stream(start: Start) -> None:
    service = start(heartbeat_ms=200)
    with service.stream(headers={"Accept": "application/x-ndjson"}) as stream:
        assert stream.line()["kind"] == "bookmark"
        service.do("counter 3")
        line = stream.line()
        while line["kind"] == "bookmark":
            line = stream.line()
        assert line["new_number"] == 3
        assert [(line["kind"], line["seq"]) for line in (stream.line(), stream.line())] == [("bookmark", 1)] * 2


def test_a_filter_that_matches_nothing_costs_nothing_and_moves_on(start: Start) -> None:
    service = start(heartbeat_ms=300)
    with service.stream(f"{EVENTS}/stream?name=nothing") as stream:
        service.do("post 500")
        while not stream.frame().get("id", "").endswith("-500"):
            pass
        before, begun = cpu_s(service), time.monotonic()
        for _ in range(6):
            assert stream.frame()["comment"] == "heartbeat"
        assert time.monotonic() - begun > 1
        assert cpu_s(service) - before < 0.2


def test_clients_beyond_the_limit_are_turned_away(start: Start) -> None:
    service = start(feed_limit=2, connection_limit=20)
    with service.stream() as first, service.stream() as second:
        assert (first.status, second.status) == (200, 200)
        headers = refused(service.get(EVENTS + "/stream"), 503)
        assert int(headers["retry-after"]) > 0
        refused(service.get(EVENTS + "?since=latest&wait=5"), 503)
        assert service.get(EVENTS)[0] == 200
        assert service.sample("memwatch_feed_rejected_total") == 2


def test_a_client_that_never_reads_is_cut_and_counted(start: Start) -> None:
    service = start(heartbeat_ms=500)
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", service.port))
        silent.sendall(
            f"GET {EVENTS}/stream HTTP/1.1\r\nHost: {service.host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        wait_for(lambda: service.sample('memwatch_feed_clients{transport="sse"}') == 1)
        with service.stream() as reader:
            service.do("post 20000")
            while reader.next("change")[2]["seq"] < 20000:
                pass
            wait_for(lambda: service.sample("memwatch_feed_cut_total") == 1, 60)
            service.do("post 1")
            assert reader.next("change")[2]["seq"] == 20001


def test_a_vanished_client_is_noticed(start: Start) -> None:
    service = start(heartbeat_ms=200)
    stream = service.stream()
    wait_for(lambda: service.sample('memwatch_feed_clients{transport="sse"}') == 1)
    stream.connection.sock and stream.connection.sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    stream.close()
    wait_for(lambda: service.sample('memwatch_feed_clients{transport="sse"}') == 0, 10)


# --- many clients ---


def open_streams(service: Service, n: int, query: str = "") -> list[socket.socket]:
    request = (
        f"GET {EVENTS}/stream{query} HTTP/1.1\r\nHost: {service.host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    clients = [service.connect() for _ in range(n)]
    for client in clients:
        client.sendall(request)
    wait_for(lambda: service.sample('memwatch_feed_clients{transport="sse"}') == n)
    return clients


@pytest.fixture
def crowd(start: Start) -> Service:
    """A service with room for a thousand clients, in a process that may have as many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    return start(feed_limit=1000, connection_limit=1100, heartbeat_ms=60000)


def scrape_s(service: Service) -> float:
    """The median time of a scrape."""
    times = []
    for _ in range(21):
        begun = time.monotonic()
        service.metrics()
        times.append(time.monotonic() - begun)
    return sorted(times)[10]


def closing_s(service: Service) -> float:
    """Closes the exporter; how long that took."""
    (microseconds,) = service.do("close")
    return int(microseconds) / 1e6


def until_change(client: socket.socket) -> None:
    received = b""
    while b"event: change" not in received:
        chunk = client.recv(65536)
        assert chunk
        received += chunk


@pytest.mark.alone
def test_a_thousand_idle_clients(crowd: Service, slowness: Callable[[], float]) -> None:
    crowd.metrics()
    before = resident_bytes(crowd)
    clients = open_streams(crowd, 1000)
    if not SANITIZED:
        assert resident_bytes(crowd) - before < 40 << 20
    busy, begun = cpu_s(crowd), time.monotonic()
    while time.monotonic() - begun < 2:
        assert crowd.process.poll() is None
        time.sleep(0.5)
    assert (cpu_s(crowd) - busy) / (time.monotonic() - begun) < 0.05
    assert scrape_s(crowd) < (0.1 if SANITIZED else 0.01) * slowness()
    crowd.do("post 1")
    for client in clients:
        until_change(client)
    assert closing_s(crowd) < (5 if SANITIZED else 0.25) * slowness()
    for client in clients:
        client.close()


def test_random_comings_and_goings_under_load(start: Start) -> None:
    service = start(heartbeat_ms=100, event_capacity=1024, feed_limit=1000, connection_limit=1100)
    stop = threading.Event()
    problems: list[BaseException] = []

    def come_and_go(seed: int) -> None:
        try:
            for i in range(40):
                with service.stream(
                    f"{EVENTS}/stream?since=0" if (seed + i) % 2 else f"{EVENTS}/stream?name=counter"
                ) as stream:
                    assert stream.status == 200
                    last = 0
                    for _ in range((seed * 7 + i) % 5):
                        fields = stream.frame()
                        if fields.get("event") == "change":
                            seq = json.loads(fields["data"])["seq"]
                            assert seq > last
                            last = seq
                if stop.is_set():
                    return
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=come_and_go, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        service.do("post 2000")
    for thread in threads:
        thread.join(60)
    stop.set()
    assert problems == []
    wait_for(lambda: service.sample('memwatch_feed_clients{transport="sse"}') == 0, 10)
