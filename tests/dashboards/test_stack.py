"""What comes up with one command: `dashboards/stack`, discovery, and what compose.yaml and provisioning say."""

import contextlib
import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import yaml
from queries import HERE as DASHBOARDS
from queries import Prometheus

WAIT_S = 60.0
EPOCH = "0123456789abcdef"


def free_ports(n):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]


def wait_for(condition, what):
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if answer := condition():
                return answer
        time.sleep(0.1)
    raise AssertionError(f"waited {WAIT_S:.0f} s for {what}")


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), timeout=1):
        return True
    return False


@pytest.fixture
def stack(tmp_path):
    """dashboards/stack on free ports, with a runtime directory of its own; its ports and its process."""
    ports = free_ports(3)
    options = [text for pair in zip(("--port", "--demo-port", "--discover-port"), ports) for text in pair]
    with subprocess.Popen(
        [sys.executable, DASHBOARDS / "stack", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)},
    ) as process:
        yield ports, process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(WAIT_S)


def test_it_comes_up_says_where_to_look_and_leaves_nothing(stack, tmp_path):
    (port, demo_port, discover_port), process = stack
    said = "".join(process.stdout.readline() for _ in range(5))
    assert re.search(rf"http://127.0.0.1:{demo_port}/#\w+", said), said
    for link in re.findall(rf"http://127\.0\.0\.1:{port}/\S*", said):
        with urllib.request.urlopen(link, timeout=10) as answer:
            assert answer.status == 200, link
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    wait_for(lambda: prometheus.now('memwatch_variable_value{variable="temperature"}'), "a scrape of the demo")
    with urllib.request.urlopen(f"http://127.0.0.1:{discover_port}/targets", timeout=10) as answer:
        targets = [target for group in json.load(answer) for target in group["targets"]]
    assert targets.count(f"127.0.0.1:{demo_port}") == 1  # this machine may have others
    # Found in two ways, scraped once.
    assert len(prometheus.now(f'up{{instance="127.0.0.1:{demo_port}"}}')) == 1
    assert len(prometheus.ask("rules")["groups"]) == 3

    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_S) == 0
    assert not any(map(listens, (port, demo_port, discover_port)))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_port_that_is_taken_is_said(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        demo_port, discover_port = free_ports(2)
        done = subprocess.run(
            [
                sys.executable,
                DASHBOARDS / "stack",
                "--port",
                port,
                "--demo-port",
                demo_port,
                "--discover-port",
                discover_port,
            ],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        )
    assert done.returncode == 1
    assert "address already in use" in done.stderr


class Watcher(http.server.BaseHTTPRequestHandler):
    """Answers as an exporter does whose epoch is EPOCH."""

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Memwatch-Epoch", EPOCH)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def serving():
    """The port of something that looks like an exporter."""
    with http.server.HTTPServer(("127.0.0.1", 0), Watcher) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def announce(directory, name, mode=0o600, **found):
    """A discovery file."""
    path = directory / name
    path.write_text(json.dumps({"pid": 1, "epoch": EPOCH, "token": "secret", **found}))
    path.chmod(mode)
    return path


def discovered(directory):
    """What discovery finds, which must not take long, and what it says besides."""
    done = subprocess.run(
        [sys.executable, "-m", "memwatch", "discover", "--directory", directory],
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_S,
    )
    assert "secret" not in done.stdout + done.stderr
    groups = json.loads(done.stdout)
    assert all(label.startswith("__meta_") for group in groups for label in group["labels"])
    return [target for group in groups for target in group["targets"]], done.stderr


def test_discovery_believes_only_whole_files_of_watchers_that_answer(tmp_path, serving):
    directory = tmp_path / "memwatch"
    directory.mkdir(mode=0o700)
    [dead] = free_ports(1)
    announce(directory, "1-1.json", port=serving)
    announce(directory, "2-2.json", port=int(dead))
    announce(directory, "3-3.json", port=0, unix_socket="/x")
    texts = ["{ half a", "[]", "1", "null", 200000 * "[", '{"port": "80"}', '{"port": true}', "\xff"]
    for number, text in enumerate(texts):
        (directory / f"5-{number}.json").write_text(text, encoding="latin-1")
        (directory / f"5-{number}.json").chmod(0o600)
    os.mkfifo(directory / "6-6.json", 0o600)
    (directory / "7-7.json").symlink_to(announce(tmp_path, "elsewhere", port=serving))
    (directory / "8-8.json").mkdir()
    assert discovered(directory) == ([f"127.0.0.1:{serving}"], "")


def test_discovery_is_not_led_to_a_port_that_another_has_now(tmp_path, serving):
    """A process that was killed left its file; the job's token must not go to whoever has the port."""
    directory = tmp_path / "memwatch"
    directory.mkdir(mode=0o700)
    announce(directory, "1-1.json", port=serving, epoch=16 * "0")
    assert discovered(directory) == ([], "")


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_discovery_reads_no_directory_that_others_may_enter(tmp_path, serving, mode):
    directory = tmp_path / "memwatch"
    directory.mkdir()
    directory.chmod(mode)
    announce(directory, "1-1.json", port=serving)
    targets, said = discovered(directory)
    assert targets == [] and "not read" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_discovery_reads_nothing_of_another_user(tmp_path, serving):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for directory in (theirs, ours):
        directory.mkdir(mode=0o700)
        announce(directory, "1-1.json", port=serving)
    os.chown(theirs, 12345, 12345)
    os.chown(ours / "1-1.json", 12345, 12345)
    assert discovered(theirs)[0] == []
    assert discovered(ours)[0] == []


def test_discovery_answers_to_its_own_host_only(tmp_path):
    [port] = free_ports(1)
    command = [sys.executable, "-m", "memwatch", "discover", "--listen", port, "--directory", tmp_path]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: listens(port), "discovery")
            idle = [socket.create_connection(("127.0.0.1", int(port))) for _ in range(100)]
            statuses = []
            for host in (f"127.0.0.1:{port}", f"localhost:{port}", "evil.com", f"evil.com:{port}", "127.0.0.1"):
                wait_for(lambda host=host: ask_discovery(port, host, statuses), "an answer")
            assert statuses == [200, 200, 421, 421, 421]
            tasks = len(os.listdir(f"/proc/{process.pid}/task"))
            assert tasks < 30
            for connection in idle:
                connection.close()
        finally:
            process.terminate()


