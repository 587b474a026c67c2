"""An ASGI application that serves metrics, feeds and the live page below a prefix of another one's.

app.mount("/memwatch", memwatch.asgi_app(watcher))                  # FastAPI, Starlette
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Awaitable, Callable
from urllib.parse import quote

from memwatch.integrations._inside import HEAD_BYTES, Headers, Mounted, read_head, refusal, request

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class AsgiApp(Mounted):
    """Passes requests on to an exporter of the watcher's in this process. Needs asyncio, as uvicorn runs it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI 3 wants it."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        path = _below(scope)
        if not path:
            place = scope.get("path", "").rstrip("/").rpartition("/")[2]
            await _answer(send, 307, [("location", f"{quote(place)}/")], b"")
            return
        refused = refusal(scope["method"], scope.get("scheme", "http"), path, headers, self._allowed)
        if refused:
            await _answer(send, refused[0], [("content-type", "application/json")], _error(refused[1]))
            return
        query = scope.get("query_string", b"").decode("latin-1")
        target = quote(path, safe="/-._~") + (f"?{query}" if query else "")
        try:
            reader, writer = await asyncio.open_unix_connection(self._inside.path(), limit=HEAD_BYTES)
        except OSError:
            await _answer(send, 503, [("content-type", "application/json")], _error("The watcher is closed."))
            return
        try:
            writer.write(request(scope["method"], target, headers))
            await _until_gone(_pass_back(reader, send), receive)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _below(scope: Scope) -> str:
    """The path below the prefix: frameworks differ in whether `path` has it."""
    path, root = str(scope.get("path", "")), str(scope.get("root_path", ""))
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path


def _error(sentence: str) -> bytes:
    return json.dumps({"error": sentence}).encode() + b"\n"


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    head = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    head += [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _pass_back(reader: asyncio.StreamReader, send: Send) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        await _answer(send, 503, [("content-type", "application/json")], _error("The watcher is closed."))
        return
    status, _, headers = read_head(head)
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(answering: Any, receive: Receive) -> None:
    """Answers, but no longer than the client is there: a stream has no end of its own."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(answering), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
