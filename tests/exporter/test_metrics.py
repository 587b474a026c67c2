"""/metrics against promtool, the official parsers, a real Prometheus, docs/metrics.md, and hostile names."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from .service import ROOT, TOKEN, Service, compile_program, wait_for

Start = Callable[..., Service]
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
SERIES = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.DOTALL)


def series(text: str) -> list[tuple[str, str, str]]:
    """Name, labels and value of each sample."""
    found = []
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            match = SERIES.match(line)
            assert match, line
            found.append((match[1], match[2] or "", match[3]))
    return found


def check(service: Service) -> str:
    """Everything that must hold for a scrape in both formats; returns the one in 0.0.4."""
    text, open_text = service.metrics(), service.metrics(openmetrics=True)
    result = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families
    assert len(list(openmetrics_parser.text_string_to_metric_families(open_text))) == len(families)
    assert open_text.endswith("\n# EOF\n")
    for exposition in (text, open_text):
        found = series(exposition)
        keys = [(name, labels) for name, labels, _ in found]
        assert len(keys) == len(set(keys)), "a series occurs twice"
        check_buckets(found)
    return text


def check_buckets(found: list[tuple[str, str, str]]) -> None:
    """Bounds ascend, are no whole numbers, end in +Inf; counts never fall; the last is the count."""
    values = {(name, labels): value for name, labels, value in found}
    histograms = {name.removesuffix("_bucket") for name, _, _ in found if name.endswith("_bucket")}
    assert histograms == {"memwatch_detection_latency_seconds", "memwatch_callback_duration_seconds"}
    for histogram in histograms:
        buckets = [(labels[4:-1], int(value)) for name, labels, value in found if name == histogram + "_bucket"]
        bounds = [bound for bound, _ in buckets]
        assert bounds[-1] == "+Inf"
        assert all(repr(float(bound)) == bound for bound in bounds[:-1])
        assert [float(bound) for bound in bounds] == sorted(float(bound) for bound in bounds)
        counts = [count for _, count in buckets]
        assert counts == sorted(counts)
        assert str(counts[-1]) == values[histogram + "_count", ""]


def test_promtool_and_the_official_parsers(service: Service) -> None:
    service.do("temperature 36.6")
    check(service)


def test_under_load_with_ten_thousand_hostile_names(start: Start) -> None:
    service = start(variable_limit=10000)
    service.do("many 10000")
    stop = threading.Event()

    def write() -> None:
        for i in range(1_000_000):
            if stop.is_set():
                return
            service.do(f"touch {i % 500}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        text = check(service)
    finally:
        stop.set()
        writer.join()
    assert text.count("memwatch_variable_events_total{") == 10001
    assert service.sample("memwatch_variables_unlabelled") == 10  # 10,000 + 10 of the host's own, 10,000 with labels


def test_names_that_become_equal_are_told_apart(start: Start) -> None:
    service = start(variable_limit=1000)
    service.do("many 12")
    labels = [labels for name, labels, _ in series(service.metrics()) if name == "memwatch_variable_events_total"]
    alike = [label for label in labels if "bytes4" in label]
    assert len(alike) == 2
    assert any(re.fullmatch(r'variable="bad\\\\xffbytes4#\d+"', label) for label in alike)
    assert sum("__overflow__" in label for label in labels) == 2


def test_labels_are_capped_and_the_rest_is_summed(start: Start) -> None:
    service = start(variable_limit=5)
    service.metrics()
    service.do("many 24")
    service.do("touch 1")
    service.do("post 3")
    text = service.metrics()
    assert text.count("memwatch_variable_events_total{") == 6
    assert service.sample('memwatch_variable_events_total{variable="__overflow__"}') == 4
    assert service.sample("memwatch_variables_unlabelled") == 29
    total = sum(float(value) for name, _, value in series(text) if name == "memwatch_variable_events_total")
    assert total == service.sample("memwatch_events_total")


def test_values_of_scalars_and_arrays(service: Service) -> None:
    service.do("temperature -1.5")
    service.do("counter -9007199254740993")
    service.do("huge 18446744073709551615")
    service.do("weight 2 8")
    service.do("weight 3 nan")
    text = service.metrics()
    assert 'memwatch_variable_value{variable="temperature"} -1.5\n' in text
    assert 'memwatch_variable_value{variable="counter"} -9007199254740993\n' in text
    assert 'memwatch_variable_value{variable="huge"} 18446744073709551615\n' in text
    assert 'memwatch_variable_max{variable="weights"} 8\n' in text
    assert 'memwatch_variable_min{variable="weights"} 0\n' in text
    assert 'memwatch_variable_nan{variable="weights"} 1\n' in text
    assert math.isclose(service.sample('memwatch_variable_mean{variable="weights"}'), 8 / 11)
    for name in ("text", "secret-hash", "secret-none", "weights"):
        assert f'memwatch_variable_value{{variable="{name}"}}' not in text
    service.do("temperature nan")
    assert 'memwatch_variable_value{variable="temperature"} NaN\n' in service.metrics()


def test_counts_are_those_of_what_happened(service: Service) -> None:
    before = service.sample("memwatch_events_total")
    service.do("burst 5")
    service.do("post 2")
    assert service.sample("memwatch_events_total") == before + 7
    assert service.sample('memwatch_variable_events_total{variable="counter"}') == 5
    changed = service.sample('memwatch_variable_last_change_timestamp_seconds{variable="counter"}')
    assert changed > service.sample("memwatch_start_time_seconds") > 1.7e9
    assert service.sample('memwatch_variable_last_change_timestamp_seconds{variable="text"}') == 0
    ledger = [service.sample(f"memwatch_events_{kind}_total") for kind in ("coalesced", "unchanged", "filtered")]
    assert service.sample("memwatch_detected_total") == service.sample("memwatch_events_total") + sum(ledger)


def test_watchpoints_are_counted(start: Start) -> None:
    """Those that small regions are lent, too."""
    service = start(backend="uffd")
    if service.say("precise")[0] == "error":
        pytest.skip("this machine has no watchpoints")
    service.do("precise_writes 7")
    assert 1 <= service.sample("memwatch_watchpoints_used") <= service.sample("memwatch_watchpoints")
    assert service.sample("memwatch_watchpoint_hits_total") >= 7
    assert service.sample("memwatch_watchpoint_missed_total") == 0
    assert service.sample('memwatch_variable_events_total{variable="precise"}') == 7


def test_a_counter_waits_when_the_library_takes_back() -> None:
    states = ["10 5 3", "11 5 3", "11 3 1", "12 4 1", "13 6 3", "13 6 4"]
    result = subprocess.run(
        [compile_program("floor_check.c")], input="\n".join(states), capture_output=True, text=True, check=True
    )
    assert result.stdout.split("\n")[:-1] == ["15 5 3", "16 5 3", "16 5 3", "17 5 3", "19 6 3", "19 6 4"]


def test_what_closed_sinks_had_counted_stays() -> None:
    states = ["5 7 0", "5 9 100", "0 2 0", "1 2 30", "1 0 0", "1 1 5"]
    result = subprocess.run(
        [compile_program("floor_check.c"), "sinks"], input="\n".join(states), capture_output=True, text=True, check=True
    )
    assert result.stdout.split("\n")[:-1] == ["5 7 0", "5 9 100", "5 9 100", "6 9 130", "6 9 130", "6 10 135"]


def test_formats_are_negotiated(service: Service) -> None:
    prometheus_2 = (
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    )
    prometheus_3 = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
        "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
        "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    )
    cases = {
        prometheus_2: OPENMETRICS,
        prometheus_3: OPENMETRICS,
        "application/openmetrics-text": OPENMETRICS,
        "application/openmetrics-text; version=0.0.1": PLAIN,
        "application/openmetrics-text;q=0.1, text/plain;q=0.9": PLAIN,
        "application/openmetrics-text;q=0": PLAIN,
        "xapplication/openmetrics-text": PLAIN,
        "application/vnd.google.protobuf": PLAIN,
        "*/*": PLAIN,
        "": PLAIN,
    }
    for accept, expected in cases.items():
        _, headers, _ = service.get("/metrics", token=False, headers={"Accept": accept})
        assert headers["content-type"] == expected, accept


def documented() -> dict[str, tuple[str, set[str]]]:
    """The families of docs/metrics.md: type and labels by name."""
    rows = re.findall(r"^\| `(memwatch_\w+)` \| (\w+) \|(.*?)\|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_the_documentation_lists_exactly_what_is_there(service: Service) -> None:
    service.do("temperature 1")
    text = service.metrics()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    expected = documented()
    assert {name: kind for name, (kind, _) in expected.items()} == types
    for name, (kind, labels) in expected.items():
        suffix = "_bucket" if kind == "histogram" else ""
        found = [label_text for sample, label_text, _ in series(text) if sample == name + suffix]
        assert found, f"{name} has no series from the start"
        for label_text in found:
            assert set(re.findall(r'(\w+)="', label_text)) == labels | ({"le"} if suffix else set()), name


def test_known_series_exist_from_the_start(service: Service) -> None:
    text = service.metrics()
    for wanted in (
        'memwatch_events_dropped_total{reason="ring_full"} 0',
        'memwatch_attribution_events_total{outcome="page"} 0',
        'memwatch_attribution_none_total{reason="kernel"} 0',
        'memwatch_feed_clients{transport="long_poll"} 0',
        'memwatch_http_requests_total{handler="values",code="200"} 0',
        "memwatch_callback_failures_total 0",
        'memwatch_backend_usable{backend="poll"} 1',
    ):
        assert wanted + "\n" in text


def test_a_backend_that_was_not_tried_has_no_sample(service: Service) -> None:
    backends = service.json("/api/v1/status")["backends"]
    tried = {backend["name"] for backend in backends if "not probed" not in (backend["note"] or "")}
    told = {
        line.split('"')[1] for line in service.metrics().splitlines() if line.startswith("memwatch_backend_usable{")
    }
    assert told == tried and len(tried) < len(backends)


def test_requests_are_counted_by_handler_and_code(service: Service) -> None:
    service.json("/api/v1/status")
    service.get("/api/v1/status", token=False)
    service.get("/nowhere")
    assert service.sample('memwatch_http_requests_total{handler="status",code="200"}') == 1
    assert service.sample('memwatch_http_requests_total{handler="status",code="401"}') == 1
    assert service.sample('memwatch_http_requests_total{handler="other",code="404"}') == 1


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
@pytest.mark.parametrize("secured", [False, True], ids=["open", "token-and-tls"])
def test_a_real_prometheus_scrapes_it(start: Start, tmp_path: Path, secured: bool) -> None:
    options = {}
    job = {"job_name": "memwatch", "scrape_interval": "1s", "scrape_timeout": "1s"}
    if secured:
        certificate = make_certificate(tmp_path)
        (tmp_path / "token").write_text(TOKEN)
        options = {"metrics_need_token": 1, "tls_cert_file": certificate[0], "tls_key_file": certificate[1]}
        job |= {"scheme": "https", "tls_config": {"ca_file": str(certificate[0])}}
        job |= {"authorization": {"credentials_file": str(tmp_path / "token")}}
    service = start(**options)
    service.do("post 3")
    job["static_configs"] = [{"targets": [f"127.0.0.1:{service.port}"]}]
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
    port = free_port()
    prometheus = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
    )
    try:

        def query(expression: str) -> float | None:
            return prometheus_value(port, expression)

        assert wait_for(lambda: query("up") is not None)
        assert wait_for(lambda: query("up") == 1), "up is not 1"
        assert wait_for(lambda: query("memwatch_events_total") == 3)
        assert query("scrape_samples_scraped") == query("scrape_samples_post_metric_relabeling") > 100
        assert query('memwatch_variable_events_total{variable="external"}') == 3
    finally:
        prometheus.terminate()
        prometheus.wait(30)


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and localhost, and its key."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=memwatch",
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prometheus_value(port: int, expression: str) -> float | None:
    """The value of the first series that the query gives, None while there is none."""
    address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
    except OSError:
        return None
    return float(result[0]["value"][1]) if result else None
