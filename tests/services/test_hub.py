"""`memwatch hub` over plain watchers: one scrape, one stream, one page; who is answered; who comes and goes."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.conftest import run_python, wait_for

from memwatch.__main__ import main
from memwatch._hub import merge
from memwatch._hub.access import peer_uid

from .hub import ENV, Hub, promtool

WORKER = """
import sys
import memwatch
directory, options = sys.argv[1], eval(sys.argv[2])
watcher = memwatch.MemoryWatcher()
data = {name: memwatch.buffer(8) for name in ("a", 'odd "{}\\\\ name', "api_key")}
for name, buffer in data.items():
    watcher.watch(buffer.cast("q") if name == "a" else buffer, name)
server = watcher.serve(port=0, runtime_dir=directory, **options)
print(server.port, flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        data["a"][0] += 1
        assert watcher.flush()
    print("ok", flush=True)
watcher.close()
"""


class Worker:
    """A process that writes when it is told to."""

    def __init__(self, directory, **options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(directory), repr(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENV,
        )
        self.port = int(self.process.stdout.readline())

    def write(self, times):
        """Writes, and waits until it is counted."""
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ok\n"

    def end(self, how=None):
        """In good order, or by a signal."""
        if how is not None:
            self.process.send_signal(how)
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(name="directory")
def _directory(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture(name="start")
def _start(directory):
    workers = []

    def start(**options):
        workers.append(Worker(directory, **options))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.end()


def of(samples, name):
    """By (service, worker) or more: the numbers of one family."""
    return {tuple(value for _, value in labels): number for (found, labels), number in samples.items() if found == name}


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_one_scrape_of_all(directory, start):
    for worker in (start(service="shop"), start(service="shop"), start(service='odd "\\ one', worker="x")):
        worker.write(2)
    with Hub(directory) as hub:
        hub.await_workers(3)
        text = hub.get("/metrics")
        promtool(text)
        families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(families) == len(set(families))
        assert of(hub.samples(), "memwatch_events_total") == {
            ("shop", "0"): 2, ("shop", "1"): 2, ('odd \\"\\\\ one', "x"): 2,
        }  # fmt: skip
        assert 'pid="' not in text
        openmetrics = hub.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert openmetrics.endswith("# EOF\n")
        found = {family.name: family for family in text_string_to_metric_families(openmetrics)}
        assert sum(sample.value for sample in found["memwatch_events"].samples) == 6
        assert {sample.labels["service"] for sample in found["memwatch_process"].samples} == {"shop", 'odd "\\ one'}


@pytest.mark.parametrize("how", [None, signal.SIGTERM, signal.SIGKILL])
def test_counters_of_the_dead_are_kept_and_places_used_again(directory, start, how):
    first, second = start(service="shop"), start(service="shop")
    first.write(5)
    second.write(3)
    with Hub(directory, "--interval", "0.05") as hub:
        hub.await_workers(2)
        wait_for(lambda: hub.total("memwatch_events_total") == 8)
        before = hub.samples()
        for n in range(3):
            first.end(how)
            wait_for(lambda: len(hub.workers()) == 1)
            counters = {key for key in before if key[0].endswith(("_total", "_bucket", "_count", "_sum"))}
            after = hub.samples()
            assert all(after[key] >= before[key] for key in counters)
            promtool(hub.get("/metrics"))
            first = start(service="shop")
            assert set(hub.await_workers(2)) == {("shop", "0"), ("shop", "1")}
            first.write(2)
            assert hub.total("memwatch_events_total") == 8 + 2 * (n + 1)
            before = hub.samples()
        assert of(before, "memwatch_hub_workers_ended_total") == {("shop",): 3}
        assert of(before, "memwatch_events_total")[("shop", "0")] == 11
        openmetrics = hub.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        found = {family.name: family for family in text_string_to_metric_families(openmetrics)}
        assert sum(sample.value for sample in found["memwatch_events"].samples) == 14


def test_who_was_taken_for_dead_is_not_counted_twice(directory, start, tmp_path_factory):
    """Its file could not be read for a while."""
    worker = start(service="shop")
    worker.write(5)
    away = tmp_path_factory.mktemp("away")
    with Hub(directory, "--interval", "0.05") as hub:
        hub.await_workers(1)
        wait_for(lambda: hub.total("memwatch_events_total") == 5)
        (file,) = directory.glob("*.json")
        file.rename(away / file.name)
        wait_for(lambda: not hub.workers())
        assert hub.total("memwatch_events_total") == 5
        (away / file.name).rename(file)
        assert set(hub.await_workers(1)) == {("shop", "0")}
        worker.write(1)
        assert hub.total("memwatch_events_total") == 6


def test_all_dead_is_still_a_scrape(directory, start):
    worker = start(service="shop")
    worker.write(4)
    with Hub(directory, "--interval", "0.05") as hub:
        hub.await_workers(1)
        wait_for(lambda: hub.total("memwatch_events_total") == 4)
        worker.end(signal.SIGKILL)
        wait_for(lambda: not hub.workers())
        text = hub.get("/metrics")
        promtool(text)
        assert hub.total("memwatch_events_total") == 4
        assert "memwatch_variable_value" not in text, "what nobody holds any more has no value"
        list(text_string_to_metric_families(hub.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")))


def test_two_of_one_name_are_told_apart(directory, start):
    start(service="shop", worker="a")
    start(service="shop", worker="a")
    with Hub(directory) as hub:
        assert set(hub.await_workers(2)) == {("shop", "a"), ("shop", "a.1")}
        promtool(hub.get("/metrics"))


def test_a_worker_that_is_stopped_keeps_its_numbers_and_holds_nobody_up(directory, start):
    stopped, other = start(service="shop"), start(service="shop")
    stopped.write(3)
    with Hub(directory) as hub:
        hub.await_workers(2)
        wait_for(lambda: hub.total("memwatch_events_total") == 3)
        stopped.process.send_signal(signal.SIGSTOP)
        try:
            other.write(1)
            assert hub.total("memwatch_events_total") == 4
            assert sorted(of(hub.samples(), "memwatch_hub_worker_up").values()) == [0, 1]
        finally:
            stopped.process.send_signal(signal.SIGCONT)


def test_scrapes_of_strangers_hide_what_the_exporters_hide(directory, start):
    start(service="shop").write(1)
    start(service="shop", metrics_need_token=True).write(1)
    with Hub(directory) as hub:
        hub.await_workers(2)
        mine = hub.samples()
        strangers = hub.samples(token=False, X_Forwarded_For="192.0.2.1")
        assert len(of(mine, "memwatch_variable_value")) == 2
        assert not of(strangers, "memwatch_variable_value")
        assert of(strangers, "memwatch_events_total") == {("shop", "0"): 1}
        assert "memwatch_variable_value" in hub.get("/metrics", token=False), "this very user"
    with Hub(directory, "--metrics-need-token") as hub:
        assert hub.ask("/metrics", token=False)[0] == 401


# --- targets, feeds, stream -------------------------------------------------------------------------------------------


def test_targets_for_prometheus(directory, start):
    start(service="shop", worker="w/1", labels={"zone": "eu"})
    with Hub(directory) as hub:
        hub.await_workers(1)
        status, headers, body = hub.ask("/sd", token=False)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        (group,) = json.loads(body)
        assert group["targets"] == [f"127.0.0.1:{hub.port}"]
        path = group["labels"].pop("__metrics_path__")
        assert group["labels"] == {"zone": "eu", "service": "shop", "worker": "w/1", "instance": "shop/w/1"}
        assert "memwatch_up 1" in hub.get(path)
    with Hub(directory.parent / "nowhere") as hub:
        assert hub.json("/sd") == []


def test_feeds_of_one_worker(directory, start):
    start(service="shop").write(3)
    with Hub(directory) as hub:
        hub.await_workers(1)
        at = "/api/v1/workers/shop/0/"
        assert [event["new_number"] for event in hub.json(f"{at}events?since=1")["events"]] == [2, 3]
        assert {region["name"] for region in hub.json(f"{at}regions")["regions"]} >= {"a", "api_key"}
        (region,) = (region for region in hub.json(f"{at}regions")["regions"] if region["name"] == "a")
        _, headers, body = hub.ask(f"{at}regions/{region['region_id']}/value")
        assert (headers["Content-Length"], len(body)) == ("8", 8)
        status, headers, body = hub.ask(f"{at}events?nonsense=1")
        assert (status, "nonsense" in body.decode() or "parameter" in body.decode()) == (400, True)
        status, headers, body = hub.ask(f"{at}events", Accept="application/x-ndjson")
        assert headers["Memwatch-Newest"] == "3"
        assert len(body.splitlines()) == 3
        assert hub.ask(f"{at}events", token=False)[0] == 401
        assert hub.ask("/api/v1/workers/shop/9/events")[0] == 404


class Client:
    """A client of the merged stream."""

    def __init__(self, hub, query="", **headers):
        self.connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(
            "GET", f"/api/v1/events/stream{query}", headers={"Authorization": f"Bearer {hub.token}", **headers}
        )
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        self.id = None

    def next(self):
        """Kind and data of the next message."""
        message = {}
        while True:
            line = self.answer.readline().decode().rstrip("\n")
            if not line and "data" in message:
                self.id = message["id"]
                return message["event"], json.loads(message["data"])
            name, _, value = line.partition(": ")
            message[name] = value

    def close(self):
        """Goes away."""
        self.answer.close()
        self.connection.close()


def test_one_stream_of_all_that_goes_on_where_it_was(directory, start):
    first, second = start(service="shop"), start(service="shop", worker="b")
    with Hub(directory) as hub:
        hub.await_workers(2)
        client = Client(hub)
        filtered = Client(hub, "?worker=b&name=a*")
        for worker, name in ((first, "0"), (second, "b"), (first, "0")):
            worker.write(1)  # what is written once the answer has begun comes
            kind, event = client.next()
            assert (kind, event["service"], event["worker"], event["name"]) == ("change", "shop", name, "a")
        assert filtered.next()[1]["worker"] == "b"
        at = client.id
        client.close()
        first.write(2)
        again = Client(hub, Last_Event_ID=at)
        kind, event = again.next()
        assert (kind, event["seq"]) == ("change", 3)
        number = int(again.id.rpartition("-")[2])
        assert number == int(at.rpartition("-")[2]) + 1, "nothing was left out"
        again.close()
        filtered.close()
        other = Client(hub, "?since=5&epoch=ffff")
        assert other.next()[0] == "reset"
        other.close()


def test_a_client_of_lines(directory, start):
    worker = start(service="shop")
    with Hub(directory) as hub:
        hub.await_workers(1)
        client = Client(hub, Accept="application/x-ndjson")
        assert json.loads(client.answer.readline())["kind"] == "bookmark"
        worker.write(1)
        assert json.loads(client.answer.readline())["worker"] == "0"
        client.close()


def test_a_worker_that_comes_later_is_in_the_stream(directory, start):
    with Hub(directory, "--interval", "0.05") as hub:
        client = Client(hub)
        worker = start(service="late")
        worker.write(1)  # before the hub has found it, as likely as not
        event = client.next()[1]
        assert (event["service"], event["seq"]) == ("late", 1)
        client.close()


# --- access -----------------------------------------------------------------------------------------------------------


def test_who_is_answered(directory):
    with Hub(directory) as hub:
        for path in ("/api/v1/workers", "/api/v1/status", "/api/v1/events/stream", "/api/v1/workers/a/0/events"):
            assert hub.ask(path, token=False)[0] == 401
            assert hub.ask(path, token=False, Authorization="Bearer " + "x" * 40)[0] == 401
        for path in ("/", "/metrics", "/sd", "/api/v1/workers"):
            assert hub.ask(path, Host="evil.example")[0] == 421
            assert hub.ask(path, Host=f"127.0.0.1.evil.example:{hub.port}")[0] == 421
            assert hub.ask(path, Origin="http://evil.example")[0] == 403
            assert hub.ask(path, Sec_Fetch_Site="cross-site")[0] == 403
        assert hub.ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
        assert hub.ask("/-/healthy", token=False, Host="10.0.0.7")[0] == 200
        assert hub.ask("/metrics", method="POST")[0] == 405
        assert hub.ask("/nowhere")[0] == 404
        for path, kind in (("/", "text/html"), ("/hub.js", "text/javascript"), ("/hub.css", "text/css")):
            status, headers, _ = hub.ask(path, token=False)
            assert (status, headers.get_content_type()) == (200, kind)
            assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_a_code_is_good_once(directory):
    with Hub(directory) as hub:
        code = {"Authorization": f"Memwatch-Code {hub.code}"}
        assert json.loads(hub.ask("/api/v1/token", **code)[2]) == {"token": hub.token}
        assert hub.ask("/api/v1/token", **code)[0] == 401
        assert hub.ask("/api/v1/token", Authorization="Memwatch-Code ")[0] == 401


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n", 413),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 431),
        (b"GET http://evil/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ],
)
def test_odd_requests(directory, sent, status):
    with Hub(directory) as hub, socket.create_connection(("127.0.0.1", hub.port), 30) as client:
        client.sendall(sent)
        assert client.makefile("rb").readline().split()[1] == str(status).encode()
        assert hub.ask("/-/healthy")[0] == 200


def test_a_file_that_names_anothers_port_gets_no_token(directory):
    """The process was killed, and its port is a stranger's by now."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        path = directory / "1-1.json"
        said = {"pid": os.getpid(), "port": stranger.getsockname()[1], "epoch": "0" * 16, "token": "secret" * 6}
        path.write_text(json.dumps({**said, "url": f"http://127.0.0.1:{said['port']}/", "service": "shop"}))
        path.chmod(0o600)
        with Hub(directory, "--interval", "60") as hub:
            stranger.settimeout(30)
            client, _ = stranger.accept()
            heard = client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nMemwatch-Epoch: 1111\r\nContent-Length: 0\r\n\r\n")
            assert heard.startswith(b"HEAD /-/healthy ")
            assert b"secret" not in heard
            assert not hub.workers()
            client.close()


def test_files_of_the_dead_are_removed(directory, start):
    start(service="shop").end(signal.SIGKILL)
    assert list(directory.glob("*.json"))
    with Hub(directory):
        assert not list(directory.glob("*.json"))


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (["--host", "0.0.0.0"], 2, "others could reach 0.0.0.0"),
        (["--tls-cert-file", "x"], 2, "TLS needs both"),
        (["--url", "ftp://x"], 2, "is no address"),
        (["--url", "http://x:99999"], 2, "a port is at most 65535"),
        (["--interval", "0"], 2, "is not a number of seconds"),
        (["--interval", "inf"], 2, "is not a number of seconds"),
        (["--port", "99999"], 2, "'99999' is no port: it is a number from 0 to 65535"),
        (["--port", "-1"], 2, "'-1' is no port"),
        (["--metrics-users", "nobody-of-that-name"], 1, "there is no user"),
        (["--token-file", "/nowhere"], 1, "No such file"),
        (["--token-file", "/dev/null"], 1, "the token of /dev/null must be 32 to 128 characters"),
        (["--token-file", sys.executable], 1, "must be 32 to 128 characters"),
        (["--tls-cert-file", "/nowhere", "--tls-key-file", "/nokey"], 1, "/nowhere and /nokey are no certificate"),
        (["--tls-cert-file", "/dev/null", "--tls-key-file", "/dev/null"], 1, "are no certificate in PEM"),
    ],
)
def test_what_is_refused(options, status, sentence, capsys, monkeypatch):
    monkeypatch.delenv("MEMWATCH_HUB_TOKEN", raising=False)
    try:
        ended = main(["hub", "--port", "0", *options])
    except SystemExit as end:
        ended = end.code
    assert ended == status
    assert sentence in capsys.readouterr().err


