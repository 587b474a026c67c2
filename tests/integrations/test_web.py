"""Metrics, feeds and page inside another application, with the same rules about who is answered."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import memwatch

TOKEN = "0123456789abcdef0123456789abcdef"
Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def watcher() -> Iterator[memwatch.MemoryWatcher]:
    with memwatch.MemoryWatcher() as watcher:
        watcher.data = memwatch.buffer(8)  # type: ignore[attr-defined]
        watcher.watch(watcher.data, "data")  # type: ignore[attr-defined]
        watcher.data[0] = 7  # type: ignore[attr-defined]
        watcher.flush()
        yield watcher


class QuietHandler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def serve_wsgi(app: Any) -> Any:
    """A real server with the application below /memwatch."""

    def outer(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/memwatch" or path.startswith("/memwatch/"):
            return app({**environ, "SCRIPT_NAME": "/memwatch", "PATH_INFO": path[len("/memwatch") :]}, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"the application's own"]

    server = wsgiref.simple_server.make_server("127.0.0.1", 0, outer, handler_class=QuietHandler)
    threading.Thread(target=server.serve_forever).start()
    return server


@pytest.fixture
def over_wsgi(watcher: memwatch.MemoryWatcher) -> Iterator[Ask]:
    server = serve_wsgi(memwatch.wsgi_app(watcher, token=TOKEN, allowed_hosts=["shop.example"]))

    def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}, body

    yield ask
    server.shutdown()
    server.server_close()


async def call(
    app: Any, path: str, method: str, headers: dict[str, str], root: str, enough: Callable[[bytes], bool]
) -> tuple[int, dict[str, str], bytes]:
    """One request as an ASGI server makes it; the client goes when it has enough."""
    parts = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": parts[0],
        "root_path": root,
        "query_string": parts[2].encode(),
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
    }
    said: dict[str, Any] = {}
    body = bytearray()
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            said.update(message)
        body.extend(message.get("body", b""))
        if enough(bytes(body)):
            gone.set()

    await asyncio.wait_for(app(scope, receive, send), 60)
    return said["status"], {name.decode(): text.decode() for name, text in said["headers"]}, bytes(body)


@pytest.fixture
def over_asgi(watcher: memwatch.MemoryWatcher) -> Ask:
    app = memwatch.asgi_app(watcher, token=TOKEN, allowed_hosts=["shop.example"])

    def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        given = {"Host": "127.0.0.1:8000", **{name.replace("_", "-"): text for name, text in headers.items()}}
        enough = (lambda body: b"event: change" in body) if "stream" in path else (lambda body: False)
        return asyncio.run(call(app, path, method, given, "/memwatch", enough))

    return ask


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return request.getfixturevalue(f"over_{request.param}")  # type: ignore[no-any-return]


def test_what_is_served(ask: Ask) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    status, headers, body = ask("/memwatch/")
    assert status == 200 and b"<title" in body and headers["content-security-policy"]
    assert b'src="app.js"' in body and b'href="/' not in body
    assert ask("/memwatch")[0] == 307
    status, headers, body = ask("/memwatch/api/v1/events?order=newest&limit=1", **bearer)
    assert status == 200 and json.loads(body)["events"][0]["name"] == "data"
    assert b"memwatch_events_total" in ask("/memwatch/metrics", **bearer)[2]
    assert ask("/memwatch/-/ready")[0] == 200
    assert ask("/memwatch/nothing", **bearer)[0] == 404
    assert ask("/memwatch/api/v1/status", method="HEAD", **bearer)[2] == b""
    assert ask("/memwatch/api/v1/events", Accept_Encoding="gzip", **bearer)[1].get("content-encoding") in ("gzip", None)


def test_who_is_refused(ask: Ask) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert ask("/memwatch/api/v1/status")[0] == 401
    assert ask("/memwatch/metrics")[0] == 401
    assert ask("/memwatch/api/v1/status", Authorization="Bearer " + "x" * 32)[0] == 401
    assert ask("/memwatch/api/v1/status", method="POST", **bearer)[0] == 405
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", ""):
        assert ask("/memwatch/api/v1/status", Host=host, **bearer)[0] == 421, host
    assert ask("/memwatch/api/v1/status", Host="shop.example", **bearer)[0] == 200
    assert ask("/memwatch/api/v1/status", Host="shop.example:8443", **bearer)[0] == 200
    assert ask("/memwatch/api/v1/status", Origin="http://evil.example", **bearer)[0] == 403
    assert ask("/memwatch/api/v1/status", Sec_Fetch_Site="cross-site", **bearer)[0] == 403
    assert ask("/memwatch/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    assert ask("/memwatch/-/healthy", Host="10.1.2.3")[0] == 200


def test_a_stream_ends_with_its_client(watcher: memwatch.MemoryWatcher, over_asgi: Ask) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    status, headers, body = over_asgi("/memwatch/api/v1/events/stream?since=0", **bearer)
    assert status == 200 and headers["content-type"].startswith("text/event-stream") and b"event: change" in body


def test_a_closed_watcher_is_503() -> None:
    watcher = memwatch.MemoryWatcher()
    app = memwatch.asgi_app(watcher, token=TOKEN)
    assert app.token == TOKEN
    watcher.close()
    host = {"Host": "localhost"}
    assert asyncio.run(call(app, "/-/healthy", "GET", host, "", lambda body: False))[0] == 503


def test_starlette_mounts_it(watcher: memwatch.MemoryWatcher) -> None:
    pytest.importorskip("httpx")
    applications = pytest.importorskip("starlette.applications")
    routing = pytest.importorskip("starlette.routing")
    import httpx

    app = applications.Starlette(routes=[routing.Mount("/memwatch", memwatch.asgi_app(watcher, token=TOKEN))])

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            answer = await client.get("/memwatch/api/v1/status", headers={"Authorization": f"Bearer {TOKEN}"})
            return answer.status_code

    assert asyncio.run(ask()) == 200


def test_prometheus_client_carries_ours(watcher: memwatch.MemoryWatcher) -> None:
    client = pytest.importorskip("prometheus_client")
    from memwatch.integrations.prometheus import register

    number = bytearray(8)
    watcher.watch(memoryview(number).cast("d"), "number")
    registry = client.CollectorRegistry()
    client.Counter("of_the_application", "Its own.", registry=registry).inc()
    collector = register(watcher, registry)
    text = client.generate_latest(registry).decode()
    assert "of_the_application_total 1.0" in text and "memwatch_regions 2.0" in text
    assert "memwatch_variable_value{" not in text
    registry.unregister(collector)
    register(watcher, registry, values=True)
    assert 'memwatch_variable_value{variable="number"}' in client.generate_latest(registry).decode()
    with (
        watcher.serve(port=0, runtime_dir="") as server,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection,
    ):
        connection.request("GET", "/metrics")
        names = {line.split()[2] for line in connection.getresponse().read().decode().splitlines() if "# TYPE" in line}
    told = {line.split()[2] for line in client.generate_latest(registry).decode().splitlines() if "# TYPE" in line}
    assert names - told == set()
    watcher.close()
    assert "of_the_application" in client.generate_latest(registry).decode()
