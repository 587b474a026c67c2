"""What docs/services.md says, run: its snippets are taken out of the page, so that they cannot age."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from tests.conftest import ROOT, wait_for

from .hub import ENV, Hub, promtool

PAGE = (ROOT / "docs" / "services.md").read_text()
BLOCK = re.compile(r"<!-- (file|run): (\S+) -->\n```\w+\n(.*?)```", re.S)
FILES = {name: text for kind, name, text in BLOCK.findall(PAGE) if kind == "file"}
COMMANDS = {name: text.strip() for kind, name, text in BLOCK.findall(PAGE) if kind == "run"}
BIN = Path(sys.executable).parent


def needs(*programs):
    """Skips where one of them is not installed, as with a Python for which only some are."""
    for program in programs:
        if not (BIN / program).exists():
            pytest.skip(f"{program} is not installed for this Python")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A command of the page, in a directory with the files of the page."""

    def __init__(self, directory, name):
        self.directory, self.port = directory, free_port()
        for file, text in FILES.items():
            (directory / file).write_text(text)
        (directory / "queue").mkdir()
        runtime = directory / "run"
        runtime.mkdir(mode=0o700)
        self.runtime = runtime / "memwatch"
        command = COMMANDS[name].replace("8000", str(self.port)).split()
        self.log = (directory / "log").open("w")
        self.process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            cwd=directory,
            env={**ENV, "XDG_RUNTIME_DIR": str(runtime), "PATH": f"{BIN}:{os.environ['PATH']}"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def said(self):
        """What it printed."""
        return (self.directory / "log").read_text()

    def ask(self):
        """One request; whether it was answered."""
        assert self.process.poll() is None, self.said()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=10) as answer:
                return answer.status == 200
        except OSError:
            return False

    def close(self):
        """Ends it, and whatever it started."""
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.log.close()


@pytest.fixture(name="serve")
def _serve(tmp_path):
    servers = []

    def serve(name):
        servers.append(Server(tmp_path, name))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def events(hub):
    """By worker: how many events it had."""
    return {
        dict(labels)["worker"]: value
        for (name, labels), value in hub.samples().items()
        if name == "memwatch_events_total"
    }


def pids(hub):
    """By worker."""
    return {key[1]: each["pid"] for key, each in hub.workers().items()}


