"""What `MemoryWatcher.get_stats()` returns."""

from __future__ import annotations

from typing import Any, Optional, TypedDict


class Attribution(TypedDict):
    """Who wrote: how many events have a proven author, and what asking for it cost."""

    available: bool
    note: str
    """Why authors are not told, where they are not."""
    budget: float
    exact: int
    page: int
    none: int
    reasons: dict[str, int]
    """Of `none`: events by reason."""
    signals: int
    ours: int
    foreign: int
    filtered: bool
    throttled_s: float
    stepped: int
    stack_depth: int
    locations: int
    locations_dropped: int
    handler_lost: int
    watchpoints: int
    watchpoints_used: int
    watchpoint_hits: int
    watchpoint_missed: int


class _Stats(TypedDict):
    backend: str
    backends: list[dict[str, Any]]
    tracked_regions: int
    tracked_bytes: int
    native_memory_bytes: int
    detected: int
    delivered: int
    coalesced: int
    unchanged: int
    filtered: int
    dropped: dict[str, int]
    """By reason."""
    dropped_events: int
    """All that was lost anywhere, notes of writers included."""
    faults: int
    ring_capacity: int
    ring_depth: int
    ring_high_water: int
    ring_dropped: int
    history_bytes: int
    history_budget: int
    history_evicted: int
    history_versions: int
    events: dict[str, int]
    callback_errors: int
    callback_filtered: int
    callback_missed: int
    attribution: Attribution
    adapters: dict[str, dict[str, Any]]
    recorder: Optional[dict[str, Any]]
    sinks: list[dict[str, Any]]
    missing: dict[str, str]
    """Parts of memwatch that are not there, and why."""
    epoch: int
    start_time_ns: int
    window_ms: int
    sweep_ms: int
    passes: int
    pages_written: int
    armed_pages: int
    poll_budget: float
    poll_round_ms: int
    polled_bytes: int
    forks_unwatched: int
    latency: dict[str, Any]


class Stats(_Stats, total=False):
    """What was seen, what was lost and what it cost."""

    regions: dict[str, dict[str, Any]]
    """With `regions=True`: every region's own account by name."""
