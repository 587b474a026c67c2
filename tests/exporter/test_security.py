"""Who is answered and who is not: each refusal has its status, a JSON sentence, and no effect on others."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .service import LIMIT_S, TOKEN, Service
from .test_metrics import make_certificate

Start = Callable[..., Service]
NO_RIGHTS = "Via: 1.1 somebody"  # a proxy's request is nobody's
RIGHTS = f"Authorization: Bearer {TOKEN}"
PRIVATE = ["/api/v1/status", "/api/v1/regions", "/api/v1/events", "/api/v1/events/stream"]
PRIVATE += ["/api/v1/values/" + 32 * "0"]


def refused(answer: tuple[int, dict[str, str], bytes], status: int) -> dict[str, str]:
    """Checks that an answer is a refusal of that kind; returns its headers."""
    assert answer[0] == status, answer
    assert answer[1]["content-type"] == "application/json; charset=utf-8"
    assert len(json.loads(answer[2])["error"]) > 10
    return answer[1]


def request(service: Service, *lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


# --- the token ---


@pytest.mark.parametrize("path", PRIVATE)
def test_private_addresses_need_the_token(service: Service, path: str) -> None:
    headers = refused(service.get(path, token=False), 401)
    assert headers["www-authenticate"].startswith("Bearer")
    for wrong in (
        "Bearer wrong-token-0123456789abcdef0123",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        "Bearer ",
        TOKEN,
    ):
        refused(service.get(path, token=False, headers={"Authorization": wrong}), 401)


def test_open_addresses_do_not(service: Service) -> None:
    for path in ("/metrics", "/-/healthy", "/-/ready", "/", "/app.js", "/style.css"):
        assert service.get(path, token=False)[0] == 200


def test_metrics_can_ask_for_it(start: Start) -> None:
    service = start(metrics_need_token=1)
    refused(service.get("/metrics", token=False), 401)
    assert service.get("/metrics")[0] == 200
    assert service.get("/-/healthy", token=False)[0] == 200


def test_a_code_gives_the_token_once(service: Service) -> None:
    for path in ("/", "/app.js", "/style.css"):
        assert "set-cookie" not in service.get(path, token=False)[1]
    code = {"Authorization": "Memwatch-Code " + service.url.partition("#")[2]}
    assert service.get("/api/v1/token", method="HEAD", token=False, headers=code)[0] == 401
    assert service.json("/api/v1/token", token=False, headers=code) == {"token": TOKEN}
    refused(service.get("/api/v1/token", token=False, headers=code), 401)
    refused(service.get("/api/v1/status", token=False, headers=code), 401)


def test_each_address_has_a_code_of_its_own(service: Service) -> None:
    """Nine are made: the first has given way to the ninth."""
    urls = [service.url, *(service.do("url")[0] for _ in range(8))]
    codes = [{"Authorization": "Memwatch-Code " + url.partition("#")[2]} for url in urls]
    assert len(set(urls)) == 9
    answers = [service.get("/api/v1/token", token=False, headers=code)[0] for code in codes]
    assert answers == [401] + 8 * [200]


@pytest.mark.parametrize("code", ["", "x", 32 * "0", f"{TOKEN}", 33 * "a", "\u00e9"])
def test_wrong_codes(service: Service, code: str) -> None:
    refused(service.get("/api/v1/token", token=False, headers={"Authorization": f"Memwatch-Code {code}"}), 401)
    refused(service.get("/api/v1/token"), 401)


def test_no_cookie_and_no_address_holds_the_token(service: Service) -> None:
    cookie = {"Cookie": f"memwatch-{service.port}={TOKEN}"}
    refused(service.get("/api/v1/status", token=False, headers=cookie), 401)
    refused(service.get(f"/api/v1/status?token={TOKEN}", token=False), 401)
    refused(service.get(f"/?token={TOKEN}", token=False), 400)
    assert TOKEN not in service.url


def test_two_authorizations_are_none(service: Service) -> None:
    head = ["GET /api/v1/status HTTP/1.1", f"Host: {service.host}", "Connection: close"]
    refused(service.raw(request(service, *head, f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x")), 401)


def test_the_random_token_is_long_and_new(start: Start) -> None:
    tokens = {start(token=None).token, start(token=None).token}
    assert len(tokens) == 2
    assert all(len(token) == 48 for token in tokens)


# --- Host, Origin, sites ---


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:{port}",
        "localhost.evil.com:{port}",
        "127.0.0.1.evil.com:{port}",
        "localhost",
        "127.0.0.1",
        "localhost:{port}.evil.com",
        "localhost:1",
        "localhost:{port}0",
        "[::1]",
        "0.0.0.0:{port}",
        "user@localhost:{port}",
    ],
)
def test_foreign_hosts_are_refused(service: Service, host: str) -> None:
    host = host.format(port=service.port)
    for path in ("/metrics", "/api/v1/status", "/nowhere"):
        refused(service.get(path, headers={"Host": host}), 421)


def test_own_hosts_are_not(start: Start) -> None:
    service = start(allowed_host="box.example")
    for host in (
        "localhost:{port}",
        "127.0.0.1:{port}",
        "[::1]:{port}",
        "LocalHost:{port}",
        "box.example",
        "box.example:{port}",
    ):
        assert service.get("/api/v1/status", headers={"Host": host.format(port=service.port)})[0] == 200, host
    refused(service.get("/api/v1/status", headers={"Host": "box.example:1"}), 421)


def test_exactly_one_host(service: Service) -> None:
    line, end = "GET /metrics HTTP/1.1", "Connection: close"
    host = f"Host: {service.host}"
    refused(service.raw(request(service, line, host, host, end)), 400)
    refused(service.raw(request(service, line, host, "Host: evil.com", end)), 400)
    refused(service.raw(request(service, line, "Host: ", end)), 400)
    refused(service.raw(request(service, "GET /metrics HTTP/1.0", end)), 400)
    refused(service.raw(request(service, line, end)), 400)


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_health_answers_whoever_reaches_it(service: Service, path: str) -> None:
    """Probes come by the address of a pod, in HTTP/1.0, with whole addresses; web pages of others do not."""
    end = "Connection: close"
    for lines in (
        [f"GET {path} HTTP/1.1", "Host: 10.0.0.7:8080", end],
        [f"GET {path} HTTP/1.0", end],
        [f"GET http://10.0.0.7:8080{path} HTTP/1.1", "Host: 10.0.0.7:8080", end],
    ):
        assert service.raw(request(service, *lines))[0] == 200, lines
    refused(service.get(path, headers={"Host": "evil.com", "Origin": "http://other.com"}), 403)
    refused(service.get(path, headers={"Host": "evil.com", "Sec-Fetch-Site": "cross-site"}), 403)


def test_whole_addresses(service: Service) -> None:
    line = "GET http://{}/api/v1/status HTTP/1.1"
    rest = [f"Host: {service.host}", RIGHTS, "Connection: close"]
    assert service.raw(request(service, line.format(service.host), *rest))[0] == 200
    for other in ("evil.com", service.host + "0", "", f"{service.host}@evil.com"):
        refused(service.raw(request(service, line.format(other), *rest)), 400)
    evil = ["Host: evil.com", RIGHTS, "Connection: close"]
    refused(service.raw(request(service, line.format("evil.com"), *evil)), 421)


def test_several_allowed_hosts(start: Start) -> None:
    service = start(allowed_host="box.example,10.0.0.7:8080")
    for host in ("box.example", f"box.example:{service.port}", "10.0.0.7:8080"):
        assert service.get("/api/v1/status", headers={"Host": host})[0] == 200, host
    for host in ("box.example,10.0.0.7:8080", "10.0.0.7", "example", ",", "box.example:1"):
        refused(service.get("/api/v1/status", headers={"Host": host}), 421)


def test_other_origins_and_sites_are_refused(service: Service) -> None:
    own = {"Origin": f"http://{service.host}"}
    assert service.get("/api/v1/status", headers=own)[0] == 200
    for origin in (
        "http://evil.com",
        "null",
        f"https://{service.host}",
        f"http://localhost:{service.port + 1}",
        "http://127.0.0.1",
    ):
        for path in ("/api/v1/status", "/metrics"):
            refused(service.get(path, headers={"Origin": origin}), 403)
    for site in ("cross-site", "same-site"):
        refused(service.get("/api/v1/events", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}), 403)
        refused(service.get("/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}), 403)
        assert service.get("/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"})[0] == 200
    assert service.get("/api/v1/status", headers={"Sec-Fetch-Site": "same-origin"})[0] == 200


# --- methods, targets, sizes ---


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW", "get"])
def test_only_get_and_head(service: Service, method: str) -> None:
    assert refused(service.get("/metrics", method=method), 405)["allow"] == "GET, HEAD"


def test_a_body_is_refused_and_ends_the_connection(service: Service) -> None:
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    head = request(service, "POST /metrics HTTP/1.1", f"Host: {service.host}", f"Content-Length: {len(smuggled)}")
    with service.connect() as connection:
        connection.sendall(head + smuggled)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    refused(service.get("/metrics", headers={"Content-Length": "5"}), 413)


def test_head_has_the_headers_of_get(service: Service) -> None:
    for path in ("/", "/-/healthy", "/api/v1/events", "/api/v1/events/stream", "/api/v1/regions"):
        status, headers, body = service.get(path, method="HEAD")
        assert (status, body) == (200, b"")
        assert "content-type" in headers


@pytest.mark.parametrize(
    "target",
    [
        "/api/%00/x",
        "/metrics%00",
        "/api/v1/events?name=%00",
        "http://127.0.0.1/metrics",
        "*",
        "metrics",
        "/api/v1/events?name=%g1",
        "/api/v1/events?name=%",
        "/api/v1/events?since",
        "/api/v1/events?=1",
        "/metrics\x7f",
        "/api/v1/events?since=1&since=2",
    ],
)
def test_bad_targets(service: Service, target: str) -> None:
    refused(service.get(target), 400)


@pytest.mark.parametrize(
    "target",
    [
        "/nowhere",
        "/metrics/",
        "//metrics",
        "/%6detrics",
        "/..",
        "/api/v1/values",
        "/metrics/../api/v1/status",
        "/METRICS",
    ],
)
def test_unknown_targets(service: Service, target: str) -> None:
    refused(service.get(target), 404)


def test_sizes(service: Service) -> None:
    refused(service.get("/" + 2048 * "a"), 414)
    refused(service.get("/" + 20000 * "a"), 414)
    refused(service.get("/" + 30000 * "a"), 414)
    refused(service.get("/" + 2000 * "a"), 404)
    for header in ({"X-Long": 17000 * "a"}, {"X-Long": 30000 * "a"}, {f"X-{n}": 900 * "a" for n in range(30)}):
        refused(service.get("/metrics", headers=header), 431)
    assert service.get("/" + 200000 * "a")[0] == 414  # beyond its memory libmicrohttpd answers, in words of its own
    assert service.get("/metrics", headers={"X-Long": 200000 * "a"})[0] == 431
    assert service.get("/metrics")[0] == 200


@pytest.mark.parametrize("name", ["Content-Length ", "Host\t", "X(Y)", "X\xe9", "a,b"])
def test_names_of_headers(service: Service, name: str) -> None:
    """What follows such a header must not be taken for a request of its own."""
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    head = request(service, "GET /metrics HTTP/1.1", f"Host: {service.host}", f"{name}: {len(smuggled)}")
    with service.connect() as connection:
        connection.sendall(head + smuggled)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length:", " {n}"],
        ["Content-Length: 0", " {n}"],
        ["Content-Length: 0", "\t{n}"],
        ["Transfer-Encoding:", " chunked"],
        ["X-Else: 1", "Content-Length:", "  {n}"],
    ],
)
def test_a_folded_length_smuggles_nothing(service: Service, lines: list[str]) -> None:
    """A proxy that joins folded lines sees one request with a body; libmicrohttpd appends them to the header's name."""
    smuggled = f"GET /metrics HTTP/1.1\r\nHost: {service.host}\r\nConnection: close\r\n\r\n".encode()
    lines = [line.format(n=len(smuggled)) for line in lines]
    head = request(service, "GET /-/healthy HTTP/1.1", f"Host: {service.host}", RIGHTS, *lines)
    with service.connect() as connection:
        connection.sendall(head + smuggled)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("header", ["Host: {host}\r", "X: a\rb", "Authorization: Bearer {token}\r"])
