"""A small HTTP server of the tools, which a crowd cannot make large."""

from __future__ import annotations

import threading
from http.server import ThreadingHTTPServer
from typing import Any

CLIENTS = 16


class Server(ThreadingHTTPServer):
    """Answers CLIENTS at a time; the others are turned away, and come again."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._places = threading.BoundedSemaphore(CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """On a thread of its own, where there is a place."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """On that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that vanish are no news."""
