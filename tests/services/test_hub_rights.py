"""Who cannot take the hub from others, or see through it what he may not: strangers, web pages, exporters elsewhere."""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import subprocess

import pytest
from tests.conftest import wait_for

from memwatch._cli.found import in_directory

from .hub import Hub, writing
from .test_hub import _directory, _start, of  # noqa: F401  # its fixtures

STRANGER = 12345


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("curl"), reason="needs root, to ask as another user")
def test_values_are_not_for_other_users(directory, start):
    start(service="shop").write(1)

    def scrape(hub, uid, path="/metrics", *more):
        command = ["curl", "-s", "-w", "%{stderr}%{http_code}", "-m", "30", *more, f"http://127.0.0.1:{hub.port}{path}"]
        done = subprocess.run(
            command, user=uid, group=uid, extra_groups=[], capture_output=True, text=True, check=False
        )
        return int(done.stderr), done.stdout

    own = "/api/v1/workers/shop/0/metrics"
    with Hub(directory) as hub:
        hub.await_workers(1)
        for path in ("/metrics", own):
            for uid, shown in ((STRANGER, False), (0, True)):
                status, body = scrape(hub, uid, path)
                assert status == 200 and "memwatch_variable_events_total{" in body
                assert ("\nmemwatch_variable_value{" in body) == shown
            token = ("-H", f"Authorization: Bearer {hub.token}")
            assert "\nmemwatch_variable_value{" in scrape(hub, STRANGER, path, *token)[1]
        assert scrape(hub, STRANGER, "/api/v1/workers/shop/0/regions")[0] == 401
    with Hub(directory, "--metrics-users", str(STRANGER)) as hub:
        hub.await_workers(1)
        assert "\nmemwatch_variable_value{" in scrape(hub, STRANGER)[1]
    with Hub(directory, "--metrics-need-token") as hub:
        for path in ("/metrics", "/sd", own):
            assert scrape(hub, 0, path)[0] == 401


def test_a_code_of_any_letters_is_no_code(directory):
    with Hub(directory) as hub:
        for code in ("\u00e9", "x" * 32, ""):
            assert hub.ask("/api/v1/token", token=False, Authorization=f"Memwatch-Code {code}")[0] == 401
            assert hub.ask("/api/v1/status", token=False, Authorization=f"Bearer {code}")[0] == 401
        assert hub.ask("/api/v1/token", token=False, Authorization=f"Memwatch-Code {hub.code}")[0] == 200


def test_pages_of_others_do_not_see_whether_it_runs(directory):
    with Hub(directory) as hub:
        assert hub.ask("/-/healthy", token=False, Origin="http://evil.example")[0] == 403
        assert hub.ask("/-/healthy", token=False, Sec_Fetch_Site="cross-site")[0] == 403
        assert hub.ask("/-/healthy", token=False, Host="10.0.0.7")[0] == 200


@pytest.mark.parametrize("line", ["X: a\rHost: evil", "X Y: a", "X\u00e9: a", "(x): a", "Host: a\0b"])
def test_headers_that_another_might_read_otherwise(directory, line):
    with Hub(directory) as hub, socket.create_connection(("127.0.0.1", hub.port), 30) as client:
        client.sendall(f"GET / HTTP/1.1\r\n{line}\r\nHost: 127.0.0.1:{hub.port}\r\n\r\n".encode("latin-1"))
        assert client.makefile("rb").readline().split()[1] == b"400"


