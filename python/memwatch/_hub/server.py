"""Answers: requests are parsed here, and told who answers them.

DESIGN  GET and HEAD, no bodies, one connection a task, limits on all that a client can hold: connections, headers, the
time that a request or the reading of an answer may take. Everything else is refused with a sentence.

Who has no token can take nobody's place: where there are no more, the connection that has waited for longest gives way,
be it for a request or for its client to read. Scrapes without rights share one answer, and their bytes have a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import ssl
import time
from importlib import resources
from types import MappingProxyType
from typing import Any, AsyncIterator, Awaitable, Callable, Mapping, NamedTuple, Optional, Union
from urllib.parse import parse_qs, unquote, urlsplit

from memwatch._hub.access import Access, Headers, Refusal
from memwatch._hub.stream import NDJSON, Stream, Wish, end
from memwatch._hub.upstream import Gone, Late
from memwatch._hub.workers import OPENMETRICS, PLAIN, Worker, Workers, labels_of

HEAD_BYTES = 16 * 1024
REQUEST_S, IDLE_S, WRITE_S = 10.0, 30.0, 10.0
CONNECTIONS = 128
STREAMS = 32
SHARED_S = 0.1
UNREAD_BYTES = 32 << 20
GZIP_BYTES = 4096
PAGES = {"/": ("hub.html", "text/html"), "/hub.js": ("hub.js", "text/javascript"), "/hub.css": ("hub.css", "text/css")}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_GZIP = re.compile(r"(?:^|,)\s*gzip\s*(?:$|,|;(?!\s*q=0(?:\.0*)?\s*(?:$|,)))", re.IGNORECASE)
_NAME, _ODD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[\r\n\0]")
_JSON = "application/json; charset=utf-8"
_PASSED_ON = ("accept", "last-event-id", "if-none-match")
_PASSED_BACK = ("content-type", "content-length", "etag", "retry-after", "allow", "x-accel-buffering")


class Request(NamedTuple):
    """What came."""

    method: str
    path: str
    query: str
    headers: Headers
    peer: Any
    version: str = "HTTP/1.1"


class Reply(NamedTuple):
    """What goes."""

    status: int
    kind: str
    body: Union[bytes, AsyncIterator[bytes]]
    headers: Mapping[str, str] = MappingProxyType({})


class Hub:
    """The server."""

    def __init__(self, workers: Workers, access: Access) -> None:
        self.workers = workers
        self.access = access
        self.stream = Stream(workers)
        self.scrape_s = 0.0
        self._n_connections = 0
        self._unread_bytes = 0
        self._may_give_way: dict[asyncio.Task[None], None] = {}
        """Who waits, or is answered without the token; who does so for longest comes first."""
        self._shared: dict[str, tuple[float, bytes]] = {}
        self._shared_lock = asyncio.Lock()
        self._other_loopback: Optional[socket.socket] = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Optional[asyncio.AbstractServer] = None
        self._beat: Optional[asyncio.Task[None]] = None

    async def start(self, host: str, port: int, tls: Optional[ssl.SSLContext], interval_s: float) -> int:
        """Listens; the port."""
        self._server = await asyncio.start_server(self._connected, host, port, ssl=tls, limit=HEAD_BYTES)
        self.access.port = int(self._server.sockets[0].getsockname()[1])
        if host == "127.0.0.1":
            self._hold_other_loopback()
        self._beat = asyncio.ensure_future(self._beating(interval_s))
        return self.access.port

    def _hold_other_loopback(self) -> None:
        """A browser that is sent to localhost tries ::1 first: nobody else shall answer there."""
        with contextlib.suppress(OSError):  # a machine without IPv6, or somebody was there first
            self._other_loopback = socket.socket(socket.AF_INET6)
            self._other_loopback.bind(("::1", self.access.port))

    async def close(self) -> None:
        """Ends all."""
        if self._other_loopback is not None:
            self._other_loopback.close()
        if self._server is not None:
            self._server.close()
        await end([*self._tasks, self._beat] if self._beat is not None else self._tasks)
        await self.stream.close()
        self.workers.close()

    async def _beating(self, interval_s: float) -> None:
        while True:
            started = time.monotonic()
            with contextlib.suppress(OSError):
                await self.workers.refresh()
                await self.workers.scrape(PLAIN, values=True)
            self.stream.tend()
            await asyncio.sleep(max(interval_s - (time.monotonic() - started), interval_s / 10))

    # --- connections --------------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._n_connections += 1
        try:
            if self._n_connections > CONNECTIONS and not self._make_room():
                await self._send(writer, _error(503, "Too many connections."), "GET", False)
            else:
                limit_s = REQUEST_S
                while await self._one(reader, writer, limit_s):
                    limit_s = IDLE_S
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), WRITE_S)
        except (TimeoutError, OSError, EOFError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # clients that vanish are no news
        finally:
            self._n_connections -= 1
            self._tasks.discard(task)
            self._may_give_way.pop(task, None)
            with contextlib.suppress(Exception):
                writer.transport.abort()  # what is not read by now is not kept for whoever does not read

    def _make_room(self) -> bool:
        """Ends the connection that has waited for longest; False when all are of clients with the token."""
        oldest = next(iter(self._may_give_way), None)
        if oldest is None:
            return False
        del self._may_give_way[oldest]
        oldest.cancel()
        return True

    def _waits(self) -> None:
        """This connection is the last of those that may give way, from now on."""
        task = asyncio.current_task()
        assert task is not None
        self._may_give_way.pop(task, None)
        self._may_give_way[task] = None

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit_s: float) -> bool:
        """Answers one request; whether another may come."""
        self._waits()
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), limit_s)
        except asyncio.LimitOverrunError:
            await self._send(writer, _error(431, "The headers are longer than 16 KiB."), "GET", False)
            return False
        try:
            request = parse(head, writer.get_extra_info("socket"))
        except Refusal as refusal:
            await self._send(writer, _error(refusal.status, str(refusal)), "GET", False)
            return False
        if self.access.has_token(request.headers):
            self._may_give_way.pop(asyncio.current_task(), None)  # type: ignore[arg-type]  # there is one
        try:
            reply = await self._answer(request)
        except Refusal as refusal:
            reply = _error(refusal.status, str(refusal))
        except Late:
            reply = _error(504, "The worker does not answer now.")
        except Gone:
            reply = _error(502, "The worker is gone.")
        keep = keeps(request) and isinstance(reply.body, bytes) and reply.status < 400
        if self.access.may_scrape(request.headers, request.peer):
            await self._send(writer, _zipped(reply, request), request.method, keep)
        else:
            await self._send_to_others(writer, reply, request.method, keep)
        return keep

    async def _send_to_others(self, writer: asyncio.StreamWriter, reply: Reply, method: str, keep: bool) -> None:
        """To who may read no values: all of them together can leave so much unread."""
        n_bytes = len(reply.body) if isinstance(reply.body, bytes) else 0
        if self._unread_bytes and self._unread_bytes + n_bytes > UNREAD_BYTES:
            await self._send(writer, _error(503, "Too many answers are not read."), method, False)
            return
        self._unread_bytes += n_bytes
        try:
            await self._send(writer, reply, method, keep)
        finally:
            self._unread_bytes -= n_bytes

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply, method: str, keep: bool) -> None:
        headers = {
            "Content-Type": reply.kind,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "keep-alive" if keep else "close",
            **reply.headers,
        }
        if isinstance(reply.body, bytes):
            headers["Content-Length"] = str(len(reply.body))
        lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if isinstance(reply.body, bytes):
            writer.write(reply.body if method != "HEAD" else b"")
            await asyncio.wait_for(writer.drain(), WRITE_S)
            return
        try:
            async for piece in reply.body:
                if method == "HEAD":
                    return
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), WRITE_S)
        finally:
            close = getattr(reply.body, "aclose", None)
            if close is not None:
                await close()

    # --- answers ------------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Reply:
        path = request.path
        if path in ("/-/healthy", "/-/ready"):
            self.access.check_site(request.headers, navigable=False)
            return Reply(200, "text/plain; charset=utf-8", b"ok\n", {"Memwatch-Epoch": self.stream.epoch})
        self.access.check(request.headers, path == "/")
        if path in PAGES:
            return _page(*PAGES[path])
        if path == "/api/v1/token":
            return self._token(request)
        if path == "/metrics":
            return await self._metrics(request)
        if path == "/sd":
            return await self._discovery(request)
        rest = path.removeprefix("/api/v1/workers/").split("/", 2)
        if path.startswith("/api/v1/workers/") and len(rest) == 3:
            return await self._of_worker(request, unquote(rest[0]), unquote(rest[1]), rest[2])
        answers: dict[str, Callable[[Request], Awaitable[Reply]]] = {
            "/api/v1/workers": self._list,
            "/api/v1/status": self._status,
            "/api/v1/events/stream": self._events,
        }
        if path not in answers:
            raise Refusal(404, "There is nothing at this address; / leads to what there is.")
        self._need_token(request)
        return await answers[path](request)

    def _need_token(self, request: Request) -> None:
        if not self.access.has_token(request.headers):
            raise Refusal(401, "This needs the hub's token: send it as Authorization: Bearer TOKEN.")

    def _token(self, request: Request) -> Reply:
        if request.method != "GET" or not self.access.takes_code(request.headers):
            raise Refusal(401, "This code is unknown, was used already, or is older than an hour.")
        return _json({"token": self.access.token})

    def _may_scrape(self, request: Request) -> bool:
        may = self.access.may_scrape(request.headers, request.peer)
        if may is None:
            raise Refusal(401, "This needs the hub's token: send it as Authorization: Bearer TOKEN.")
        return may

    async def _metrics(self, request: Request) -> Reply:
        values = self._may_scrape(request)
        accept = OPENMETRICS if _wants_openmetrics(request.headers.one("accept") or "") else PLAIN
        text = await self._scraped(accept, values=True) if values else await self._scraped_for_others(accept)
        kind = accept.replace(";", "; ") + "; charset=utf-8"
        return Reply(200, kind, text)

    async def _scraped(self, accept: str, *, values: bool) -> bytes:
        started = time.perf_counter()
        await self.workers.refresh()
        await self.workers.scrape(accept, values=values)
        openmetrics = accept == OPENMETRICS
        own = self.workers.own_families(openmetrics) + self._own_families(openmetrics)
        text = self.workers.merged(accept, values=values, own=own)
        self.scrape_s = time.perf_counter() - started
        return text

    async def _scraped_for_others(self, accept: str) -> bytes:
        """One scrape for all of them in a while, however often they ask."""
        async with self._shared_lock:
            at, text = self._shared.get(accept, (-SHARED_S, b""))
            if time.monotonic() - at >= SHARED_S:
                text = await self._scraped(accept, values=False)
                self._shared[accept] = time.monotonic(), text
            return text

    def _own_families(self, openmetrics: bool) -> bytes:
        from memwatch._hub.merge import family

        return family(
            "memwatch_hub_scrape_duration_seconds", "gauge", "How long the hub's previous scrape took.",
            [(b"", self.scrape_s)], openmetrics,
        ) + family("memwatch_hub_stream_clients", "gauge", "Clients of the merged stream.",
                   [(b"", self.stream.n_clients)], openmetrics)  # fmt: skip

    async def _discovery(self, request: Request) -> Reply:
        """For http_sd_configs: one target a worker, all behind this port."""
        self._may_scrape(request)
        await self.workers.refresh()
        host = request.headers.one("host") or ""
        groups = []
        for worker in self._live():
            place = worker.place
            more = labels_of(worker.found)
            path = f"/api/v1/workers/{_quoted(place.service)}/{_quoted(place.worker)}/metrics"
            own = {"__metrics_path__": path, "service": place.service, "worker": place.worker}
            instance = {"instance": f"{place.service}/{place.worker}"}
            groups.append({"targets": [host], "labels": {**more, **own, **instance}})
        return Reply(200, "application/json", json.dumps(groups).encode())

    async def _of_worker(self, request: Request, service: str, name: str, rest: str) -> Reply:
        """What the worker itself answers."""
        if rest == "metrics":
            values = self._may_scrape(request)
        else:
            self._need_token(request)
        worker = self.workers.find(service, name)
        if worker is None:
            await self.workers.refresh()
            worker = self.workers.find(service, name)
        if worker is None:
            raise Refusal(404, "There is no such worker now; /api/v1/workers lists them.")
        if rest == "metrics":
            accept = OPENMETRICS if _wants_openmetrics(request.headers.one("accept") or "") else PLAIN
            status, text = await worker.upstream.scrape(accept, values=values)
            return Reply(status, accept.replace(";", "; ") + "; charset=utf-8", text)
        headers = {key: value for key in _PASSED_ON if (value := request.headers.one(key)) is not None}
        path = f"/api/v1/{rest}" + (f"?{request.query}" if request.query else "")
        connection, answer = await worker.upstream.get(path, headers, _wait_s(request))
        back = {
            key.title(): value
            for key, value in answer.headers.items()
            if key in _PASSED_BACK[1:] or key.startswith("memwatch-")
        }

        async def body() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.body():
                    yield piece
            except (OSError, EOFError, ValueError, asyncio.IncompleteReadError):
                return
            finally:
                connection.close()

        return Reply(answer.status, answer.headers.get("content-type", _JSON), body(), back)

    def _live(self) -> list[Worker]:
        return sorted(self.workers.workers.values(), key=lambda each: (each.place.service, each.place.worker))

    async def _list(self, request: Request) -> Reply:
        await self.workers.refresh()
        found = [
            {
                "service": worker.place.service,
                "worker": worker.place.worker,
                "pid": worker.found.pid,
                "labels": labels_of(worker.found),
                "epoch": worker.key,
                "up": worker.up,
                "path": f"/api/v1/workers/{_quoted(worker.place.service)}/{_quoted(worker.place.worker)}/",
            }
            for worker in self._live()
        ]
        return _json({"workers": found})

    async def _status(self, request: Request) -> Reply:
        said = {
            "epoch": self.stream.epoch,
            "newest": self.stream.newest,
            "workers": len(self.workers.workers),
            "workers_ended": self.workers.n_ended,
            "stream_clients": self.stream.n_clients,
            "scrape_seconds": self.scrape_s,
        }
        return _json(said)

    async def _events(self, request: Request) -> Reply:
        wish = _wish(request)
        await self.workers.refresh()
        if request.method != "HEAD":
            await self.stream.join(wish)
        if self.stream.n_clients >= STREAMS:  # behind the last await: none can come in between
            return Reply(503, _JSON, b'{"error": "All places for streams are taken."}\n', {"Retry-After": "5"})
        lines = NDJSON in (request.headers.one("accept") or "")
        kind = NDJSON if lines else "text/event-stream"
        return Reply(200, kind, self.stream.pieces(wish, lines=lines), {"X-Accel-Buffering": "no"})


# --- requests ---------------------------------------------------------------------------------------------------------


def parse(head: bytes, peer: Any) -> Request:
    """A request's head."""
    first, *rest = head[:-4].decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or _ODD.search(first):
        raise Refusal(400, "This is no request of HTTP/1.1.")
    headers = Headers()
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name) or _ODD.search(line):
            raise Refusal(400, "A header is not as it must be.")
        headers.setdefault(name.lower(), []).append(value.strip())
    method, target = parts[0], parts[1]
    if method not in ("GET", "HEAD"):
        raise Refusal(405, "Only GET and HEAD are served.")
    if "transfer-encoding" in headers or headers.one("content-length") not in (None, "0"):
        raise Refusal(413, "Requests with a body are not served.")
    if len(target) > 2048:
        raise Refusal(414, "The address is longer than 2048 bytes.")
    try:
        split = urlsplit(target)
    except ValueError:
        raise Refusal(400, "The address is not as it must be.") from None
    if not split.path.startswith("/") or (split.netloc and split.netloc != headers.one("host")):
        raise Refusal(400, "The address names another host than the Host header, or no path.")
    return Request(method, split.path, split.query, headers, peer, parts[2])


