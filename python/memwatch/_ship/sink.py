"""What a destination has to offer."""

from __future__ import annotations

import threading
from typing import Optional, Protocol

from memwatch._ship.record import Origin, Record


class Sink(Protocol):
    """Where records go. Called by many threads at once."""

    def send(self, origin: Origin, records: list[Record], stop: threading.Event, give_up_s: Optional[float]) -> None:
        """Returns when all are acknowledged, or refused for good and counted. `Stopped` or `GaveUp` else."""

    def close(self) -> None:
        """Ends connections."""


class Say(Protocol):
    """Tells the operator a sentence."""

    def __call__(self, sentence: str) -> None: ...
