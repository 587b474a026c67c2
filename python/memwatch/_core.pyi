"""The typed surface of the C extension. `_pure.py` has the same one for machines where it could not be built.

Errors: TypeError and ValueError for misuse, KeyError for an unknown id or name, `memwatch.Error` (with errno) for the
rest. Every call that may block releases the GIL. Times are in nanoseconds since the epoch, waits in seconds.
"""

from collections import deque
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any, Optional, Union, final

NATIVE: bool
"""Whether `Watcher.region_add` watches memory by itself. False in `_pure`."""
VERSION: str
STACK_MAX: int
FRAMES: bool
"""Whether this interpreter's frames can be read, so that `where` has Python lines."""
FRAMES_NOTE: str
"""Why not; empty when they can."""
_api: object
"""A capsule: the library, for `_exporter` and `_recorder`."""

@final
class Watcher:
    """One native watcher. Options as in struct memwatch_options; None takes the native default."""

    def __init__(
        self,
        *,
        backend: Optional[str] = None,
        window_ms: Optional[int] = None,
        ring_capacity: Optional[int] = None,
        attribution_budget: Optional[float] = None,
        poll_budget: Optional[float] = None,
        stack_depth: Optional[int] = None,
        inline_threshold: Optional[int] = None,
        preview_size: Optional[int] = None,
        event_capacity: Optional[int] = None,
        event_budget: Optional[int] = None,
        history_budget: Optional[int] = None,
        patches: bool = False,
        follows_forks: bool = False,
    ) -> None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def closed(self) -> bool:
        """Closed, closing, or another process's (after a fork)."""

    def region_add(
        self,
        buffer: object,
        name: Optional[str] = None,
        *,
        values: str = "auto",
        metric: bool = False,
        pinned: bool = False,
        when: Union[str, tuple[str, float], tuple[str, float, float], None] = None,
        max_rate: Optional[float] = None,
        history_budget: Optional[int] = None,
        hashed: bool = False,
        precise: int = 0,
        format: Optional[str] = None,
        backend: Optional[str] = None,
    ) -> int:
        """Watches a contiguous buffer and holds its export until the region is removed. "auto": "hash" for a name that
        looks like a secret's, else "full". `precise`: 0 as it fits, 1 required, 2 never. `format`: that of an item,
        where the buffer's own says less. `backend`: of this region, by default the watcher's."""

    def region_add_external(self, name: Optional[str] = None, *, values: str = "auto") -> int:
        """A region without memory: its events come from `post`."""

    def region_remove(self, region_id: int) -> None: ...
    def region_find(self, name: str) -> int: ...
    def region_info(self, region_id: int) -> dict[str, Any]:
        """id name address size_bytes values backend format item_bytes shape metric pinned external added_ns
        added_seq last_seq last_time_ns value, and the ledger: detected delivered coalesced unchanged filtered
        dropped."""

    def region_list(self) -> list[dict[str, Any]]: ...
    def region_read(self, region_id: int) -> bytes:
        """The last known value."""

    def flush(self, timeout: float = 5.0) -> bool: ...
    def events_read(self, since: int, limit: int = 256) -> tuple[list[Event], dict[str, int]]:
        """Events with seq > since, and {"oldest", "newest", "missed", "next"}. Never blocks."""

    def post(
        self,
        region_id: int,
        *,
        old: Optional[bytes] = None,
        new: Optional[bytes] = None,
        time_ns: int = 0,
        thread_id: int = 0,
        thread_name: str = "",
        frames: Sequence[tuple[str, str, int]] = (),
        attribution: str = "exact",
        reason: str = "none",
        backend: str = "external",
        old_number: object = None,
        new_number: object = None,
    ) -> int:
        """Appends an event of an external region; its seq. `frames` are (file, function, line), innermost first.

        The numbers are the values, where those are numbers: anything else counts as none."""

    def number_set(self, region_id: int, value: object) -> None:
        """What an external region holds, without an event: its number for metrics, or none."""

    def load(self, key: str, limit: int = ...) -> bytes:
        """The version that a storage key names, or its first `limit` bytes."""

    def version(self, region_id: int, seq: int) -> bytes:
        """What the region held after its last event up to `seq`; 0: before its first."""

    def version_at(self, region_id: int, time_ns: int) -> int:
        """The seq of the region's last event at that time; 0: before its first."""

    def history(self, region_id: int, before: int = 0, limit: int = 4096) -> list[Event]:
        """The events whose versions are kept, newest first, with seq < before (0: all)."""

    def blame(self, region_id: int, offset: int, size: int) -> list[tuple[int, int, Optional[Event]]]:
        """Runs of bytes (offset, size) and the event that last changed them; None: not since the oldest version."""

    def stats(self) -> dict[str, Any]:
        """backend epoch start_time_ns tracked_regions tracked_bytes detected delivered coalesced unchanged filtered
        dropped{reason} native_memory_bytes faults ring_capacity ring_depth ring_high_water ring_dropped armed_pages
        passes pages_written window_ms sweep_ms polled_bytes poll_round_ms poll_budget
        events{oldest newest kept bytes evicted} history_bytes history_budget history_versions history_evicted
        attribution{available filtered note budget signals ours foreign stepped throttled_s exact page none reasons{}
        stack_depth locations locations_dropped handler_lost} latency{bounds_s buckets count sum_s}
        sinks[{name received missed failed lag duration{...}}]"""

    def backends(self) -> list[dict[str, Any]]:
        """[{name, usable, chosen, note}] in the order in which "auto" tries them."""

    def close(self) -> None:
        """Flushes, ends the watcher, releases the buffers. Twice is allowed."""