def ask_until(server, hub, workers):
    """Asks, several at a time, until so many workers have changed something."""

    def step():
        threads = [threading.Thread(target=server.ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(value > 0 for value in events(hub).values()) >= workers

    wait_for(step, limit_s=90, what=f"{workers} workers that changed something: {server.said()}")


#: Command, what has to be installed, workers that answer, and watchers: the master of one that forks is one, too.
HTTP = [
    ("gunicorn", ["gunicorn"], 4, 4),
    ("gthread", ["gunicorn"], 2, 2),
    ("gevent", ["gunicorn"], 2, 2),
    ("preload", ["gunicorn"], 4, 5),
    ("uwsgi", ["uwsgi"], 2, 3),
    ("uvicorn", ["uvicorn", "fastapi"], 1, 1),
    ("uvicorn-workers", ["uvicorn", "fastapi"], 4, 4),
]


@pytest.mark.parametrize(("name", "programs", "workers", "watchers"), HTTP, ids=[row[0] for row in HTTP])
def test_every_worker_is_watched(serve, name, programs, workers, watchers):
    needs(*programs)
    server = serve(name)
    wait_for(server.ask, limit_s=60, what=f"an answer: {server.said()}")
    with Hub(server.runtime, "--interval", "0.2") as hub:
        wait_for(lambda: len(hub.workers()) == watchers, what=f"{watchers} watchers: {server.said()}")
        ask_until(server, hub, workers)
        assert set(events(hub)) == {str(number) for number in range(watchers)}
        assert len(set(pids(hub).values())) == watchers
        promtool(hub.get("/metrics"))


@pytest.mark.parametrize(
    ("name", "programs", "watchers", "kills"),
    [
        ("gunicorn", ["gunicorn"], 4, 3),
        ("preload", ["gunicorn"], 5, 3),
        ("uvicorn-workers", ["uvicorn", "fastapi"], 4, 1),
    ],
    ids=["gunicorn", "preload", "uvicorn"],
)
def test_workers_are_replaced_and_no_counter_falls(serve, name, programs, watchers, kills):
    """By kill -9 and by HUP; uvicorn gives up a HUP where a new worker takes some seconds to start."""
    needs(*programs)
    server = serve(name)
    wait_for(server.ask, limit_s=60, what=f"an answer: {server.said()}")
    with Hub(server.runtime, "--interval", "0.1") as hub:
        wait_for(lambda: len(hub.workers()) == watchers, what=f"{watchers} watchers: {server.said()}")
        ask_until(server, hub, 4)
        seen = hub.total("memwatch_events_total")
        done, falls = threading.Event(), []

        def look():
            nonlocal seen
            while not done.is_set():
                now = hub.total("memwatch_events_total")
                if now < seen:
                    falls.append((seen, now))
                seen = now
                server.ask()

        looker = threading.Thread(target=look)
        looker.start()
        try:
            for _ in range(kills):
                before = set(pids(hub).values())
                victim = next(pid for pid in before if pid != server.process.pid)
                os.kill(victim, signal.SIGKILL)
                wait_for(
                    lambda before=before, victim=victim: (
                        victim not in (now := set(pids(hub).values())) and len(now) == watchers
                    ),
                    limit_s=60,
                )
            if programs == ["gunicorn"]:
                before = set(pids(hub).values()) - {server.process.pid}
                server.process.send_signal(signal.SIGHUP)
                wait_for(
                    lambda: not before & (now := set(pids(hub).values())) and len(now) == watchers,
                    limit_s=90,
                    what=f"new workers: {server.said()}",
                )
        finally:
            done.set()
            looker.join()
        assert not falls
        assert len(events(hub)) <= 2 * watchers, "places are used again"
        promtool(hub.get("/metrics"))


def test_celerys_pool_is_watched(serve):
    needs("celery")
    server = serve("celery")
    with Hub(server.runtime, "--interval", "0.2") as hub:
        wait_for(lambda: len(hub.workers()) == 3, limit_s=60, what=f"two children and their parent: {server.said()}")
        sent = """
import tasks, sys
for number in range(40):
    tasks.change.delay(number % 250 + 1)
"""
        started = time.monotonic()
        while sum(value > 0 for value in events(hub).values()) < 2 and time.monotonic() - started < 90:
            result = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", sent], cwd=server.directory, env=ENV, capture_output=True,
                text=True,                check=False, timeout=60,
            )  # fmt: skip
            assert result.returncode == 0, result.stderr
        assert sum(value > 0 for value in events(hub).values()) >= 2, server.said()
        before, seen = set(pids(hub).values()), hub.total("memwatch_events_total")
        victim = next(pid for pid in before if pid != server.process.pid)
        os.kill(victim, signal.SIGKILL)
        wait_for(
            lambda: victim not in (now := set(pids(hub).values())) and len(now) == 3,
            limit_s=60,
            what=f"another child: {server.said()}",
        )
        assert hub.total("memwatch_events_total") >= seen
    server.process.kill()  # a child that is killed while it reads takes billiard's lock along: no warm shutdown ends


def test_a_cell_may_be_run_again(capsys):
    names = {}
    for number in (1, 2):
        exec(compile(FILES["cell.py"], "cell", "exec"), names)
        names["weights"][0] = number
        assert names["watcher"].flush()
    names["watcher"].close()
    assert capsys.readouterr().out.count("weights") == 2


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
@pytest.mark.parametrize("name", ["shop.service", "shopd@.service"])
def test_units(tmp_path, name):
    path = tmp_path / name.replace("@.", "@1.")
    path.write_text(FILES[name].replace("/usr/local/bin/shopd", "/bin/true"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    said = [line for line in checked.stderr.splitlines() if path.name in line]
    assert (checked.returncode, said) == (0, []), checked.stderr


def test_kubernetes():
    deployment, monitor = yaml.safe_load_all(FILES["shop.yaml"])
    pod = deployment["spec"]["template"]
    assert pod["spec"]["securityContext"]["seccompProfile"] == {
        "type": "Localhost",
        "localhostProfile": "memwatch.json",
    }
    hub = next(each for each in pod["spec"]["containers"] if each["name"] == "hub")
    (port,) = hub["ports"]
    assert port["containerPort"] == 10762
    for probe in ("livenessProbe", "readinessProbe"):
        assert hub[probe]["httpGet"]["port"] == port["name"]
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    for container in pod["spec"]["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    labels = pod["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"] == labels
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == port["name"]
    from memwatch.__main__ import parser

    arguments = [*hub["command"][1:]]
    assert parser().parse_args(arguments).directory == ["/run/shared/shop/memwatch"]


def test_the_hubs_command_of_the_pod_answers_probes(tmp_path):
    """By the pod's address, with the token of the file."""
    token = tmp_path / "token"
    token.write_text("k" * 40 + "\n")
    options = ["--host", "0.0.0.0", "--insecure", "--token-file", str(token), "--allowed-host", "10.1.2.3"]
    with Hub(tmp_path, *options, token="k" * 40) as hub:
        assert hub.ask("/-/healthy", token=False, Host=f"10.9.9.9:{hub.port}")[0] == 200
        assert hub.ask("/-/ready", token=False, Host=f"10.9.9.9:{hub.port}")[0] == 200
        assert hub.ask("/metrics", token=False, Host=f"10.1.2.3:{hub.port}")[0] == 401
        assert hub.ask("/metrics", Host=f"10.1.2.3:{hub.port}")[0] == 200
        assert hub.ask("/metrics", Host=f"10.9.9.9:{hub.port}")[0] == 421


def test_the_image():
    """There is no Docker here: that each line is an instruction, and copies what the page has."""
    text = FILES["Dockerfile"].replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    assert lines[0][0] == "FROM"
    assert {word for word, _ in lines} <= {"FROM", "RUN", "COPY", "WORKDIR", "USER", "ENV", "EXPOSE", "CMD"}
    assert all(rest.split()[0] in {*FILES, "*.whl"} for word, rest in lines if word == "COPY")
    (command,) = (yaml.safe_load(rest) for word, rest in lines if word == "CMD")
    assert command[0] == "gunicorn"


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not here")
@pytest.mark.parametrize("name", ["hub.yml", "targets.yml", "one.yml"])
def test_scrape_configs(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name])
    checked = subprocess.run(["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_snippet_is_run():
    """A block that no test takes would age."""
    source = Path(__file__).read_text()
    assert {name for name in FILES if f'"{name}"' not in source} <= {"app.py", "preloaded.py", "api.py", "tasks.py"}
    assert set(COMMANDS) == {row[0] for row in HTTP} | {"celery"}