def keeps(request: Request) -> bool:
    """Whether the client may send another request on this connection."""
    words = [word.strip().lower() for line in request.headers.get("connection", []) for word in line.split(",")]
    return "close" not in words and (request.version != "HTTP/1.0" or "keep-alive" in words)


def _wish(request: Request) -> Wish:
    """What a client of the merged stream wants."""
    query = parse_qs(request.query, keep_blank_values=True)
    unknown = set(query) - {"since", "epoch", "name", "service", "worker"}
    if unknown:
        raise Refusal(400, f"There is no parameter {sorted(unknown)[0]}: since, epoch, name, service, worker.")
    since, epoch = query.get("since", ["latest"])[0], query.get("epoch", [None])[0]
    last = request.headers.one("last-event-id")
    if last:  # one that cannot be read is another log's: a browser that is refused comes never again
        known = re.fullmatch(r"([0-9a-f]{16})-([0-9]{1,19})", last)
        epoch, since = known.groups() if known else ("", "0")
    if since != "latest" and not re.fullmatch(r"[0-9]{1,19}", since):
        raise Refusal(400, "since is a number that the stream gave, or latest.")
    at = None if since == "latest" else int(since)
    return Wish(at, epoch, query.get("name", []), query.get("service", []), query.get("worker", []))


