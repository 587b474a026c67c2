"""What a shipper says of itself: metrics on a port of its own, or in a file for node_exporter's textfile collector."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Optional

from memwatch._cli.server import Server
from memwatch._ship import files
from memwatch._ship.sink import Say

FAMILIES = {
    "memwatch_ship_up": ("gauge", "1 while the shipper runs."),
    "memwatch_ship_sources": ("gauge", "Watchers that are read now."),
    "memwatch_ship_events_total": ("counter", "Events that the destination acknowledged."),
    "memwatch_ship_gaps_total": ("counter", "Gaps and restarts that the destination acknowledged."),
    "memwatch_ship_missed_events_total": ("counter", "Events that had left the watcher's log before they were read."),
    "memwatch_ship_rejected_events_total": ("counter", "Records that the destination refused for good."),
    "memwatch_ship_retries_total": ("counter", "Deliveries that were tried again."),
    "memwatch_ship_failures_total": ("counter", "Failed tries, by what failed."),
    "memwatch_ship_lag_events": ("gauge", "Events in the log of a watcher that are not delivered yet."),
    "memwatch_ship_lag_seconds": ("gauge", "Age of the oldest record that is under way, 0 when there is none."),
    "memwatch_ship_last_success_timestamp_seconds": ("gauge", "When the destination last acknowledged something."),
}
REASONS = ("source", "refused", "throttled", "unreachable", "answer", "state")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Numbers:
    """Counters and gauges. Any thread may change them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._values: dict[str, float] = {name: 0 for name in FAMILIES if not name.endswith(("_failures_total",))}
        for name in ("memwatch_ship_lag_events", "memwatch_ship_lag_seconds"):
            del self._values[name]
        self._failures = dict.fromkeys(REASONS, 0)
        self._lags: dict[str, tuple[int, Optional[int]]] = {}
        self._values["memwatch_ship_up"] = 1
        self.last_error = ""

    def add(self, name: str, n: int = 1) -> None:
        """To a counter: "events", "gaps", "missed_events", "rejected_events", "retries"."""
        with self._mutex:
            self._values[f"memwatch_ship_{name}_total"] += n

    def failed(self, reason: str, sentence: str) -> None:
        """One try that failed, and what it said."""
        with self._mutex:
            self._failures[reason] += 1
            self.last_error = sentence

    def succeeded(self) -> None:
        """The destination acknowledged something."""
        with self._mutex:
            self._values["memwatch_ship_last_success_timestamp_seconds"] = time.time()

    def sources(self, n: int) -> None:
        """How many watchers are read."""
        with self._mutex:
            self._values["memwatch_ship_sources"] = n

    def lag(self, source: str, n_events: int, oldest_ms: Optional[int]) -> None:
        """How far behind a source is: events in its log, and the time of the oldest record under way."""
        with self._mutex:
            self._lags[source] = (n_events, oldest_ms)

    def forget(self, source: str) -> None:
        """That watcher is no more."""
        with self._mutex:
            self._lags.pop(source, None)

    def value(self, name: str) -> float:
        """Of one counter or gauge without labels."""
        with self._mutex:
            return self._values[f"memwatch_ship_{name}"]

    def text(self) -> str:
        """All of them, in Prometheus's format."""
        with self._mutex:
            values, failures, lags = dict(self._values), dict(self._failures), dict(self._lags)
        lines: list[str] = []
        for name, (kind, help_text) in FAMILIES.items():
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
            if name == "memwatch_ship_failures_total":
                lines += [f'{name}{{reason="{reason}"}} {n}' for reason, n in failures.items()]
            elif name == "memwatch_ship_lag_events":
                lines += [f'{name}{{source="{_escaped(source)}"}} {n}' for source, (n, _) in sorted(lags.items())]
            elif name == "memwatch_ship_lag_seconds":
                lines += [
                    f'{name}{{source="{_escaped(source)}"}} {_age_s(oldest_ms):.3f}'
                    for source, (_, oldest_ms) in sorted(lags.items())
                ]
            else:
                lines.append(f"{name} {values[name]:.17g}")
        return "\n".join(lines) + "\n"


def _age_s(time_ms: Optional[int]) -> float:
    return 0.0 if time_ms is None else max(time.time() - time_ms / 1000, 0)


def serve(numbers: Numbers, host: str, port: int) -> Server:
    """Serves `/metrics` there, on a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            if self.path.partition("?")[0] not in ("/metrics", "/-/healthy"):
                self.send_error(404)
                return
            body = numbers.text().encode() if self.path.startswith("/metrics") else b"memwatch ship is healthy.\n"
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are no news."""

    server = Server((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="memwatch-ship-metrics", daemon=True).start()
    return server


def write_file(numbers: Numbers, path: str, say: Say) -> None:
    """Writes them to a file, replaced whole, as node_exporter wants it; where that fails, it is said and counted."""
    try:
        files.replace(path, numbers.text(), mode=0o666, synced=False)
    except OSError as error:
        numbers.failed("state", f"{path}: {error.strerror}")
        say(f"--metrics-file {path}: {error.strerror}")
