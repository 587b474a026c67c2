"""ChangeEvent: what changed, when, from what to what, and who wrote it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice

from memwatch._decode import Element, Layout, elements_known, read_shown
from memwatch._errors import Error
from memwatch._event_dict import EventCopy, copied, event_dict
from memwatch._typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple, Optional

if TYPE_CHECKING:
    from memwatch._native import core


Load = Callable[[str, int], bytes]
ELEMENTS_REACH = 1 << 26  # how far into a large region's versions `elements` reads


file_names: list[Callable[[str], Optional[str]]] = []
"""What people call a file that has no name of its own, such as a notebook's cell; None: not one of these."""


class Frame(NamedTuple):
    """One line of Python."""

    file: str
    function: str
    line: int


class Change(NamedTuple):
    """A range of changed bytes, from the region's start."""

    offset: int
    length: int


_WHERE_KEYS = (
    "file",
    "function",
    "line",
    "fault_ip",
    "fault_address",
    "attribution",
    "reason",
    "frames",
    "symbol",
    "object",
    "offset",
    "native_file",
    "native_line",
    "libc_function",
    "thread_id",
    "thread_name",
    "page_writer",
)
_HINTS = {
    "page": "a neighbour on its page had written first: memwatch.buffer() gives it pages of its own, precise=True a "
    "watchpoint, a larger attribution_budget= more patience with neighbours",
    "throttled": "the process's page faults had used up attribution_budget=: raise it",
    "ring-full": "notes came faster than they were read: raise ring_capacity=",
    "off": "attribution_budget= is 0",
    "unavailable": "this machine does not tell: python -m memwatch doctor says why",
    "traced": "a debugger traces the process, and would stop at each note",
    "blocked": "a thread blocks SIGTRAP: leave that signal open",
    "polling": "polled memory has no authors: python -m memwatch doctor says why it is polled",
    "own": "memwatch's own code had written to its page: memwatch.buffer() gives it pages of its own",
}


