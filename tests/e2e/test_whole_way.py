"""From a write in the demo services to a sample in a real Prometheus."""

import json
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, WAIT_S, free_port, get, wait_for

CONFIG = """
global:
  scrape_interval: 500ms
scrape_configs:
  - job_name: memwatch
    static_configs:
      - targets: ["{target}"]
"""


class Prometheus:
    """Debian's Prometheus, scraping one target."""

    def __init__(self, directory: Path, target: str) -> None:
        config = directory / "prometheus.yml"
        config.write_text(CONFIG.format(target=target))
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = (directory / "prometheus.log").open("w")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )

    def query(self, expression: str) -> dict[str, float]:
        """Values by variable (or by "" where there is no such label)."""
        answer = json.loads(get(f"{self.url}/api/v1/query?query={urllib.parse.quote(expression)}"))
        assert answer["status"] == "success", answer
        return {row["metric"].get("variable", ""): float(row["value"][1]) for row in answer["data"]["result"]}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=WAIT_S)
        self._log.close()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[type[Prometheus]]:
    started: list[Prometheus] = []

    class Started(Prometheus):
        def __init__(self, target: str) -> None:
            super().__init__(tmp_path, target)
            started.append(self)

    yield Started
    for each in started:
        each.stop()


def target_of(metrics_url: str) -> str:
    return urllib.parse.urlsplit(metrics_url).netloc


@pytest.mark.skipif(not shutil.which("prometheus"), reason="Prometheus is not installed")
def test_prometheus_scrapes_the_demo(demo, prometheus) -> None:
    service = demo("--seconds", "120")
    server = prometheus(target_of(service.metrics_url))

    wait_for(lambda: server.query("up") == {"": 1.0}, "up == 1")
    wait_for(lambda: server.query("memwatch_events_total > 10"), "ten events")
    wait_for(lambda: 15 <= server.query("memwatch_variable_value").get("temperature", 0) <= 25, "the temperature")
    wait_for(lambda: server.query("memwatch_variable_value").get("requests", 0) >= 3, "three requests")
    first = server.query("memwatch_variable_value")["requests"]
    wait_for(lambda: server.query("memwatch_variable_value")["requests"] > first, "a further request")
    changed = server.query("memwatch_variable_events_total")
    assert {"temperature", "requests", "weights", "config", "session", "cache", "calibration"} <= set(changed)
    assert changed["calibration"] == 0
    assert server.query("memwatch_regions") == {"": 8.0}
    ledger = server.query(
        "memwatch_detected_total - memwatch_events_total - memwatch_events_coalesced_total"
        " - memwatch_events_unchanged_total - memwatch_events_filtered_total"
        ' - sum without (reason) (memwatch_events_dropped_total{reason!="ring-full"})'
    )
    assert ledger == {"": 0.0}


@pytest.fixture(scope="module")
def text() -> str:
    """All that the demo prints in four seconds."""
    done = subprocess.run(
        [sys.executable, "examples/service_demo.py", "--port", "0", "--seconds", "4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_demo_prints_events_urls_and_a_scrape(text: str) -> None:
    assert re.search(r"^live page +http://127\.0\.0\.1:\d+/#[0-9a-f]{32}$", text, re.MULTILINE), text
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} +\d+ temperature +\S+ → \S+ +\S", text, re.MULTILINE), text
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} +\d+ session .*\(kernel\)$", text, re.MULTILINE), text
    assert re.search(r'^  memwatch_variable_value\{variable="requests"\} \d', text, re.MULTILINE), text
    found = re.search(
        r"^backend \w+: (\d+) changes detected = (\d+) delivered \+ (\d+) coalesced"
        r" \+ (\d+) unchanged \+ (\d+) filtered \+ (\d+) dropped$",
        text,
        re.MULTILINE,
    )
    assert found, text
    detected, *ends = map(int, found.groups())
    assert detected == sum(ends) > 0


def test_demo_names_the_writing_line(text: str) -> None:
    source = (ROOT / "examples" / "service_demo.py").read_text().splitlines()
    written = 1 + next(n for n, line in enumerate(source) if "self.temperature[...] =" in line)

    lines = re.findall(r" temperature .* service_demo\.py:(\d+) \S*measure$", text, re.MULTILINE)
    assert lines, text
    assert set(lines) == {str(written)}


def test_demo_takes_another_port_when_its_own_is_in_use(start_service, demo) -> None:
    first = demo("--seconds", "30")
    port = urllib.parse.urlsplit(first.metrics_url).port
    second = start_service(*first.process.args[:2], "--seconds", "1", "--port", str(port))

    assert f"port {port} is in use: another one is taken" in second.finish()


def test_c_service_serves_and_names_the_writer(start_service) -> None:
    service = start_service(str(ROOT / "build/examples/c_service"), "3")
    url = service.metrics_url

    wait_for(lambda: 'memwatch_variable_value{variable="requests"} ' in get(url), "the metric of a C variable")
    text = service.finish()
    source = (ROOT / "examples" / "c_service.c").read_text().splitlines()
    for variable, store in ("requests", "n_requests++;"), ("config", "config.timeout_ms = "):
        line = 1 + next(n for n, text in enumerate(source) if store in text)
        wanted = rf"^ *\d+  {variable} +\d+ bytes changed by \w+, \S*c_service\.c:{line}$"
        assert re.search(wanted, text, re.MULTILINE), f"{wanted}\n{text}"
