"""Two users of one machine, and the network: who may know what the variables hold."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .service import LIMIT_S, TOKEN, Service
from .test_metrics import make_certificate

Start = Callable[..., Service]
STRANGER = 12345
VALUES = ("memwatch_variable_value{", "memwatch_variable_min{", "memwatch_variable_max{", "memwatch_variable_mean{")
VALUES += ("memwatch_variable_nan{",)

two_users = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to ask as another user")


def shown(body: str) -> bool:
    """Whether a scrape holds values: all kinds, or none. What it says of those that it hides must agree."""
    found = [kind for kind in VALUES if "\n" + kind in body]
    assert found in ([], list(VALUES))
    hidden = next(line for line in body.splitlines() if line.startswith("memwatch_values_hidden "))
    assert (float(hidden.split()[1]) > 0) == (not found)
    assert "\nmemwatch_variable_events_total{" in body
    return bool(found)


def scrape_as(service: Service, uid: int, *headers: str) -> bool:
    status, body = service.get_as(uid, "/metrics", *headers)
    assert status == 200, body
    return shown(body)


@two_users
def test_values_are_not_for_other_users(start: Start) -> None:
    service = start()
    assert not scrape_as(service, STRANGER)
    assert not scrape_as(service, 65534)
    assert not scrape_as(service, STRANGER, "Authorization: Bearer " + 32 * "x")
    assert scrape_as(service, STRANGER, f"Authorization: Bearer {TOKEN}")
    assert scrape_as(service, 0)


@two_users
@pytest.mark.parametrize("users", [str(STRANGER), f"root,{STRANGER}"])
def test_users_who_are_named(start: Start, users: str) -> None:
    service = start(metrics_users=users)
    assert scrape_as(service, STRANGER)
    assert not scrape_as(service, STRANGER + 1)


@two_users
def test_metrics_open_is_for_all(start: Start) -> None:
    assert scrape_as(start(metrics_open=1), STRANGER)


@two_users
def test_a_unix_socket_knows_its_peer(start: Start) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o711)
        path = Path(directory, "socket")
        service = start(unix_socket=path)
        os.chmod(path, 0o666)
        assert not scrape_as(service, STRANGER)
        assert scrape_as(service, 0)
        service.do("close")


def test_what_a_proxy_passes_on_is_not_its_own(service: Service) -> None:
    """A proxy that runs as root, or as us, would lend everybody its rights."""
    assert shown(service.metrics())
    for header in ("Forwarded", "X-Forwarded-For", "x-real-ip", "Via"):
        body = service.get("/metrics", token=False, headers={header: "for=192.0.2.1"})[2]
        assert not shown(body.decode())
        assert shown(service.get("/metrics", headers={header: "for=192.0.2.1"})[2].decode())


@two_users
def test_a_socket_that_was_handed_over_keeps_its_maker(service: Service) -> None:
    """Who closes before the answer is nobody, not root."""
    assert scrape_as(service, 0)
    with service.connect() as connection:
        connection.sendall(f"GET /metrics HTTP/1.1\r\nHost: {service.host}\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert shown(answer.decode())


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "insecure"])
def test_off_loopback_the_metrics_need_the_token(start: Start, tmp_path: Path, tls: bool) -> None:
    options: dict[str, object] = {"insecure": 1}
    if tls:
        options = dict(zip(("tls_cert_file", "tls_key_file"), make_certificate(tmp_path)))
    service = start(host="0.0.0.0", **options)
    uid = os.geteuid()
    assert service.get_as(uid, "/metrics")[0] == 401
    assert service.get_as(uid, "/metrics", "Authorization: Bearer " + 32 * "x")[0] == 401
    assert scrape_as(service, uid, f"Authorization: Bearer {TOKEN}")
    assert service.get_as(uid, "/-/healthy")[0] == 200


def test_off_loopback_they_can_be_opened(start: Start) -> None:
    service = start(host="0.0.0.0", insecure=1, metrics_open=1)
    assert scrape_as(service, os.geteuid())


# --- the discovery file ---


@two_users
def test_root_leaves_nothing_in_another_users_runtime_directory(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `sudo -E`: what root made there would keep the user's own exporters out."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, STRANGER, STRANGER)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs))
    service = start(runtime_dir="default")
    found = service.json("/api/v1/status")["discovery_file"]
    assert found and found.startswith(f"/tmp/memwatch-{os.geteuid()}/")
    assert list(theirs.iterdir()) == []
    assert service.close() == 0
    assert not Path(found).exists()


def test_the_runtime_directory_is_used_where_it_is_ours(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    service = start(runtime_dir="default")
    (file,) = (tmp_path / "memwatch").iterdir()
    assert service.json("/api/v1/status")["discovery_file"] == str(file)
    assert TOKEN not in service.url and json.loads(file.read_text())["token"] == TOKEN


def test_what_cannot_be_announced_says_so(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "memwatch").symlink_to(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert start(runtime_dir="default").json("/api/v1/status")["discovery_file"] is None


def test_the_file_is_removed_from_its_own_directory(start: Start, tmp_path: Path) -> None:
    """Whatever the path leads to by then."""
    directory, elsewhere = tmp_path / "runtime", tmp_path / "elsewhere"
    service = start(runtime_dir=directory)
    (file,) = directory.iterdir()
    directory.rename(tmp_path / "moved")
    elsewhere.mkdir()
    (elsewhere / file.name).write_text("precious")
    directory.symlink_to(elsewhere)
    assert service.close() == 0
    assert (elsewhere / file.name).read_text() == "precious"
    assert list((tmp_path / "moved").iterdir()) == []


# --- the other loopback address ---


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1", "::1"), ("localhost", "::1"), ("::1", "127.0.0.1")])
def test_nobody_else_gets_the_port_on_the_other_loopback(start: Start, host: str, other: str) -> None:
    """A browser tries [::1] first for "localhost": whoever listens there would get what is meant for us."""
    service = start(host=host)
    family = socket.AF_INET6 if ":" in other else socket.AF_INET
    for reuse in (False, True):
        with socket.socket(family) as thief:
            if reuse:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                thief.bind((other, service.port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((other, service.port), LIMIT_S)
    service.do("close")
    with socket.socket(family) as free:
        free.bind((other, service.port))


def test_a_port_that_was_asked_for_is_served_though_the_other_is_taken(start: Start) -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::1", 0))
        assert start(port=taken.getsockname()[1]).get("/metrics")[0] == 200
