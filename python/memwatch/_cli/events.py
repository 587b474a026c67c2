"""Events as feeds tell them: back to ChangeEvent, and as lines for people."""

from __future__ import annotations

import base64
import math
from types import SimpleNamespace
from typing import Any, Optional, cast

from memwatch._cli.clock import stamp
from memwatch._cli.frame import coloured, shown
from memwatch._decode import Layout
from memwatch._event import ChangeEvent

_WRITER = ("symbol", "object", "native_file", "libc_function", "thread_name", "reason")
_WRITER_NUMBERS = ("offset", "native_line", "thread_id")


def _bytes(said: dict[str, Any], key: str) -> Optional[bytes]:
    text = said.get(key)
    return None if text is None else base64.b64decode(text)


def _number(text: Optional[str]) -> int:
    return int(text, 16) if text else 0


def _integer(value: Any) -> Optional[int]:
    """A number, or its digits in hexadecimal."""
    return None if value is None else int(str(value), 0)


def item_bytes_of(said: dict[str, Any]) -> int:
    """The size of one item of an event's or a region's variable."""
    if "item_size" in said:
        return int(said["item_size"])
    return max(int(said["size"]) // max(math.prod(said["shape"]), 1), 1) if said.get("format") else 1


def event_of(said: dict[str, Any]) -> ChangeEvent:
    """An event of a feed."""
    where = said["where"]
    writer = where.get("page_writer") or where
    event = SimpleNamespace(
        seq=said["seq"],
        time_ns=int(said["time_ns"]),
        detected_ns=int(said["time_ns"]),
        name=said["name"],
        region_id=int(said["region_id"]),
        kind=said["kind"],
        backend=said["backend"],
        values=said["values"],
        size_bytes=said["size"],
        format=said.get("format") or "",
        item_bytes=item_bytes_of(said),
        shape=tuple(said["shape"]),
        fortran_order=bool(said.get("fortran_order")),
        storage_key_old=said.get("key_old"),
        storage_key_new=said.get("key_new"),
        old_hash=_integer(said.get("old_hash")),
        new_hash=_integer(said.get("new_hash")),
        changes=[tuple(each) for each in said["changes"]],
        excerpt=[(at, *map(base64.b64decode, sides)) for at, *sides in said.get("excerpt") or ()],
        changed_bytes=said["changed_bytes"],
        merged=said["merged"],
        attribution=where["attribution"],
        frames=[(each["file"], each["function"], each["line"]) for each in writer.get("frames") or ()],
        fault_ip=_number(writer.get("fault_ip")),
        fault_address=_number(writer.get("fault_address")),
        **{side: _bytes(said, side) for side in ("old_preview", "new_preview")},
        **{f"{side}_value": _bytes(said, side) for side in ("old", "new")},
        **{key: writer.get(key) or "" for key in _WRITER},
        **{key: writer.get(key) or 0 for key in _WRITER_NUMBERS},
    )
    return ChangeEvent(cast(Any, event))


def layout_of(region: dict[str, Any]) -> Layout:
    """How the bytes of a region read."""
    return Layout(region.get("format") or "", item_bytes_of(region), tuple(region["shape"]))


def writer_text(where: Any) -> str:
    """Who wrote, in a word for people, and in which thread."""
    thread = f" in {where.thread_name}" if where.thread_name and where.attribution == "exact" else ""
    return f"{where}{thread}"


def event_line(said: dict[str, Any], who: str = "") -> str:
    """One line for people. `who`: whose event it is, where several watchers are shown."""
    event = event_of(said)
    summary = event.summary
    known = event.where.attribution == "exact"
    parts = [
        coloured(stamp(event.timestamp_ns), "dim"),
        *([coloured(shown(who), "yellow")] if who else []),
        shown(summary),
        coloured(shown(f"by {writer_text(event.where)}"), "cyan" if known else "dim"),
    ]
    return "  ".join(parts)
