"""OTLP over HTTP: logs in JSON to an OpenTelemetry Collector, or to whoever speaks it.

DESIGN  The rules are the specification's. 429, 502, 503 and 504 and broken connections are tried again, after what
Retry-After says or after pauses that grow. Any other refusal is final: the batch is counted as rejected, and so are
the records that a partial success names; neither is sent again. Only of 413 the batch is sent in halves, which is
another request. Each thread has a connection of its own, which is kept.
"""

from __future__ import annotations

import gzip
import http.client
import json
import ssl
import threading
import time
from typing import Any, Optional
from urllib.parse import unquote, urlsplit

from memwatch._ship.numbers import Numbers
from memwatch._ship.otlp_json import request
from memwatch._ship.record import Origin, Record
from memwatch._ship.retry import Waiting, retry_after
from memwatch._ship.sink import Say

RETRIED = frozenset((429, 502, 503, 504))
ANSWER_S, ANSWER_BYTES = 10.0, 64 * 1024
BROKEN = (OSError, http.client.HTTPException)
PATH = "/v1/logs"


class Otlp:
    """One endpoint."""

    def __init__(self, url: str, headers: dict[str, str], numbers: Numbers, say: Say, version: str) -> None:
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"{url} is no address: otlp+http://127.0.0.1:4318")
        self._tls, self._host = address.scheme == "https", address.hostname
        try:
            self._port = address.port or 4318
        except ValueError:
            raise ValueError(f"{url}: a port is a number up to 65535") from None
        path = address.path.rstrip("/")
        self._path = path if path.endswith(PATH) else path + PATH
        self._headers = {"Content-Type": "application/json", "User-Agent": f"memwatch-ship/{version}", **headers}
        if address.username:
            import base64

            pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        self._numbers, self._say, self._version = numbers, say, version
        self._local = threading.local()

    def close(self) -> None:
        """Of other threads the connections end with them."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()

    def send(self, origin: Origin, records: list[Record], stop: threading.Event, give_up_s: Optional[float]) -> None:
        """Delivers one batch."""
        said = request(origin, records, self._version, time.time_ns())
        body = gzip.compress(json.dumps(said, separators=(",", ":")).encode(), 1)
        waiting = Waiting(stop, give_up_s)
        while True:
            status, headers, answer = self._post(body)
            if status is not None and 200 <= status < 300:
                self._accepted(answer)
                return
            if status == 413 and len(records) > 1:
                half = len(records) // 2
                self.send(origin, records[:half], stop, give_up_s)
                self.send(origin, records[half:], stop, give_up_s)
                return
            sentence = self._sentence(status, answer)
            if status is not None and status not in RETRIED:
                self._numbers.failed("refused", sentence)
                self._numbers.add("rejected_events", len(records))
                self._say(f"{sentence}: {len(records)} records are not sent again")
                return
            self._numbers.failed("unreachable" if status is None else "throttled", sentence)
            self._say(sentence)
            self._numbers.add("retries")
            waiting.pause(sentence, retry_after(headers.get("Retry-After")))

    def _connection(self) -> http.client.HTTPConnection:
        connection: Optional[http.client.HTTPConnection] = getattr(self._local, "connection", None)
        if connection is None:
            if self._tls:
                context = ssl.create_default_context()
                connection = http.client.HTTPSConnection(self._host, self._port, timeout=ANSWER_S, context=context)
            else:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=ANSWER_S)
            self._local.connection = connection
        return connection

    def _post(self, body: bytes) -> tuple[Optional[int], Any, bytes]:
        """Status, headers and body of the answer; the status None when none came."""
        connection = self._connection()
        try:
            connection.request("POST", self._path, body, {**self._headers, "Content-Encoding": "gzip"})
            answer = connection.getresponse()
            said = answer.read(ANSWER_BYTES)
            if answer.read(1):
                connection.close()  # more than anybody wants to know
            return answer.status, answer.headers, said
        except BROKEN as error:
            connection.close()
            return None, {}, str(error).encode() or type(error).__name__.encode()

    def _sentence(self, status: Optional[int], answer: bytes) -> str:
        said = answer.decode("utf-8", "replace").strip()[:200]
        place = f"{self._host}:{self._port}{self._path}"
        return f"{place} cannot be reached: {said}" if status is None else f"{place} answers {status}: {said}"

    def _accepted(self, answer: bytes) -> None:
        try:
            partial = json.loads(answer or b"{}").get("partialSuccess") or {}
            n_rejected = int(partial.get("rejectedLogRecords") or 0)
            message = str(partial.get("errorMessage") or "")
        except (ValueError, TypeError, AttributeError):
            return  # it has them, whatever it says
        if n_rejected > 0:
            self._numbers.failed("refused", message)
            self._numbers.add("rejected_events", n_rejected)
        if n_rejected > 0 or message:
            self._say(f"{self._host}:{self._port} took all but {n_rejected} records: {message[:200]}")
