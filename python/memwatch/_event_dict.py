"""An event as plain data: the document of the feeds, and a copy that can be pickled. docs/http.md says what each
field means.
"""

from __future__ import annotations

import math
from binascii import b2a_base64
from itertools import islice

from memwatch._decode import Layout, Piece, elements_known, read_shown
from memwatch._typing import TYPE_CHECKING, Any, ClassVar, Optional

if TYPE_CHECKING:
    from memwatch._event import ChangeEvent, Where

SCHEMA = 2
VALUE_MAX = 64 * 1024  # of longer values only the previews
ELEMENTS_MAX = 16
EXACT_MAX = 2**53  # what JSON's numbers hold
NUMBERS = frozenset("bBhHiIlLqQnNefdg?")

#: What a copy keeps of a core.Event; all that ChangeEvent asks it for.
FIELDS = [
    "seq",
    "time_ns",
    "detected_ns",
    "region_id",
    "name",
    "kind",
    "backend",
    "size_bytes",
    "values",
    "old_value",
    "new_value",
    "old_preview",
    "new_preview",
    "storage_key_old",
    "storage_key_new",
    "old_hash",
    "new_hash",
    "changed_bytes",
    "changes",
    "excerpt",
    "merged",
    "format",
    "item_bytes",
    "shape",
    "fortran_order",
    "attribution",
    "reason",
    "fault_ip",
    "fault_address",
    "thread_id",
    "thread_name",
    "frames",
    "symbol",
    "object",
    "offset",
    "native_file",
    "native_line",
    "libc_function",
]


class EventCopy:
    """What stands for core.Event in an event that came out of a pickle, or of a feed."""

    # Where an older memwatch wrote it:
    excerpt: ClassVar[list[Piece]] = []
    libc_function: ClassVar[str] = ""

    def __init__(self, known: dict[str, Any]) -> None:
        self.__dict__.update(known)


def copied(event: Any) -> dict[str, Any]:
    """The fields of a core.Event, or of what stands for one."""
    return {name: getattr(event, name) for name in FIELDS}


def number(value: Any) -> Any:
    """A number as JSON can hold it: NaN, the infinities and what a double would round are text. None: it is none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= EXACT_MAX else str(value)
    if isinstance(value, float) or hasattr(value, "__float__"):  # NumPy's long double is no float
        value = float(value)
        if math.isnan(value):
            return "NaN"
        return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
    return None


def _text(data: Optional[bytes]) -> Optional[str]:
    return None if data is None else b2a_base64(data, newline=False).decode()


def _hex(value: Optional[int]) -> Optional[str]:
    return hex(value) if value else None


def _short(data: Optional[bytes]) -> Optional[bytes]:
    return None if data is None or len(data) > VALUE_MAX else data


def _decoded(event: Any) -> dict[str, Any]:
    """The values as numbers: of a scalar, of the changed items of an array, of a name that holds one."""
    if event.backend == "trace":
        old, new = (None if data is None else number(read_shown(data)) for data in (event.old_value, event.new_value))
        return {} if old is None and new is None else {"old_number": old, "new_number": new}
    before, after = event.old_value, event.new_value
    if before is None or after is None:
        before, after = event.old_preview, event.new_preview
    if event.format.lstrip("<>=@!") not in NUMBERS or event.kind == "lost":
        return {}
    before, after, excerpt = before or b"", after or b"", event.excerpt
    layout = Layout(event.format, event.item_bytes, event.shape, event.fortran_order)
    if min(len(before), len(after)) < event.item_bytes and not excerpt:
        return {}
    if event.size_bytes == event.item_bytes:
        return {
            "old_number": number(layout.form.value(before[: event.item_bytes])),
            "new_number": number(layout.form.value(after[: event.item_bytes])),
        }

    changed = islice(elements_known(layout, event.changes, [(0, before, after), *excerpt]), ELEMENTS_MAX)
    return {
        "elements": [
            {"index": list(each.index) or [0], "old": number(each.old), "new": number(each.new)} for each in changed
        ]
    }


def _excerpt(excerpt: list[Piece]) -> dict[str, Any]:
    return {"excerpt": [[offset, _text(old), _text(new)] for offset, old, new in excerpt]} if excerpt else {}


def _writer(where: Where) -> dict[str, Any]:
    return {
        "fault_ip": _hex(where.fault_ip),
        "fault_address": _hex(where.fault_address),
        "file": where.file,
        "function": where.function,
        "line": where.line,
        "frames": [
            {"file": frame.file or None, "function": frame.function or None, "line": frame.line or None}
            for frame in where.frames
        ],
        "symbol": where.symbol,
        "object": where.object,
        "offset": where.offset or None,
        "native_file": where.native_file,
        "native_line": where.native_line,
        "libc_function": where.libc_function,
        "thread_id": where.thread_id,
        "thread_name": where.thread_name,
    }


def _where(where: Where) -> dict[str, Any]:
    return {
        "attribution": where.attribution,
        "reason": where.reason,
        **_writer(where),
        "page_writer": None if where.page_writer is None else _writer(where.page_writer),
    }


def event_dict(event: ChangeEvent, core: Any) -> dict[str, Any]:
    """The event as the feeds write it; `core` is what it reads."""
    old, new = _short(core.old_value), _short(core.new_value)
    hashes = {"old_hash": _hex(core.old_hash), "new_hash": _hex(core.new_hash)} if core.values == "hash" else {}
    return {
        "schema": SCHEMA,
        "seq": core.seq,
        "time_ns": str(core.time_ns),
        "time_ms": core.time_ns // 1_000_000,
        "region_id": str(core.region_id),
        "name": core.name,
        "kind": core.kind,
        "backend": core.backend,
        "size": core.size_bytes,
        "format": core.format or None,
        "shape": list(core.shape),
        "fortran_order": bool(core.fortran_order),
        "values": core.values,
        "old": _text(old),
        "new": _text(new),
        **_decoded(core),
        "old_preview": _text(core.old_preview),
        "new_preview": _text(core.new_preview),
        "key_old": core.storage_key_old,
        "key_new": core.storage_key_new,
        **hashes,
        **_excerpt(core.excerpt),
        "changed_bytes": core.changed_bytes,
        "changes": [list(change) for change in core.changes],
        "merged": core.merged,
        "where": _where(event.where),
    }
