"""OTLP over HTTP: the specification's rules against a stand-in, and its protobuf definitions against what is sent."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .parts import Collector, Ship, Watched, free_port, wait_for

Watch = Callable[..., Watched]
Start = Callable[..., Ship]


def to(collector: Collector) -> str:
    return f"otlp+http://127.0.0.1:{collector.port}"


def uids(collector: Collector) -> list[str]:
    return [record["attributes"]["log.record.uid"] for record in collector.records()]


def test_what_is_sent(watch: Watch, ship: Start, collector: Collector) -> None:
    """Parsed strictly by the official definitions."""
    pytest.importorskip("opentelemetry.proto")
    from google.protobuf import json_format
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    watched = watch("64")
    watched.write(300)
    ship("--to", to(collector), OTEL_EXPORTER_OTLP_HEADERS="x-one=a%20b").once()
    for _, data, headers, path in collector.requests:
        parsed = json_format.Parse(data, ExportLogsServiceRequest(), ignore_unknown_fields=False)
        assert parsed.resource_logs[0].scope_logs[0].scope.name == "memwatch"
        assert path == "/v1/logs"
        assert (headers["Content-Type"], headers["Content-Encoding"]) == ("application/json", "gzip")
        assert headers["x-one"] == "a b"
        names = {each.key for each in parsed.resource_logs[0].resource.attributes}
        assert {"service.name", "service.instance.id", "process.pid", "host.name"} <= names
        for record in parsed.resource_logs[0].scope_logs[0].log_records:
            assert record.time_unix_nano > 1.7e18 and record.observed_time_unix_nano >= record.time_unix_nano - 10**9
            assert record.event_name in ("memwatch.variable.changed", "memwatch.events.lost")
            assert len({each.key for each in record.attributes}) == len(record.attributes)
    records = collector.records()
    lost = [record for record in records if record["eventName"] == "memwatch.events.lost"]
    changed = [record for record in records if record["eventName"] == "memwatch.variable.changed"]
    assert lost and lost[0]["severityNumber"] == 13 and int(lost[0]["attributes"]["memwatch.lost.count"]) > 200
    assert changed[0]["severityNumber"] == 9
    attributes = changed[-1]["attributes"]
    assert attributes["memwatch.variable.name"] == "counter"
    assert attributes["log.record.uid"] == f"{watched.epoch}-{attributes['memwatch.seq']}"
    if attributes["memwatch.attribution"] == "exact":
        assert attributes["code.function.name"] == "write" and attributes["code.file.path"].endswith("watched.py")
        assert isinstance(attributes["code.line.number"], str)


def test_every_kind_of_event_is_parsed() -> None:
    """Also those that hold NaN, text, hashes, more than 64 bits; without any process."""
    pytest.importorskip("opentelemetry.proto")
    from google.protobuf import json_format
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    from memwatch._ship.otlp_json import request
    from memwatch._ship.record import Origin, gap, of_event, restart

    where = dict.fromkeys(("reason", "file", "function", "line", "thread_id", "thread_name"), None)
    event = {
        "seq": 1, "kind": "change", "time_ns": "1795384806307532547", "time_ms": 1795384806307,
        "name": "a\u202eb\ud800", "changed_bytes": 8,
        "region_id": "9223372036854775807", "backend": "uffd", "size": 8, "format": "d", "merged": 0,
        "old": None, "new": None, "old_preview": None, "new_preview": None, "where": {"attribution": "none", **where},
    }  # fmt: skip
    kinds = [
        {},
        {"old_number": 0.5, "new_number": "NaN"},
        {"old_number": True, "new_number": None},
        {"old_number": 2**63, "new_number": str(2**64 - 1)},
        {"old": "aGVsbG8=", "new": "/////w==", "new_preview": "/////w=="},
        {"elements": [{"index": [1, 2], "old": 1, "new": "Infinity"}]},
        {"old_hash": "0x12", "new_hash": None},
        {"kind": "lost"},
    ]
    records = [of_event("0" * 16, {**event, **kind}) for kind in kinds]
    records += [gap("0" * 16, 1, 5), restart("0" * 16, "1" * 16, 7)]
    said = request(Origin("0" * 16, "s", "w", 7, "h", (("region", "eu"),)), records, "1", 5)
    parsed = json_format.Parse(json.dumps(said), ExportLogsServiceRequest(), ignore_unknown_fields=False)
    bodies = [record.body.string_value for record in parsed.resource_logs[0].scope_logs[0].log_records]
    assert bodies[1].startswith("a") and "0.5 -> NaN, by unknown" in bodies[1]
    assert "hello" in bodies[4] and "[1, 2]: 1 -> Infinity" in bodies[5] and "vanished" in bodies[7]


def test_what_is_tried_again(watch: Watch, ship: Start, collector: Collector) -> None:
    """429, 502, 503, 504 and broken connections; the same records each time, and nothing twice where all went well."""
    watched = watch()
    newest = watched.write(3)
    collector.answers = [(status, {}, b"later") for status in (429, 502, 503, 504)] + [(0, {}, b"")]
    ship("--to", to(collector)).once()
    assert uids(collector) == [f"{watched.epoch}-{seq}" for seq in range(1, newest + 1)]
    assert len(collector.requests) == 6
    assert len({json.loads(data)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["timeUnixNano"]
                for _, data, _, _ in collector.requests}) == 1  # fmt: skip


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after(watch: Watch, ship: Start, collector: Collector, form: str) -> None:
    watch().write(1)
    told = "3" if form == "seconds" else email.utils.formatdate(time.time() + 30, usegmt=True)
    collector.answers = [(503, {"Retry-After": told}, b"")]
    shipper = ship("--to", to(collector), "--give-up-after", "60")
    if form == "date":  # a date that is over by the time of the answer: at once
        collector.answers = [(429, {"Retry-After": email.utils.formatdate(time.time() - 5, usegmt=True)}, b"")]
    shipper.once()
    first, second = (each[0] for each in collector.requests)
    assert second - first >= 3 if form == "seconds" else len(collector.requests) == 2


def test_retry_after_in_both_forms() -> None:
    from memwatch._ship.retry import retry_after

    assert retry_after("120") == 120 and retry_after(" 0 ") == 0
    assert 55 < (retry_after(email.utils.formatdate(time.time() + 60, usegmt=True)) or 0) <= 61
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [retry_after(each) for each in (None, "", "soon", "-1", "1.5", "\u0663")] == [None] * 6


def test_gives_up_once(watch: Watch, ship: Start, collector: Collector) -> None:
    """With --once somebody waits for the end; the cursor stays, and the next time delivers."""
    watched = watch()
    watched.write(2)
    collector.always = (503, {"Retry-After": "3000"}, b"busy")
    shipper = ship("--to", to(collector), "--give-up-after", "1")
    assert "answers 503: busy" in shipper.once(status=1)
    collector.always = (200, {}, b"{}")
    shipper.once()
    assert [uid.rpartition("-")[2] for uid in uids(collector)][:2] == ["1", "2"]


def test_partial_success_is_never_sent_again(watch: Watch, ship: Start, collector: Collector, runtime: Path) -> None:
    watch().write(4)
    said = {"partialSuccess": {"rejectedLogRecords": "3", "errorMessage": "too old"}}
    collector.answers = [(200, {}, json.dumps(said).encode())]
    shipper = ship("--to", to(collector), "--metrics-file", runtime / "m")
    assert "took all but 3 records: too old" in shipper.once(status=1)
    assert "memwatch_ship_rejected_events_total 3\n" in (runtime / "m").read_text()
    shipper.once()
    assert len(collector.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 500, 501, 302])
def test_other_refusals_are_final(watch: Watch, ship: Start, collector: Collector, runtime: Path, status: int) -> None:
    watched = watch()
    newest = watched.write(2)
    collector.answers = [(status, {}, b"no")]
    shipper = ship("--to", to(collector), "--metrics-file", runtime / "m")
    assert f"answers {status}: no: {newest} records are not sent again" in shipper.once(status=1)
    assert f"memwatch_ship_rejected_events_total {newest}\n" in (runtime / "m").read_text()
    watched.write(1)
    shipper.once()
    assert uids(collector)[-1] == f"{watched.epoch}-{newest + 1}"


def test_too_large_is_halved(watch: Watch, ship: Start, collector: Collector) -> None:
    watched = watch()
    newest = watched.write(4)
    collector.answers = [(413, {}, b"")]
    ship("--to", to(collector)).once()
    assert uids(collector) == [f"{watched.epoch}-{seq}" for seq in range(1, newest + 1)]
    assert len(collector.requests) == 3


def test_answers_that_say_nothing(watch: Watch, ship: Start, collector: Collector) -> None:
    watched = watch()
    for body in (
        b"",
        b"not json",
        b"[]",
        b'{"partialSuccess": null}',
        b'{"partialSuccess": {"rejectedLogRecords": "x"}}',
    ):
        watched.write(1)
        collector.answers = [(200, {}, body)]
        ship("--to", to(collector) + "/").once()
    assert len(uids(collector)) == len(set(uids(collector))) >= 5


def test_a_destination_that_is_away_costs_the_process_nothing(watch: Watch, ship: Start, runtime: Path) -> None:
    """It writes on; what is still in its log comes when the destination is back."""
    watched, port = watch(), free_port()
    shipper = ship("--to", f"otlp+http://127.0.0.1:{port}").start()
    watched.write(50)
    wait_for(lambda: "cannot be reached" in shipper.errors.read_text())
    newest = watched.write(50)
    collector = Collector(port)
    try:
        wait_for(lambda: len(uids(collector)) >= newest)
        assert sorted({int(uid.rpartition("-")[2]) for uid in uids(collector)}) == list(range(1, newest + 1))
    finally:
        shipper.end()
        collector.close()
