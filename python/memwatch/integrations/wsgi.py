"""A WSGI application that serves metrics, feeds and the live page below a prefix of another one's.

    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/memwatch": memwatch.wsgi_app(watcher)})      # Flask

A client that streams or waits holds a thread of the server, or a whole worker of one without threads.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Iterable, Iterator
from urllib.parse import quote

from memwatch.integrations._inside import HEAD_BYTES, Headers, Mounted, read_head, refusal, request

Environ = dict[str, Any]
NAMES = {
    "HTTP_AUTHORIZATION": "Authorization",
    "HTTP_ACCEPT": "Accept",
    "HTTP_ACCEPT_ENCODING": "Accept-Encoding",
    "HTTP_IF_NONE_MATCH": "If-None-Match",
    "HTTP_LAST_EVENT_ID": "Last-Event-ID",
    "HTTP_HOST": "Host",
    "HTTP_ORIGIN": "Origin",
    "HTTP_SEC_FETCH_SITE": "Sec-Fetch-Site",
    "HTTP_SEC_FETCH_MODE": "Sec-Fetch-Mode",
}
REASONS = {307: "Temporary Redirect", 403: "Forbidden", 405: "Method Not Allowed", 421: "Misdirected Request"}


class WsgiApp(Mounted):
    """Passes requests on to an exporter of the watcher's in this process."""

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """As PEP 3333 wants it."""
        headers = [(name, str(environ[key])) for key, name in NAMES.items() if key in environ]
        path, method = str(environ.get("PATH_INFO", "")), str(environ["REQUEST_METHOD"])
        if not path:
            place = str(environ.get("SCRIPT_NAME", "")).rpartition("/")[2]
            return _answer(start_response, 307, [("Location", f"{quote(place)}/")], b"")
        refused = refusal(method, str(environ.get("wsgi.url_scheme", "http")), path, headers, self._allowed)
        if refused:
            return _error(start_response, *refused)
        query = str(environ.get("QUERY_STRING", ""))
        target = quote(path.encode("latin-1"), safe="/-._~") + (f"?{query}" if query else "")
        try:
            connection = self._inside.connect()
            connection.sendall(request(method, target, headers))
            file = connection.makefile("rb", buffering=HEAD_BYTES)
            connection.close()  # the file holds it
            return _pass_back(file, start_response)
        except OSError:
            return _error(start_response, 503, "The watcher is closed.")


class _Body:
    """The rest of an answer, as it comes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        try:
            while piece := self._file.read1(1 << 16):
                yield piece
        except OSError:
            return

    def close(self) -> None:
        """The client has it, or has gone."""
        self._file.close()


def _pass_back(file: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
    head = b""
    while line := file.readline(HEAD_BYTES):
        if line == b"\r\n":
            break
        head += line
    if not head:
        raise OSError("no answer")
    status, reason, headers = read_head(head)
    start_response(f"{status} {reason or 'Answer'}", headers)
    return _Body(file)


def _error(start_response: Callable[..., Any], status: int, sentence: str) -> Iterable[bytes]:
    body = json.dumps({"error": sentence}).encode() + b"\n"
    return _answer(start_response, status, [("Content-Type", "application/json")], body)


def _answer(start_response: Callable[..., Any], status: int, headers: Headers, body: bytes) -> Iterable[bytes]:
    more = [("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start_response(f"{status} {REASONS.get(status, 'Service Unavailable')}", [*headers, *more])
    return [body]