def test_a_lone_return_in_a_header(service: Service, header: str) -> None:
    header = header.format(host=service.host, token=TOKEN)
    lines = [header] if header.startswith("Host") else [f"Host: {service.host}", header]
    refused(service.raw(request(service, "GET /metrics HTTP/1.1", *lines, "Connection: close")), 400)


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("GET /-/healthy\0/../api HTTP/1.1", []),
        ("GET /metrics\0 HTTP/1.1", []),
        ("GET /metrics?\0 HTTP/1.1", []),
        ("GET /metrics HTTP/1.1\0", []),
        ("GET /metrics HTTP/1.1", ["Host: {host}\0.evil.com"]),
        ("GET /metrics HTTP/1.1", ["Host: {host}\0"]),
        ("GET /metrics HTTP/1.1", ["Host: {host}\0\0\0\0evil.com"]),
        ("GET /metrics HTTP/1.1", ["X:\0"]),
        ("GET /metrics HTTP/1.1", ["X\0: a"]),
        ("GET /metrics HTTP/1.1", ["X\0y: a", "Z: b"]),
        ("GET /metrics HTTP/1.1", ["Sec-Fetch-Site: none\0cross-site"]),
        ("GET /metrics HTTP/1.1", ["Sec-Fetch-Site: none", " cross-site"]),
        ("GET /metrics HTTP/1.1", ["Authorization: Bearer {token}\0x"]),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_nothing_is_cut_at_a_nul_or_folded(service: Service, line: str, lines: list[str], last: bool) -> None:
    """What a proxy in front reads to the end is read to the end here, or refused."""
    lines = [each.format(host=service.host, token=TOKEN) for each in lines]
    head = [] if any(each.startswith("Host") for each in lines) else [f"Host: {service.host}"]
    head += ["Connection: close", *lines] if last else [*lines, "Connection: close"]
    with service.connect() as connection:
        connection.sendall(request(service, line, *head) + request(service, "GET /metrics HTTP/1.1"))
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_spaces_around_values_and_short_line_ends(service: Service, end: str) -> None:
    lines = ["GET /api/v1/status?since=%31 HTTP/1.1", f"Host:{service.host}", f"Authorization:   Bearer {TOKEN}"]
    lines += ["X:", "Y: ", "Z: a  ", "Connection: close", "", ""]
    assert service.raw(end.join(lines).encode())[0] == 400, "there is no since"
    lines[0] = "GET /metrics HTTP/1.1"
    assert service.raw(end.join(lines).encode())[0] == 200