def test_a_port_in_use(directory):
    with Hub(directory) as hub:
        result = run_python(
            "import sys; from memwatch.__main__ import main; sys.exit(main(['hub', '--port', sys.argv[1]]))",
            str(hub.port),
        )
        assert result.returncode == 1
        assert "is in use: take another with --port, or 0 for any free one" in result.stderr


def test_an_exporter_by_its_address(directory, start, tmp_path_factory):
    worker = start(service="far", worker="7", token="t" * 32)
    worker.write(2)
    nowhere = tmp_path_factory.mktemp("none")
    with Hub(nowhere, "--url", f"http://127.0.0.1:{worker.port}/", MEMWATCH_TOKEN="t" * 32) as hub:
        assert set(hub.await_workers(1)) == {("far", "7")}
        assert hub.total("memwatch_events_total") == 2


def test_the_kernel_says_whose_process_asks():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        assert peer_uid(accepted) == os.geteuid()
        client.close()
        accepted.close()


# --- merging ----------------------------------------------------------------------------------------------------------

SCRAPE = b"""# TYPE memwatch_events_total counter
# HELP memwatch_events_total Events.
memwatch_events_total 5
# TYPE memwatch_variable_events_total counter
# HELP memwatch_variable_events_total Odd.
memwatch_variable_events_total{variable="a\\nmemwatch_variable_events_total 1"} 2
memwatch_variable_events_total{variable="# TYPE x y"} 3
# TYPE memwatch_latency_seconds histogram
# HELP memwatch_latency_seconds How long.
memwatch_latency_seconds_bucket{le="0.1"} 1
memwatch_latency_seconds_bucket{le="+Inf"} 2
memwatch_latency_seconds_sum 0.25
memwatch_latency_seconds_count 2
"""


