"""How the hub passes on what a worker answers, also half of it, and how it reads what a client says."""

import asyncio
import gzip
from types import SimpleNamespace

import pytest

from memwatch._cli.found import at_address
from memwatch._hub import server as hub_server
from memwatch._hub import upstream
from memwatch._hub.access import Headers
from memwatch._hub.server import Reply, Request, keeps, parse
from memwatch._hub.upstream import BROKEN, Answer


async def read(sent, headers):
    """What an answer's body gives of these bytes, and the end."""
    reader = asyncio.StreamReader()
    reader.feed_data(sent)
    reader.feed_eof()
    return b"".join([piece async for piece in Answer(200, headers, reader).body()])


@pytest.mark.parametrize("sent", [b"5\r\nhello\r\n", b"5\r\nhello\r\n5", b"5\r\nhel", b"", b"5\r\nhello\r\n\r\n"])
def test_chunks_that_break_off_are_no_whole_answer(sent):
    with pytest.raises(BROKEN):
        asyncio.run(read(sent, {"transfer-encoding": "chunked"}))


def test_chunks():
    sent = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    assert asyncio.run(read(sent, {"transfer-encoding": "chunked"})) == b"hello!"


def test_half_an_answer_of_a_worker_is_not_passed_on_as_a_whole_one():
    """It says how long it should have been, as a client of the worker is told."""

    async def get(path, headers, wait_s):
        reader = asyncio.StreamReader()
        reader.feed_data(b"half")
        reader.feed_eof()
        return SimpleNamespace(close=lambda: None), Answer(200, {"content-length": "8"}, reader)

    async def test():
        access = SimpleNamespace(has_token=lambda _: True)
        worker = SimpleNamespace(upstream=SimpleNamespace(get=get))
        hub = hub_server.Hub(SimpleNamespace(find=lambda *_: worker), access)
        reply = await hub._of_worker(Request("GET", "/", "", Headers(), None), "shop", "0", "regions/1/value")
        assert (reply.headers["Content-Length"], [piece async for piece in reply.body]) == ("8", [b"half"])

    asyncio.run(test())


def test_a_long_poll_may_take_as_long_as_it_asks_for(monkeypatch):
    """The worker answers nothing before there is an event."""
    monkeypatch.setattr(upstream, "ASK_S", 0.3)

    answering = []

    async def answer(reader, writer):
        answering.append(asyncio.current_task())
        asked = await reader.readuntil(b"\r\n\r\n")
        if asked.startswith(b"GET"):
            await asyncio.sleep(0.6)
        length = b"" if asked.startswith(b"HEAD") else b"Content-Length: 2\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\nMemwatch-Epoch: 1\r\n" + length + b"\r\n{}")
        writer.close()
        await writer.wait_closed()

    async def test():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        found = at_address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        worker = SimpleNamespace(upstream=upstream.Upstream(found))
        hub = hub_server.Hub(SimpleNamespace(find=lambda *_: worker), SimpleNamespace(has_token=lambda _: True))
        for query in ("wait=5", "since=1&wait=5.5"):
            reply = await hub._of_worker(Request("GET", "/", query, Headers(), None), "shop", "0", "events")
            assert [piece async for piece in reply.body] == [b"{}"]
        for query in ("", "wait=", "wait=nan", "wait=1e9"):
            with pytest.raises(upstream.Late):
                await hub._of_worker(Request("GET", "/", query, Headers(), None), "shop", "0", "events")
        server.close()
        await asyncio.gather(*answering, return_exceptions=True)

    asyncio.run(test())


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True), ("GZIP", True), ("br, gzip;q=0.5", True), ("gzip;q=0.01", True), ("gzip ; q=1", True),
        ("gzip;q=0", False), ("gzip; q=0.000", False), ("br;q=1,gzip;q=0, x", False), ("", False), ("xgzip", False),
    ],
)  # fmt: skip
def test_compressed_is_what_the_client_reads(accepted, zipped):
    request = Request("GET", "/", "", Headers({"accept-encoding": [accepted]}), None)
    reply = hub_server._zipped(Reply(200, "text/plain", b"x" * 10000), request)
    assert ("Content-Encoding" in reply.headers) == zipped
    assert (gzip.decompress(reply.body) if zipped else reply.body) == b"x" * 10000


@pytest.mark.parametrize(
    ("first", "connection", "kept"),
    [
        ("HTTP/1.1", None, True), ("HTTP/1.1", "close", False), ("HTTP/1.1", "TE, Close", False),
        ("HTTP/1.0", None, False), ("HTTP/1.0", "keep-alive", True),
    ],
)  # fmt: skip
def test_connections_are_kept_for_who_reads_on(first, connection, kept):
    line = f"Connection: {connection}\r\n" if connection else ""
    assert keeps(parse(f"GET / {first}\r\nHost: x\r\n{line}\r\n".encode(), None)) == kept
