"""Talks to one exporter: connections that are kept, and the proof of who answers before the token is told.

DESIGN  A discovery file outlives a process that is killed, and its port may be anybody's by then. So before each
connection somebody is asked for the epoch, which is no secret, and only after the right answer the token is told.
Connections are kept: what was proved once holds for as long as they last.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import AsyncIterator, Optional

from memwatch._cli.found import Found

HEAD_BYTES = 64 * 1024
BODY_BYTES = 256 << 20
ASK_S = 3.0
SILENCE_S = 60.0


class Gone(Exception):
    """It is not that exporter which answers there, or nobody does."""


class Late(Exception):
    """It does not answer now: stopped, or too busy."""


Headers = dict[str, str]
BROKEN = (OSError, EOFError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class Answer:
    """Status and headers; the body is still to be read."""

    def __init__(self, status: int, headers: Headers, reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader

    async def body(self) -> AsyncIterator[bytes]:
        """In pieces, as they come."""
        length = self.headers.get("content-length")
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self._reader.readuntil(b"\n")).split(b";")[0], 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readline()
        elif length is not None:
            left = int(length)
            while left > 0:
                piece = await self._reader.read(min(left, 1 << 16))
                if not piece:
                    raise EOFError("broken off")
                left -= len(piece)
                yield piece
        else:
            while piece := await self._reader.read(1 << 16):
                yield piece

    async def whole(self) -> bytes:
        """All of it."""
        length = self.headers.get("content-length")
        if length is not None and int(length) <= BODY_BYTES:
            return await self._reader.readexactly(int(length))
        pieces = [piece async for piece in self.body()]
        return b"".join(pieces)


class Connection:
    """One connection, on which the exporter has proved to be itself."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._reader: Optional[asyncio.StreamReader] = None
        self._writer: Optional[asyncio.StreamWriter] = None
        self._host = found.host_header
        self.epoch = found.epoch

    async def open(self) -> None:
        """Connects. `Gone`, `Late`."""
        try:
            await asyncio.wait_for(self._open(), ASK_S)
        except TimeoutError:
            self.close()
            raise Late from None
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise Gone(str(error)) from None
        except BROKEN as error:
            self.close()
            raise Late(str(error)) from None

    async def _open(self) -> None:
        await self._connect()
        answer = await self._ask("HEAD", "/-/healthy", {})
        epoch = answer.headers.get("memwatch-epoch", "")
        self.close()  # without the token an answer ends its connection
        if not epoch or (self._found.epoch and epoch != self._found.epoch):
            raise Gone("another one answers there")
        self.epoch = epoch
        await self._connect()

    async def _connect(self) -> None:
        found = self._found
        if found.unix_socket:
            self._reader, self._writer = await asyncio.open_unix_connection(found.unix_socket, limit=1 << 20)
        else:
            self._reader, self._writer = await asyncio.open_connection(
                found.host, found.port, ssl=_tls(found), limit=1 << 20
            )

    async def ask(self, path: str, headers: Headers, *, token: bool, wait_s: float = 0.0) -> Answer:
        """Sends a GET, whose answer may wait for so long. An error of the connection closes it."""
        if self._writer is None:
            await self.open()
        if token and self._found.token:
            headers = {**headers, "Authorization": f"Bearer {self._found.token}"}
        try:
            return await asyncio.wait_for(self._ask("GET", path, headers), ASK_S + wait_s)
        except BaseException:
            self.close()
            raise

    async def _ask(self, method: str, path: str, headers: Headers) -> Answer:
        assert self._reader is not None
        assert self._writer is not None
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", *(f"{k}: {v}" for k, v in headers.items())]
        self._writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        pairs = (line.partition(":") for line in head[1:] if line)
        return Answer(status, {name.lower(): value.strip() for name, _, value in pairs}, self._reader)

    def close(self) -> None:
        """Twice is allowed."""
        if self._writer is not None:
            with contextlib.suppress(Exception):
                self._writer.close()
        self._reader = self._writer = None


class Upstream:
    """One exporter, and the connection that its scrapes use."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self._connections = {True: Connection(found), False: Connection(found)}
        self._locks = {True: asyncio.Lock(), False: asyncio.Lock()}

    async def scrape(self, accept: str, *, values: bool) -> tuple[int, bytes]:
        """Status and text. Without `values` it is asked as a proxy asks for others: what variables hold is left out."""
        headers = {"Accept": accept} if values else {"Accept": accept, "Via": "1.1 memwatch-hub"}
        async with self._locks[values]:
            connection = self._connections[values]
            for again in (True, False):
                try:
                    answer = await connection.ask("/metrics", headers, token=values)
                    body = await asyncio.wait_for(answer.whole(), ASK_S)
                    if not values or answer.headers.get("connection", "").lower() == "close":
                        connection.close()  # without the token an answer ends its connection
                    return answer.status, body
                except TimeoutError:
                    connection.close()
                    raise Late from None
                except BROKEN as error:
                    connection.close()  # an idle connection that it had closed: once more on a new one
                    if not again:
                        raise Late(str(error)) from None
                except BaseException:
                    connection.close()
                    raise
        raise AssertionError

    async def get(self, path: str, headers: Headers, wait_s: float = 0.0) -> tuple[Connection, Answer]:
        """An answer on a connection of its own, which the caller closes. It was asked to wait for so long."""
        connection = Connection(self.found)
        try:
            await connection.open()
            headers = {**headers, "Connection": "close"}
            return connection, await connection.ask(path, headers, token=True, wait_s=wait_s)
        except TimeoutError:
            connection.close()
            raise Late from None
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Ends its connections."""
        for connection in self._connections.values():
            connection.close()


def _tls(found: Found) -> Optional[ssl.SSLContext]:
    """Certificates on this machine are mostly made by their owners: the epoch proves who it is. Of an address that was
    typed the certificate is checked."""
    if not found.url.startswith("https:"):
        return None
    return ssl._create_unverified_context() if found.file else ssl.create_default_context()