def test_labels_are_put_in_where_samples_begin():
    text = merge.merged([merge.Place(b'worker="0"', SCRAPE, {})], b"", False)
    wanted = SCRAPE.replace(b"total 5", b'total{worker="0"} 5')
    for brace in (b"{variable", b"{le="):
        wanted = wanted.replace(brace, b'{worker="0",' + brace[1:])
    for word in (b"_sum ", b"_count "):
        wanted = wanted.replace(word, word[:-1] + b'{worker="0"} ')
    assert text == wanted


def test_what_the_dead_counted_is_added():
    kept = {}
    merge.keep(kept, merge.counts([(SCRAPE, False)]))
    merge.keep(kept, merge.counts([(SCRAPE, False)]))
    text = merge.merged([merge.Place(b'worker="0"', SCRAPE, kept), merge.Place(b'worker="1"', b"", kept)], b"", False)
    for line in (b'total{worker="0"} 15', b'total{worker="1"} 10', b'sum{worker="0"} 0.75', b'le="0.1"} 3', b'y"} 9'):
        assert line in text
    promtool(text.decode())


@pytest.mark.parametrize("text", [b"", b"\n", b"garbage", b"# TYPE x", b"# TYPE x counter\nx nonsense\n", b"\0\xff"])
def test_what_is_no_scrape_breaks_nothing(text):
    merge.merged([merge.Place(b'worker="0"', text, {})], b"", False)
    merge.keep({}, merge.counts([(text, False)]))


def test_names_without_end_are_bounded(monkeypatch):
    monkeypatch.setattr(merge, "KEPT_MAX", 3)
    kept = {}
    for n in range(10):
        scrape = b'# TYPE x_total counter\n# HELP x_total X.\nx_total{variable="%d"} 1\n' % n
        merge.keep(kept, merge.counts([(scrape, False)]))
    assert sum(kept[b"x_total"].values()) == 10
    assert len(kept[b"x_total"]) == 4


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not here")
def test_the_real_thing_is_there():
    assert shutil.which("promtool")