@final
class Sink:
    """A cursor on the events after `since` (None: from now on), with an account in stats. One thread may read."""

    def __init__(self, watcher: Watcher, name: str, since: Optional[int] = None) -> None: ...
    def read(
        self,
        limit: int = 256,
        timeout: Optional[float] = None,
        *,
        into: Union[list[Event], deque[Event], None] = None,
    ) -> Optional[list[Event]]:
        """Up to `limit` events, which are added to `into` before a signal handler can run; [] after the timeout, None
        once the watcher is closed and all is read. What was read before counts as handled."""

    def report(self, duration_ns: int, failed: bool) -> None:
        """Adds one event to the sink's account."""

    def handled(self, seq: int) -> None:
        """The reader is through with the event and all before it."""

    def end(self) -> None:
        """The reader reads no more: who waits for it waits in vain."""

    def drain(self, seq: Optional[int], timeout: Optional[float] = None) -> bool:
        """Waits until the reader has handled the event `seq`, or all that there was, or has ended (None: only that)."""

    def close(self) -> None: ...

@final
class Event:
    """A reference to a native event; the attributes are read from it when they are asked for."""

    @property
    def seq(self) -> int: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def detected_ns(self) -> int: ...
    @property
    def region_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """ "change" or "lost"."""

    @property
    def backend(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def values(self) -> str: ...
    @property
    def old_value(self) -> Optional[bytes]: ...
    @property
    def new_value(self) -> Optional[bytes]: ...
    @property
    def old_preview(self) -> Optional[bytes]: ...
    @property
    def new_preview(self) -> Optional[bytes]: ...
    @property
    def storage_key_old(self) -> Optional[str]: ...
    @property
    def storage_key_new(self) -> Optional[str]: ...
    @property
    def old_hash(self) -> Optional[int]: ...
    @property
    def new_hash(self) -> Optional[int]: ...
    @property
    def changed_bytes(self) -> int: ...
    @property
    def changes(self) -> list[tuple[int, int]]:
        """(offset, length) in bytes."""

    @property
    def excerpt(self) -> list[tuple[int, bytes, bytes]]:
        """The first changed items behind the preview of what is too large for an event: (offset, old, new)."""

    @property
    def merged(self) -> int: ...
    @property
    def format(self) -> str:
        """Empty for bytes."""

    @property
    def item_bytes(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def fortran_order(self) -> bool: ...
    @property
    def attribution(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def fault_ip(self) -> int: ...
    @property
    def fault_address(self) -> int: ...
    @property
    def thread_id(self) -> int: ...
    @property
    def thread_name(self) -> str: ...
    @property
    def frames(self) -> list[tuple[str, str, int]]: ...
    @property
    def symbol(self) -> str: ...
    @property
    def object(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def native_file(self) -> str: ...
    @property
    def native_line(self) -> int: ...
    @property
    def libc_function(self) -> str: ...

@final
class Glance:
    """Whether a watched name certainly holds what it held; runs no code of the user. The kinds, with what they are
    read from and its key: "namespace" (dict, name), "local" (frame, index of its slot), "cell" (cell), "attribute" and
    "class" (the object or a weak reference to it, name), "item" (dict or list, key), "object" (the object), "unknown".
    """

    def __init__(self, kind: str, holder: object = None, key: object = None) -> None: ...
    def remember(self, value: object, keys: Optional[list[Any]] = None, items: Optional[list[Any]] = None, /) -> None:
        """What the name holds now; with `items`, and `keys` of a dict or an object's attributes, what that holds."""

    def forget(self) -> None:
        """Nothing is certain until the next `remember`."""

    def unchanged(self, frame: FrameType, /) -> bool: ...

@final
class Spot:
    """What is checked at one place; when a glance is not certain, `look_closer` is called with the frame."""

    def __init__(self, glances: tuple[Glance, ...], look_closer: Callable[[FrameType], object]) -> None: ...

def line_step(
    lines: dict[int, Any],
    spot: Optional[Spot] = None,
    idle: Optional[Callable[[FrameType, str, Any], Any]] = None,
    on_return: Optional[Callable[[FrameType], object]] = None,
    /,
) -> Callable[[FrameType, str, Any], Any]:
    """A frame's trace function. It checks the spot of the line that has run and answers with the step for the line that
    begins: that of `lines`, else `idle`. Without `spot` and `idle` it is the idle one. `on_return` is called with a
    frame that returns or yields."""

def call_step(
    steps: dict[int, Optional[Callable[[FrameType, str, Any], Any]]],
    watches: dict[int, Any],
    slow: Callable[[FrameType, str, Any], Any],
    /,
) -> Callable[[FrameType, str, Any], Any]:
    """A thread's trace function. `steps`: the idle line steps by the address of the code object, None for code that
    concerns nothing. Code that is not there is asked of `slow`, and so is everything once there are no watches."""

def gate(
    steps: Optional[dict[int, Optional[Callable[[FrameType, str, Any], Any]]]],
    inspect: Optional[Callable[[CodeType], object]],
    /,
) -> None:
    """Under 3.11: code for which `steps` has None runs untraced in the threads whose trace function is a call_step's.
    Code that is not there is asked of `inspect`, which puts it there. To be called again when what concerns a watch has
    changed. None: no gate any more. Elsewhere it does nothing."""

def frame_slot(frame: FrameType, index: int, missing: object, /) -> object:
    """What a slot of the frame holds: a local, or the cell of a variable that functions share. `missing` for nothing,
    and where FRAMES is false. The frame must run in this thread, or not run."""

def frame_has_ended(frame: FrameType, /) -> bool:
    """Whether the frame neither runs nor will; false where FRAMES is false."""

def guarded(function: Callable[..., object], /) -> Callable[..., object]:
    """A function that calls this one on the user's threads: what a signal handler raises meanwhile is raised a little
    later, outside; where the call is not possible (the end of the stack) it answers None."""

def is_line_step(function: object, /) -> bool: ...
def instruction_callback(table: dict[int, Spot], disable: object, /) -> Callable[[CodeType, int], object]:
    """A function for sys.monitoring's INSTRUCTION events. `table`: the spots, by the address of the code object plus
    the offset; anywhere else it answers `disable`."""

def probe() -> list[dict[str, Any]]:
    """The backends of this machine, as `Watcher.backends` gives them, with nothing chosen."""

def intern(file: str, function: str, line: int, caller: int = 0) -> int:
    """The number of a source location; 0 when the table is full."""

def threads_stop() -> None:
    """Ends the library's threads, until `threads_start`."""

def threads_start() -> None: ...
def signal_default(number: int) -> None:
    """Has the signal do what the system does with it, whichever thread asks."""

def unraisable(error: BaseException, culprit: object) -> None:
    """Hands an exception that nobody can catch to sys.unraisablehook, with the object that raised it."""

def own_set(package_dir: str, threading_file: str) -> None:
    """Which frames are memwatch's own, and the locks that it uses: they never appear as writers."""
