"""What `memwatch top` shows: each variable's rate, value and last writer, and what was lost."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from memwatch._cli.client import Client, Gone
from memwatch._cli.clock import ago
from memwatch._cli.events import event_of, writer_text
from memwatch._cli.found import Found
from memwatch._cli.ps import losses, rate_text
from memwatch._cli.variables import last_value

HEAD = ("WATCHER", "NAME", "VALUE", "CHANGES/S", "LAST", "WRITER")


class Row(NamedTuple):
    """One variable."""

    watcher: str
    name: str
    value: str
    rate: float
    last_ms: int
    now_ms: int
    writer: str

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """As HEAD says."""
        last = ago(self.last_ms, self.now_ms) if self.last_ms else "never"
        return self.watcher, self.name, self.value, rate_text(self.rate), last, self.writer


class Sampler:
    """Asks one watcher again and again."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.lost: dict[str, int] = {}
        self.gone = False
        self._client = Client(found)
        self._at = 0.0
        self._delivered: dict[str, int] = {}

    def rows(self) -> list[Row]:
        """All its variables now."""
        try:
            status = self._client.json("/api/v1/status")
            regions = list(self._client.regions())
        except Gone:
            self.gone = True
            return []
        self.lost = losses(status)
        now = time.monotonic()
        seconds, self._at = now - self._at, now
        rows = [self._row(region, status["now_ms"], seconds) for region in regions]
        self._delivered = {region["region_id"]: int(region["ledger"]["delivered"]) for region in regions}
        return rows

    def _row(self, region: dict[str, Any], now_ms: int, seconds: float) -> Row:
        number = region["region_id"]
        delivered = int(region["ledger"]["delivered"])
        before = self._delivered.get(number, delivered if not self._delivered else 0)
        value = last_value(region)
        writer = writer_text(event_of(region["last"]).where) if region["last"] else ""
        rate = max(delivered - before, 0) / seconds if seconds > 0 else 0.0
        return Row(self.found.title, region["name"], value, rate, region["last_time_ms"] or 0, now_ms, writer)

    def close(self) -> None:
        """Ends its connection."""
        self._client.close()


def sorted_rows(rows: list[Row]) -> list[Row]:
    """The busiest first, then what changed last."""
    return sorted(rows, key=lambda row: (-row.rate, -row.last_ms, row.watcher, row.name))


def losses_text(samplers: list[Sampler]) -> str:
    """One line."""
    parts = [f"{each.found.title} {reason} {n}" for each in samplers for reason, n in each.lost.items()]
    return f"lost: {', '.join(parts)}" if parts else "nothing was lost"