def test_two_origins_are_refused(service: Service) -> None:
    own = f"Origin: http://{service.host}"
    head = ["GET /api/v1/status HTTP/1.1", f"Host: {service.host}", RIGHTS, "Connection: close"]
    assert service.raw(request(service, *head, own))[0] == 200
    refused(service.raw(request(service, *head, own, "Origin: http://evil.com")), 403)
    refused(service.raw(request(service, *head, "Origin: http://evil.com", own)), 403)


def test_a_space_in_the_target(service: Service) -> None:
    line = "GET /metrics /x HTTP/1.1"
    refused(service.raw(request(service, line, f"Host: {service.host}", "Connection: close")), 400)


def test_headers_of_every_answer(service: Service) -> None:
    for path in ("/", "/metrics", "/api/v1/status", "/nowhere", "/app.js", "/api/v1/events"):
        _, headers, _ = service.get(path)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control")]
    policy = service.get("/")[1]["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


# --- addresses ---


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},
        {"host": "0.0.0.0", "tls": True, "token": None},
        {"host": "::"},
        {"host": "example.com"},
        {"token": ""},
        {"token": "short"},
        {"token": TOKEN[:31]},
        {"metrics_users": "nobody-of-that-name"},
        {"metrics_users": ","},
        {"metrics_users": ",".join(map(str, range(17)))},
        {"metrics_need_token": 1, "metrics_open": 1},
        {"token": "has spaces in it, and more"},
        {"feed_limit": 128},
        {"variable_limit": 10001},
        {"tls_cert_file": "/nowhere/cert.pem", "tls_key_file": "/nowhere/key.pem"},
        {"tls_cert_file": "/nowhere/cert.pem"},
        {"allowed_host": "a b"},
        {"heartbeat_ms": 1},
    ],
    ids=str,
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    if options.pop("tls", None):
        options["tls_cert_file"], options["tls_key_file"] = make_certificate(tmp_path)
    service = Service(**options)
    assert service.hello[0] == "error"
    assert len(service.hello) > 5
    service.close()


