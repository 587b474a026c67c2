"""Records as OTLP logs in JSON. Pure.

64-bit integers are strings and enumerations are numbers, as the specification wants it in JSON. An event is a log
record with an `eventName` of few values; what changed and who wrote it are attributes, and the body is a line for
people.
"""

from __future__ import annotations

import base64
from typing import Any, Optional

from memwatch._ship.record import Origin, Record

EVENT_NAMES = {
    "change": "memwatch.variable.changed",
    "lost": "memwatch.variable.lost",
    "gap": "memwatch.events.lost",
    "restart": "memwatch.watcher.restarted",
}
INFO, WARN = (9, "INFO"), (13, "WARN")
BODY_MAX = 1024


def value(said: Any) -> dict[str, Any]:
    """A value by its type."""
    if isinstance(said, bool):
        return {"boolValue": said}
    if isinstance(said, int):
        return {"intValue": str(said)} if -(2**63) <= said < 2**63 else {"stringValue": str(said)}
    if isinstance(said, float):
        return {"doubleValue": said}
    return {"stringValue": str(said).encode("utf-8", "replace").decode()}


def _attributes(pairs: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(said)} for key, said in pairs.items() if said is not None]


def _text(said: Optional[str]) -> Optional[str]:
    """Bytes that are text, which a person would rather read."""
    if said is None:
        return None
    data = base64.b64decode(said).rstrip(b"\0")
    text = data.decode("utf-8", "replace")
    return text if data and text.isprintable() and "\ufffd" not in text else None


def _values(event: dict[str, Any]) -> dict[str, Any]:
    """Old and new as numbers or text where they are that; the first bytes of others."""
    said: dict[str, Any] = {}
    for side in ("old", "new"):
        number = event.get(f"{side}_number")
        shown = number if number is not None else _text(event.get(side))
        said[f"memwatch.value.{side}"] = shown
        if shown is None:
            said[f"memwatch.value.{side}_preview"] = event.get(f"{side}_preview")
        said[f"memwatch.value.{side}_hash"] = event.get(f"{side}_hash")
    if event.get("elements"):
        first = event["elements"][0]
        said["memwatch.element"] = "[" + ", ".join(map(str, first["index"])) + "]"
        said["memwatch.value.old"], said["memwatch.value.new"] = first["old"], first["new"]
        said["memwatch.elements"] = len(event["elements"])
    return said


def _attributes_of_event(event: dict[str, Any]) -> dict[str, Any]:
    where = event["where"]
    return {
        "memwatch.variable.name": event["name"],
        "memwatch.seq": event["seq"],
        "memwatch.region_id": event["region_id"],
        "memwatch.backend": event["backend"],
        "memwatch.value.size": event["size"],
        "memwatch.value.format": event["format"],
        "memwatch.value.changed_bytes": event["changed_bytes"],
        "memwatch.merged": event["merged"],
        **_values(event),
        "memwatch.attribution": where["attribution"],
        "memwatch.reason": where["reason"],
        "code.file.path": where["file"],
        "code.function.name": where["function"],
        "code.line.number": where["line"],
        "thread.id": where["thread_id"],
        "thread.name": where["thread_name"],
    }


def sentence(record: Record) -> str:
    """A record for people: `config.rate: 0 -> 7, by main (app.py:12)`."""
    said = record.document
    if record.kind == "gap":
        return f"{said['missed']} events, {said['from']} to {said['to']}, had left the log before they were shipped"
    if record.kind == "restart":
        return f"another watcher than {said['previous_epoch']}, shipped up to event {said['previous_seq']}"
    values, where = _values(said), said["where"]
    old, new = values["memwatch.value.old"], values["memwatch.value.new"]
    change = f"{old} -> {new}" if (old, new) != (None, None) else f"{said['changed_bytes']} of {said['size']} bytes"
    change = "its memory vanished" if record.kind == "lost" else change
    by = f"{where['function']} ({where['file']}:{where['line']})" if where["function"] else "unknown"
    return f"{said['name']}{values.get('memwatch.element', '')}: {change}, by {by}"[:BODY_MAX]


def log_record(origin: Origin, record: Record, observed_ns: int) -> dict[str, Any]:
    """One record."""
    said = record.document
    is_event = record.kind in ("change", "lost")
    number, text = INFO if record.kind in ("change", "restart") else WARN
    attributes = {"log.record.uid": record.id, "memwatch.epoch": origin.epoch, "memwatch.kind": record.kind}
    if is_event:
        attributes.update(_attributes_of_event(said))
    elif record.kind == "gap":
        attributes.update({f"memwatch.lost.{key}": said[key] for key in ("from", "to")})
        attributes["memwatch.lost.count"] = said["missed"]
    else:
        attributes.update({f"memwatch.{key}": said[key] for key in ("previous_epoch", "previous_seq")})
    return {
        "timeUnixNano": said.get("time_ns") or str(said["time_ms"] * 1_000_000),
        "observedTimeUnixNano": str(observed_ns),
        "severityNumber": number,
        "severityText": text,
        "eventName": EVENT_NAMES[record.kind],
        "body": value(sentence(record)),
        "attributes": _attributes(attributes),
    }


def request(origin: Origin, records: list[Record], version: str, observed_ns: int) -> dict[str, Any]:
    """An ExportLogsServiceRequest."""
    resource = {
        "service.name": origin.service or "unknown_service",
        "service.instance.id": origin.epoch,
        "process.pid": origin.pid,
        "host.name": origin.host,
        "memwatch.worker": origin.worker or None,
        **{f"memwatch.label.{name}": text for name, text in origin.labels},
    }
    logs = [log_record(origin, record, observed_ns) for record in records]
    scope = {"name": "memwatch", "version": version}
    return {
        "resourceLogs": [
            {"resource": {"attributes": _attributes(resource)}, "scopeLogs": [{"scope": scope, "logRecords": logs}]}
        ]
    }