def test_the_other_loopback_address_is_nobody_elses(directory):
    """localhost is ::1 first in a browser: who has that port would get what is meant for the hub."""
    with Hub(directory) as hub, socket.socket(socket.AF_INET6) as thief:
        with pytest.raises(OSError) as error:
            thief.bind(("::1", hub.port))
        assert error.value.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def test_labels_from_elsewhere_are_no_orders_to_prometheus(directory, start):
    """Of `__address__` it would send its credentials there."""
    start(service="shop").write(1)
    (path,) = directory.glob("*.json")
    said = json.loads(path.read_text())
    odd = {
        "__address__": "evil:1",
        "__scheme__": "http",
        "service": "x",
        "worker": "y",
        "a b": "z",
        "\u00fc": "u",
        "n": 5,
    }
    said["labels"] = {**odd, "zone": "eu"}
    path.write_text(json.dumps(said))
    with Hub(directory) as hub:
        hub.await_workers(1)
        (group,) = hub.json("/sd")
        assert set(group["labels"]) == {"zone", "service", "worker", "instance", "__metrics_path__"}
        assert group["labels"]["service"] == "shop"
        (line,) = [line for line in hub.get("/metrics").splitlines() if line.startswith("memwatch_process_info{")]
        assert re.findall(r'(\w+)="', line) == ["service", "worker", "zone"]


def silent(hub, n, sent=b""):
    clients = contextlib.ExitStack()
    for _ in range(n):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.settimeout(30)
        client.connect(("127.0.0.1", hub.port))
        client.sendall(sent)
        clients.enter_context(client)
    return clients


def descriptors(hub):
    return len(os.listdir(f"/proc/{hub.process.pid}/fd"))


def test_who_says_nothing_and_who_reads_nothing_keeps_nobody_out(directory, start):
    """More of them than there are places: the first give way, and none of their connections is left over."""
    start(service="shop", variable_limit=2000).write(1)
    with Hub(directory) as hub:
        hub.await_workers(1)
        before = descriptors(hub)
        head = f"Host: 127.0.0.1:{hub.port}\r\nVia: 1.1 somebody\r\n\r\n"
        for sent in (b"", f"GET /metrics HTTP/1.1\r\n{head}".encode()):
            with silent(hub, 300, sent):
                for path in ("/-/healthy", "/metrics", "/api/v1/workers"):
                    assert hub.ask(path)[0] == 200
                wait_for(lambda: descriptors(hub) < before + 160, what="the places are not more than there are")
        wait_for(lambda: descriptors(hub) <= before + 1, what="the connections of those who left are closed")


def test_streams_with_the_token_do_not_give_way(directory, start):
    """And the hub ends in the middle of one."""
    worker = start(service="shop")
    worker.write(1)
    with Hub(directory) as hub:
        hub.await_workers(1)
        with socket.create_connection(("127.0.0.1", hub.port), 60) as client:
            lines = ["GET /api/v1/events/stream?since=0 HTTP/1.1", f"Host: 127.0.0.1:{hub.port}"]
            client.sendall("\r\n".join([*lines, f"Authorization: Bearer {hub.token}", "", ""]).encode())
            stream = client.makefile("rb")
            assert b" 200 " in stream.readline()
            with silent(hub, 200):
                assert hub.ask("/-/healthy")[0] == 200
                with writing(worker):
                    assert any(b'"name": "a"' in line or b'"name":"a"' in line for line in stream)


def test_scrapes_of_strangers_share_one(directory, start):
    """However many ask at a time, the workers are asked once in a while."""
    start(service="shop").write(1)
    with Hub(directory, "--interval", "3600") as hub:
        hub.await_workers(1)

        def asked():
            return sum(of(hub.samples(), "memwatch_http_requests_total").values())

        before = asked()
        head = f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nVia: 1.1 x\r\nConnection: close\r\n\r\n"
        with silent(hub, 60, head.encode()):
            hub.get("/metrics", token=False, Via="1.1 x")
        assert asked() - before < 60


@pytest.mark.parametrize("url", ["http://127[]0.0.1:1/", "http://[::1/", "http://a:b/", "http://a:99999/"])
def test_a_file_with_an_address_that_is_none_says_nothing(directory, url):
    said = {"pid": os.getpid(), "port": 1, "epoch": 16 * "0", "url": url}
    (directory / "1-1.json").write_text(json.dumps(said))
    (directory / "1-1.json").chmod(0o600)
    assert list(in_directory(str(directory), 0, [], False)) == []
