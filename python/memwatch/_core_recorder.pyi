"""The typed surface of the recorder's extension module."""

from typing import Any, Optional, final

from memwatch._core import Watcher

@final
class Recorder:
    """Writes a watcher's events and versions to a file, from now on. The watcher needs `patches=True`."""

    def __init__(
        self,
        watcher: Watcher,
        path: str,
        *,
        max_bytes: Optional[int] = None,
        commit_ms: Optional[int] = None,
        keep_runs: Optional[int] = None,
        sync: bool = True,
    ) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def flush(self, timeout: float = 5.0) -> bool: ...
    def close(self) -> None: ...
