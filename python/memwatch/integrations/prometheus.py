"""memwatch's metrics in an existing /metrics of prometheus_client.

    from memwatch.integrations.prometheus import register
    register(watcher)

They are the families of docs/metrics.md, of this process. In prometheus_client's multiprocess mode one worker answers
for all, and custom collectors are left out: there `memwatch hub` merges the workers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Iterator

from memwatch.integrations._inside import Inside, ask


class MemwatchCollector:
    """A collector. What variables hold is left out unless `values=True`: whoever reads the application's /metrics would
    see it."""

    def __init__(self, watcher: Any, *, values: bool = False) -> None:
        self._inside, self._values = Inside(watcher), values

    def collect(self) -> Iterator[Any]:
        """The families now; none once the watcher is closed."""
        parser: Any = import_module("prometheus_client.openmetrics.parser")
        headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
        if self._values:
            headers["Authorization"] = f"Bearer {self._inside.token}"
        try:
            status, body = ask(self._inside, "/metrics", headers)
        except OSError:
            return
        if status == 200:
            yield from parser.text_string_to_metric_families(body.decode())

    def describe(self) -> list[Any]:
        """None by name: registering asks the watcher nothing."""
        return []


def register(watcher: Any, registry: Any = None, *, values: bool = False) -> MemwatchCollector:
    """Adds the watcher's metrics to prometheus_client's registry, or to another one."""
    if registry is None:
        registry = import_module("prometheus_client").REGISTRY
    collector = MemwatchCollector(watcher, values=values)
    registry.register(collector)
    return collector