def _wait_s(request: Request) -> float:
    """How long a worker is asked to wait for an event: what is no such number it refuses at once."""
    wait = parse_qs(request.query).get("wait", [""])[0]
    return float(wait) if re.fullmatch(r"[0-9]{1,2}(\.[0-9]*)?", wait) else 0.0


def _wants_openmetrics(accept: str) -> bool:
    return any(
        part.strip().startswith("application/openmetrics-text") and "version=1." in part for part in accept.split(",")
    )


# --- replies ----------------------------------------------------------------------------------------------------------

_REASONS = {
    200: "OK", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 410: "Gone", 413: "Content Too Large", 414: "URI Too Long",
    421: "Misdirected Request", 431: "Request Header Fields Too Large", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


def _error(status: int, sentence: str) -> Reply:
    headers = {401: {"WWW-Authenticate": 'Bearer realm="memwatch"'}, 405: {"Allow": "GET, HEAD"}}.get(status, {})
    return Reply(status, _JSON, json.dumps({"error": sentence}).encode() + b"\n", headers)


def _json(said: Any) -> Reply:
    return Reply(200, _JSON, json.dumps(said).encode() + b"\n")


def _page(name: str, kind: str) -> Reply:
    text = resources.files("memwatch._hub").joinpath(name).read_bytes()
    headers = {"Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin"}
    return Reply(200, f"{kind}; charset=utf-8", text, headers)


def _zipped(reply: Reply, request: Request) -> Reply:
    """The same, compressed, where that was asked for and is worth it."""
    asked = _GZIP.search(request.headers.one("accept-encoding") or "")
    if not asked or not isinstance(reply.body, bytes) or len(reply.body) < GZIP_BYTES or reply.status != 200:
        return reply
    return reply._replace(body=gzip.compress(reply.body, 1), headers={**reply.headers, "Content-Encoding": "gzip"})


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")
