"""Says so, once, when so much memory is polled that a change may be told seconds late."""

from __future__ import annotations

from memwatch._native import core
from memwatch._typing import Optional

#: Bytes whose polling is worth a word.
MUCH = 256 << 20


class PolledBytes:
    """How many bytes a watcher polls, until they have been called many."""

    def __init__(self, watcher: core.Watcher) -> None:
        self._core = watcher
        polls = core.NATIVE and any(b["chosen"] and b["name"] == "poll" for b in watcher.backends())
        self._n_bytes: Optional[int] = 0 if polls else None

    def add(self, region_id: int) -> None:
        """One more region, for the caller of a caller."""
        if self._n_bytes is None:
            return
        try:  # not asked of the object: arrays of dates have no buffer in Python
            self._n_bytes += self._core.region_info(region_id)["size_bytes"]
        except KeyError:  # removed by another thread
            return
        if self._n_bytes < MUCH:
            return
        self._n_bytes = None
        stats = self._core.stats()
        mib, late_s, budget = stats["polled_bytes"] >> 20, stats["poll_round_ms"] / 1e3, stats["poll_budget"]
        import warnings

        warnings.warn(
            f"{mib} MiB are polled: a change may be told up to {late_s:.0f} s late (poll_round_ms in the stats); "
            f"poll_budget, {budget:g} of a core, can be raised",
            RuntimeWarning,
            stacklevel=3,
        )
