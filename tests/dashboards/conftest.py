"""A small world for the dashboards: the demo service, one in trouble, a dead target, readers, a real Prometheus."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "dashboards"
HERE = Path(__file__).resolve().parent
TOKEN = "a-token-for-the-tests-of-dashboards"
WAIT_S = 60.0

sys.path.insert(0, str(DASHBOARDS))

import boards  # noqa: E402, F401  (silences the builder)
from queries import Prometheus  # noqa: E402


@dataclass
class World:
    """What runs, and how to ask Prometheus about it."""

    prometheus: Prometheus
    demo: str
    busy: str
    dead: str


def wait_for(condition, what):
    """The condition's first true answer; errors count as "not yet"."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if answer := condition():
                return answer
        time.sleep(0.1)
    raise AssertionError(f"waited {WAIT_S:.0f} s for {what}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(command, output):
    """A program that is ended at the end."""
    environment = {**os.environ, "MEMWATCH_WORKER": "0"}
    with (
        output.open("w") as file,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def started(process, output, word):
    """Waits until the program has printed the word; the text so far."""

    def printed():
        text = output.read_text()
        assert process.poll() is None, f"ended early:\n{text}"
        return word in text and text

    return wait_for(printed, f"{word!r} from {process.args}")


def scrape_config(directory, targets):
    """Our configuration and rules, with everything a second apart and limits that a short test can reach."""
    config = yaml.safe_load((DASHBOARDS / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": targets}]
    del job["http_sd_configs"]
    shutil.copytree(DASHBOARDS / "prometheus" / "rules", directory / "rules")
    limits = directory / "rules" / "memwatch.limits.yml"
    limits.write_text(limits.read_text().replace("vector(60)", "vector(2)"))
    (directory / "memwatch.token").write_text(TOKEN)
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextlib.contextmanager
def reading(url, token):
    """Readers of every kind, so that the feeds have something to count."""
    stopping = threading.Event()

    def follow(path, accept):
        request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}", "Accept": accept})
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            while not stopping.is_set() and answer.readline():
                pass

    def again_and_again(*paths):
        while not stopping.wait(0.3):
            for path in paths:
                follow(path, "application/json")

    pages = ("/", "/api/v1/status", "/api/v1/regions", "/api/v1/events?limit=3&since=latest", "/-/healthy", "/nothing")
    loops = [
        (again_and_again, pages),
        (again_and_again, ("/api/v1/events?since=latest&wait=5&name=nobody",)),
        (follow, ("/api/v1/events/stream", "text/event-stream")),
        (follow, ("/api/v1/events/stream", "application/x-ndjson")),
    ]
    threads = [threading.Thread(target=target, args=arguments, daemon=True) for target, arguments in loops]
    for thread in threads:
        thread.start()
    yield
    stopping.set()


@contextlib.contextmanager
def services(directory):
    """The two services' addresses."""
    demo_port, busy_port = free_port(), free_port()
    demo_out, busy_out = directory / "demo.txt", directory / "busy.txt"
    demo_command = [sys.executable, "examples/service_demo.py", "--port", str(demo_port), "--seconds", "0"]
    (directory / "token").write_text(TOKEN)
    demo_command += ["--token-file", str(directory / "token")]
    busy_command = [sys.executable, str(HERE / "busy_service.py"), str(busy_port), TOKEN]
    with running(demo_command, demo_out) as demo, running(busy_command, busy_out) as busy:
        started(demo, demo_out, "metrics  ")
        started(busy, busy_out, "#")
        with reading(f"http://127.0.0.1:{demo_port}", TOKEN), reading(f"http://127.0.0.1:{busy_port}", TOKEN):
            yield f"127.0.0.1:{demo_port}", f"127.0.0.1:{busy_port}"


@pytest.fixture(scope="package")
def world(tmp_path_factory):
    """Everything, after Prometheus has seen it for a while."""
    directory = tmp_path_factory.mktemp("world")
    dead = f"127.0.0.1:{free_port()}"
    address = f"127.0.0.1:{free_port()}"
    output = directory / "prometheus.txt"
    with services(directory) as (demo, busy):
        command = [
            "prometheus",
            f"--config.file={scrape_config(directory, [demo, busy, dead])}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
        ]
        with running(command, output):
            prometheus = Prometheus(f"http://{address}")
            wait_for(lambda: len(prometheus.now("up == 1")) == 2, f"two scrapes; see {directory}")
            # Ten scrapes: the demo's slowest variable has changed twice, every rule was evaluated.
            enough = (
                'min(count_over_time(memwatch_up[1m])) >= 10 and on () memwatch_variable_nan{variable="weights"} >= 0'
            )
            wait_for(lambda: prometheus.now(enough), "ten scrapes")
            yield World(prometheus, demo, busy, dead)


@pytest.fixture(scope="package")
def exported(world):
    """The families of a real scrape: name -> type, as Prometheus keeps them."""
    with urllib.request.urlopen(f"http://{world.demo}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return dict(line.split()[2:4] for line in lines if line.startswith("# TYPE "))


@pytest.fixture(scope="session")
def rules():
    """All rules, recording and alerting, by file."""
    paths = sorted((DASHBOARDS / "prometheus" / "rules").glob("*.yml"))
    groups = {path.stem: yaml.safe_load(path.read_text())["groups"] for path in paths}
    return {name: [rule for group in found for rule in group["rules"]] for name, found in groups.items()}


@pytest.fixture(scope="session")
def plain_json():
    """The builder's objects as the JSON that it writes for them."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    return lambda model: json.loads(JSONEncoder().encode(model))
