"""What comes up with one command: `dashboards/stack`, discovery, and what compose.yaml and provisioning say."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml
from queries import HERE as DASHBOARDS
from queries import Prometheus

WAIT_S = 60.0


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
    assert f"http://127.0.0.1:{port}/alerts" in said, said
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    wait_for(lambda: prometheus.now('memwatch_variable_value{variable="temperature"}'), "a scrape of the demo")
    with urllib.request.urlopen(f"http://127.0.0.1:{discover_port}/targets", timeout=10) as answer:
        assert json.load(answer) == [{"targets": [f"127.0.0.1:{demo_port}"], "labels": {}}]
    # Found in two ways, scraped once.
    assert len(prometheus.now("up")) == 1
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


def test_discovery_leaves_out_what_does_not_answer_and_keeps_the_tokens(tmp_path):
    directory = tmp_path / "memwatch"
    directory.mkdir()
    with socket.socket() as serving:
        serving.bind(("127.0.0.1", 0))
        serving.listen()
        port = serving.getsockname()[1]
        (dead,) = free_ports(1)
        (directory / "1-1.json").write_text(json.dumps({"pid": 1, "port": port, "token": "secret"}))
        (directory / "2-2.json").write_text(json.dumps({"pid": 2, "port": int(dead), "token": "secret"}))
        (directory / "3-3.json").write_text("{ half a")
        (directory / "4-4.json").write_text(json.dumps({"pid": 4, "port": 0, "unix_socket": "/x"}))
        done = subprocess.run(
            [sys.executable, DASHBOARDS / "discover", "--directory", directory],
            capture_output=True,
            text=True,
            check=True,
        )
    assert json.loads(done.stdout) == [{"targets": [f"127.0.0.1:{port}"], "labels": {}}]


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
