"""One watcher's feed, page by page."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from memwatch._cli.client import Client, Refused
from memwatch._cli.found import Found
from memwatch._ship.record import Origin, this_host

PAGE_EVENTS = 512


class Another(Exception):
    """Another watcher is there now than the one whose events were read."""


class Source:
    """One exporter, asked on a connection that is kept."""

    def __init__(self, found: Found, names: list[str]) -> None:
        self.found = found
        self.key = found.address if not found.epoch else f"pid {found.pid} {found.address}"
        """The same for whatever watcher is there, now and later."""
        self._names = names
        self._client = Client(found)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def cancel(self) -> None:
        """Any thread: ends the question under way."""
        connection = self._client._connection.sock
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def is_filtered(self) -> bool:
        """Whether some events are left out."""
        return bool(self._names)

    def status(self) -> tuple[Origin, int]:
        """Who is there now, and the newest event."""
        said = self._client.json("/api/v1/status")
        labels = said.get("labels") if isinstance(said.get("labels"), dict) else {}
        origin = Origin(
            epoch=str(said["epoch"]),
            service=str(said.get("service") or ""),
            worker=str(said.get("worker") or ""),
            pid=int(said.get("pid") or 0),
            host=this_host(),
            labels=tuple(sorted((str(name), str(text)) for name, text in (labels or {}).items())),
        )
        return origin, int(said["newest"])

    def page(self, epoch: str, since: int, wait_s: float) -> dict[str, Any]:
        """The next events. `Another` when the watcher is another one."""
        query: dict[str, Any] = {"epoch": epoch, "since": since, "limit": PAGE_EVENTS, "wait": f"{wait_s:g}"}
        try:
            return self._client.json("/api/v1/events", **query, name=self._names or None)
        except Refused as refused:
            if refused.status == 410:
                raise Another from None
            raise