class Where(Mapping[str, Any]):
    """Who wrote. Reads both ways: `where.line` and `where["line"]`. What is not known is None, never a guess.

    Of the attribution "exact" only: `file`, `function` and `line` are the Python line that wrote; for a writer that is
    no Python, its source as far as debug information tells. `symbol`, `object`, `offset`, `native_file` and
    `native_line` are the storing function; of a store within the C library the function that called it (behind a Python
    line with `stack_depth` above 1 only), and `libc_function` is the library's own. `page_writer` is what "page" knows:
    who wrote to the page, elsewhere or at another time, with the same fields; a hint, and often not who made this
    change.
    """

    __slots__ = _WHERE_KEYS
    file: Optional[str]
    function: Optional[str]
    line: Optional[int]
    fault_ip: Optional[int]
    fault_address: Optional[int]
    attribution: str
    reason: Optional[str]
    frames: tuple[Frame, ...]
    symbol: Optional[str]
    object: Optional[str]
    offset: Optional[int]
    native_file: Optional[str]
    native_line: Optional[int]
    libc_function: Optional[str]
    thread_id: Optional[int]
    thread_name: Optional[str]
    page_writer: Optional[Where]

    def __init__(self, **known: Any) -> None:
        for key in _WHERE_KEYS:
            object.__setattr__(self, key, known.pop(key))
        if known:
            raise TypeError(f"Where() has no {min(known)!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name!r} cannot be set: what is known of a writer does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} cannot be deleted: what is known of a writer does not change")

    __eq__ = Mapping.__eq__  # what is known is the same: of an event that was recorded, or sent, too

    def __hash__(self) -> int:
        return hash(tuple(self.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _where_of, (dict(self),)

    def __repr__(self) -> str:
        return f"Where({', '.join(f'{key}={self[key]!r}' for key in _WHERE_KEYS)})"

    def __getitem__(self, key: str) -> Any:
        if key in _WHERE_KEYS:
            return getattr(self, key)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(_WHERE_KEYS)

    def __len__(self) -> int:
        return len(_WHERE_KEYS)

    @property
    def hint(self) -> Optional[str]:
        """Why the writer is not known, and what would help; None when it is, or nothing would."""
        return _HINTS.get(self.reason or self.attribution)

    def __str__(self) -> str:
        if self.attribution != "exact":
            return f"unknown ({self.reason or self.attribution})"
        return f"{self._place()} through {self.libc_function}" if self.libc_function else self._place()

    def _place(self) -> str:
        if self.file and self.line:
            known = next(filter(None, (name_of(self.file) for name_of in file_names)), None)
            if known:  # of a cell the function is "<module>", or its own
                function = "" if self.function in (None, "<module>") else f"{self.function} in "
                return f"{function}{known}, line {self.line}"
            return f"{self.function} ({os.path.basename(self.file)}:{self.line})"
        return self.function or "unknown"


def _where_of(known: dict[str, Any]) -> Where:
    return Where(**{"libc_function": None, **known})  # which an older memwatch did not tell


def _writer(event: core.Event) -> Where:
    frames = tuple(Frame(*frame) for frame in event.frames)
    symbol, native_file, native_line = event.symbol or None, event.native_file or None, event.native_line or None
    first = frames[0] if frames else Frame(native_file or "", symbol or "", native_line or 0)
    known = bool(event.fault_ip)
    return Where(
        file=first.file or None,
        function=first.function or None,
        line=first.line or None,
        fault_ip=event.fault_ip or None,
        fault_address=event.fault_address or None,
        attribution=event.attribution,
        reason=event.reason or None,
        frames=frames,
        symbol=symbol,
        object=event.object or None,
        offset=event.offset if known else None,
        native_file=native_file,
        native_line=native_line,
        libc_function=event.libc_function or None,
        thread_id=event.thread_id or None,
        thread_name=event.thread_name or None,
        page_writer=None,
    )


def _where(event: core.Event) -> Where:
    """The core's event has one writer: the change's, or by the attribution the page's."""
    writer = _writer(event)
    if event.attribution != "page":
        return writer
    nothing = dict.fromkeys(_WHERE_KEYS)
    return Where(**{**nothing, "frames": (), "attribution": "page", "reason": writer.reason, "page_writer": writer})


class ChangeEvent:
    """A region changed. Immutable; a reference to the native event, read when asked."""

    __slots__ = ("_event", "_layout", "_load", "_objects", "_where", "note", "thread_name")

    def __init__(
        self,
        event: core.Event,
        layout: Optional[Layout] = None,
        *,
        thread_name: Optional[str] = None,
        objects: Optional[tuple[Any, Any]] = None,
        note: str = "",
        load: Optional[Load] = None,
    ) -> None:
        self._event = event
        self._layout = layout
        self._objects = objects
        self._load = load
        self._where: Optional[Where] = None
        self.note: str = note
        """What an adapter adds, such as why a watch ended; "" for most."""
        known = event.attribution != "page"
        self.thread_name: str = "" if not known else event.thread_name if thread_name is None else thread_name
        """The writer's threading.Thread name where it is one, else its name in the system; "" when unknown."""

    @property
    def seq(self) -> int:
        """Its number in the watcher, from 1, without holes."""
        return self._event.seq

    @property
    def timestamp_ns(self) -> int:
        """When it was written, in nanoseconds since the epoch: at the fault of an exact writer, else at detection."""
        return self._event.time_ns

    @property
    def detected_ns(self) -> int:
        """When the worker made the event."""
        return self._event.detected_ns

    @property
    def variable_name(self) -> str:
        """The region's name."""
        return self._event.name

    @property
    def region_id(self) -> int:
        """What `watch` returned."""
        return self._event.region_id

    @property
    def kind(self) -> str:
        """ "change", or "lost": the memory vanished and the region has ended."""
        return self._event.kind

    @property
    def where(self) -> Where:
        """Who wrote."""
        if self._where is None:
            self._where = _where(self._event)
        return self._where

    @property
    def thread_id(self) -> int:
        """As gettid(2) gives it; 0 when unknown."""
        return self._event.thread_id if self._event.attribution != "page" else 0

    @property
    def backend(self) -> str:
        """How the write was noticed."""
        return self._event.backend

    @property
    def how_big(self) -> int:
        """The region's size in bytes."""
        return self._event.size_bytes

    @property
    def old_value(self) -> Optional[bytes]:
        """The bytes before; None above the inline threshold, or when the region's policy hides them."""
        return self._event.old_value

    @property
    def new_value(self) -> Optional[bytes]:
        """The bytes after; None as for `old_value`."""
        return self._event.new_value

    @property
    def old_preview(self) -> Optional[bytes]:
        """The first bytes before."""
        return self._event.old_preview

    @property
    def new_preview(self) -> Optional[bytes]:
        """The first bytes after."""
        return self._event.new_preview

    @property
    def storage_key_old(self) -> Optional[str]:
        """What `watcher.load` takes for the bytes before; None up to the inline threshold."""
        return self._event.storage_key_old

    @property
    def storage_key_new(self) -> Optional[str]:
        """What `watcher.load` takes for the bytes after; None up to the inline threshold."""
        return self._event.storage_key_new

    @property
    def old_hash(self) -> Optional[int]:
        """Under the policy "hash": 64 bits of the bytes before."""
        return self._event.old_hash

    @property
    def new_hash(self) -> Optional[int]:
        """Under the policy "hash": 64 bits of the bytes after."""
        return self._event.new_hash

    @property
    def changes(self) -> list[Change]:
        """The changed ranges; when there are too many, the last one spans the rest."""
        return [Change(*change) for change in self._event.changes]

    @property
    def changed_bytes(self) -> int:
        """How many bytes differ."""
        return self._event.changed_bytes

    @property
    def merged(self) -> int:
        """Earlier detections that were coalesced into this event, which names no writer then."""
        return self._event.merged

    @property
    def elements(self) -> list[Element]:
        """The changed elements as (index, old, new), for regions with a format; at most 64.

        Of a structure they are its fields. Of a large region the versions are read back, while they are kept.
        """
        return list(self._elements(self._stored))

    @property
    def old(self) -> Any:
        """The value before, decoded; of a large region the version that is kept. None when it is not known.

        Of a name, or an object that is polled: its value where that is numbers, text and lists, tuples, dicts or sets
        of these; else what is shown of it, as text. `old_object` is the object itself.
        """
        return self._value(self.old_value, self.storage_key_old, 0)

    @property
    def new(self) -> Any:
        """The value after, as `old` is the one before."""
        return self._value(self.new_value, self.storage_key_new, 1)

    @property
    def old_object(self) -> Any:
        """For a name that was bound to another object: the object before. Only in callbacks."""
        return self._objects[0] if self._objects else None

    @property
    def new_object(self) -> Any:
        """For a name that was bound to another object: the object after. Only in callbacks."""
        return self._objects[1] if self._objects else None

    def _value(self, data: Optional[bytes], key: Optional[str], side: int) -> Any:
        """A name's value is read from what was shown of it: the same now, later and elsewhere."""
        if self._event.backend == "trace" and data is not None:
            return read_shown(data)
        return self._objects[side] if self._objects else self._decoded(data, key)

    def _read_by(self) -> Layout:
        if self._layout is None:
            event = self._event
            self._layout = Layout(event.format, event.item_bytes or 1, event.shape, event.fortran_order)
        return self._layout

    def _decoded(self, data: Optional[bytes], key: Optional[str]) -> Any:
        if data is None:
            data = self._stored(key, self.how_big)
        return None if data is None else self._read_by().value(data)

    def _stored(self, key: Optional[str], size: int) -> Optional[bytes]:
        """The first bytes of a version; None when it is not kept any more."""
        if key is None or self._load is None:
            return None
        try:
            return self._load(key, size)
        except (KeyError, Error):
            return None

    def _elements(self, stored: Callable[[Optional[str], int], Optional[bytes]]) -> Iterator[Element]:
        layout, ranges = self._read_by(), self._event.changes
        if layout.is_bytes or not ranges:
            return iter(())
        old, new = self.old_value or self.old_preview, self.new_value or self.new_preview
        end = min(ranges[-1][0] + ranges[-1][1] + layout.item_bytes, self.how_big, ELEMENTS_REACH)
        excerpt = self._event.excerpt
        if (old is None or new is None) and not excerpt:
            return iter(())
        old, new = old or b"", new or b""
        if end > len(old):
            old = stored(self.storage_key_old, end) or old
            new = stored(self.storage_key_new, end) or new
        return elements_known(layout, ranges, [(0, old, new), *excerpt])

    @property
    def summary(self) -> str:
        """What changed in a few words: `weights[3, 17]: 0.5 -> nan`."""
        name = self.variable_name
        if self.kind == "lost":
            return f"{name}: its memory vanished"
        changed = list(islice(self._elements(lambda key, size: None), 2))
        if changed:
            more = ", ..." if len(changed) > 1 else ""
            return f"{name}{_index_text(changed[0])}: {_short(changed[0].old)} -> {_short(changed[0].new)}{more}"
        if self._event.values in ("hash", "none"):
            return f"{name}: changed (hidden)"
        if self._event.backend == "trace":
            return (
                f"{name}: {_shown(self.old_value or self.old_preview)} -> {_shown(self.new_value or self.new_preview)}"
            )
        if self.old_value is not None and self.new_value is not None:
            return f"{name}: {_short(self.old)} -> {_short(self.new)}"
        return f"{name}: {self.changed_bytes} of {self.how_big} bytes"

    def to_dict(self) -> dict[str, Any]:
        """The event as the JSON feeds write it (docs/http.md), of what `json.dumps` takes: bytes are base64."""
        return event_dict(self, self._event)

    def to_json(self) -> str:
        """`to_dict()` as one line of JSON."""
        import json  # here, because few programs need it

        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """What the event itself carries: versions that only its watcher keeps, and objects, stay behind."""
        return _unpickled, (copied(self._event), self._layout, self.thread_name, self.note)

    def __repr__(self) -> str:
        return f"<ChangeEvent {self.seq} {self.summary}, by {self.where}>"


def _unpickled(known: dict[str, Any], layout: Optional[Layout], thread_name: str, note: str) -> ChangeEvent:
    copy: Any = EventCopy(known)
    return ChangeEvent(copy, layout, thread_name=thread_name, note=note)


def _index_text(element: Element) -> str:
    """[3, 17].left"""
    numbers = [str(at) for at in element.index if isinstance(at, int)]
    fields = "".join(f".{at}" for at in element.index if isinstance(at, str))
    return (f"[{', '.join(numbers)}]" if numbers else "") + fields


def _shown(data: Optional[bytes]) -> str:
    """What was shown of a name's value."""
    return "<unbound>" if data is None else _cut(data.decode("utf-8", "replace"))


def _short(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
