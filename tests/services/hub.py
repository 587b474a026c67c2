"""A hub that runs for a test, and what it answers."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading

from tests.conftest import ROOT, wait_for

ENV = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Hub:
    """`memwatch hub`, on a port of its own."""

    def __init__(self, directory, *options, token="h" * 40, **environ):
        self.token = token
        self.process = subprocess.Popen(
            [sys.executable, "-m", "memwatch", "hub", "--port", "0", "--directory", str(directory), *options],
            stdout=subprocess.PIPE,
            text=True,
            env={**ENV, "MEMWATCH_HUB_TOKEN": token, **environ},
        )
        self.hello = self.process.stdout.readline()
        self.port, self.code = re.search(r"https?://\S+?:(\d+)/#(\w+)", self.hello).groups()
        self.port = int(self.port)

    def ask(self, path, token=True, method="GET", **headers):
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, path, **headers):
        """The body of an answer that must be 200."""
        status, _, body = self.ask(path, **headers)
        assert status == 200, body
        return body.decode()

    def json(self, path):
        """The same, read."""
        return json.loads(self.get(path))

    def workers(self):
        """By (service, worker): what the list says."""
        return {(each["service"], each["worker"]): each for each in self.json("/api/v1/workers")["workers"]}

    def await_workers(self, n):
        """Waits until there are so many, all of which answer."""
        wait_for(
            lambda: len(found := self.workers()) == n and all(each["up"] for each in found.values()),
            what=f"{n} workers in the hub",
        )
        return self.workers()

    def samples(self, **headers):
        """By (name, labels): the numbers of a scrape, each once."""
        found = {}
        for line in self.get("/metrics", **headers).splitlines():
            if line.startswith("#"):
                continue
            name, labels, value = SAMPLE.match(line).groups()
            key = name, tuple(sorted(LABEL.findall(labels or "")))
            assert key not in found, f"twice: {line}"
            found[key] = float(value)
        return found

    def total(self, name):
        """The sum over all workers."""
        return sum(value for (found, _), value in self.samples().items() if found == name)

    def close(self):
        """Its exit status."""
        self.process.terminate()
        self.process.stdout.close()
        return self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self.close() == 0


def promtool(text):
    """Prometheus's own opinion of a scrape."""
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@contextlib.contextmanager
def writing(worker):
    """The worker writes all the time: a stream begins with what comes once it has reached the worker."""
    read = threading.Event()

    def write():
        while not read.is_set():
            worker.write(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        read.set()
        writer.join()