def ask_discovery(port, host, statuses):
    """Asks once; whether it was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=WAIT_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/targets", headers={"Host": host})
        statuses.append(connection.getresponse().status)
        return True
    return False


def test_the_scrape_interval_is_the_same_everywhere():
    config = yaml.safe_load((DASHBOARDS / "prometheus" / "prometheus.yml").read_text())
    [source] = yaml.safe_load((DASHBOARDS / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert source["type"] == "prometheus"


def test_compose_pins_its_images_and_mounts_what_exists():
    services = yaml.safe_load((DASHBOARDS / "compose.yaml").read_text())["services"]
    [provider] = yaml.safe_load((DASHBOARDS / "grafana/provisioning/dashboards/memwatch.yaml").read_text())["providers"]
    assert set(services) == {"demo", "discover", "prometheus", "grafana"}
    for service in services.values():
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        for source in (volume.split(":")[0] for volume in service["volumes"]):
            made = source.endswith("memwatch.token")  # by the command at the head of the file
            assert made or not source.startswith(".") or (DASHBOARDS / source).exists(), source
    mounted = [volume.split(":") for volume in services["grafana"]["volumes"]]
    boards = {os.path.basename(target) for _, target, _ in mounted if target.startswith(provider["options"]["path"])}
    assert boards == {path.name for path in (DASHBOARDS / "grafana").glob("*.json")}