def test_insecure_must_be_said(start: Start) -> None:
    service = start(host="0.0.0.0", insecure=1)
    assert service.get("/metrics")[0] == 200
    refused(service.get("/metrics", headers={"Host": f"0.0.0.0:{service.port}"}), 421)


def test_tls(start: Start, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    service = start(tls_cert_file=certificate, tls_key_file=key, host="0.0.0.0")
    context = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection("127.0.0.1", service.port, context=context, timeout=LIMIT_S)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()
    connection.close()
    assert service.url.startswith("https://127.0.0.1:")
    for ciphers in ("kRSA", "ECDHE+SHA1", "ECDHE+AES128+SHA256:!AESGCM", "ECDHE+AES256+SHA384:!AESGCM"):
        weak = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        weak.check_hostname, weak.verify_mode = False, ssl.CERT_NONE
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers(ciphers + ":@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", service.port)) as plain, pytest.raises(ssl.SSLError):
            weak.wrap_socket(plain)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", service.port)) as plain, old.wrap_socket(plain) as wrapped:
        assert wrapped.version() in {"TLSv1.2", "TLSv1.3"}


def test_unix_socket(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "memwatch.socket"
    service = start(unix_socket=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert service.get("/metrics")[0] == 200
    refused(service.get("/api/v1/status", token=False), 401)
    refused(service.get("/metrics", headers={"Host": "evil.com"}), 421)
    second = Service(unix_socket=path)
    assert second.hello[:2] == ["error", "98"]
    second.close()
    assert service.close() == 0
    assert not path.exists()


def test_a_dead_unix_socket_is_replaced(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "memwatch.socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert start(unix_socket=path).get("/metrics")[0] == 200
    (tmp_path / "file").write_text("precious")
    refused_service = Service(unix_socket=tmp_path / "file")
    assert refused_service.hello[0] == "error"
    refused_service.close()
    assert (tmp_path / "file").read_text() == "precious"


# --- discovery ---


def test_the_discovery_file_is_private_and_goes_away(start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "runtime"
    service = start(runtime_dir=directory, service="billing")
    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    found = json.loads(file.read_text())
    assert found["pid"] == service.process.pid
    assert found["token"] == TOKEN
    assert found["service"] == "billing"
    assert found["url"] == service.url.partition("#")[0]
    assert service.close() == 0
    assert list(directory.iterdir()) == []


def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    os.chmod(directory, 0o777)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for path in (directory, link):
        service = Service(runtime_dir=path)
        assert service.hello[0] == "error"
        service.close()
        assert not list(directory.iterdir())


def test_the_token_is_not_on_the_command_line_of_others(service: Service) -> None:
    """Nothing that is readable without the token shows it."""
    for path in ("/metrics", "/-/healthy", "/-/ready", "/nowhere"):
        assert TOKEN.encode() not in service.get(path, token=False)[2]
    status = service.get("/api/v1/status")[2]
    assert TOKEN.encode() not in status


def test_curl_can_use_it(service: Service) -> None:
    answer = subprocess.run(
        ["curl", "-sf", "-H", f"Authorization: Bearer {TOKEN}", f"http://localhost:{service.port}/api/v1/status"],
        check=True,
        capture_output=True,
    )
    assert json.loads(answer.stdout)["schema"] == 2
