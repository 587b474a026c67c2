"""What the tests of the whole way share: the tree, the interpreter, waiting, free ports, the demo service."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0


def wait_for(condition: Callable[[], object], what: str) -> object:
    """The condition's first true answer; connection errors count as "not yet"."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            answer = condition()
        except OSError:
            answer = None
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {WAIT_S:.0f} s for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


class Service:
    """A demo that runs, with its output in a file and its metrics at `metrics_url`."""

    def __init__(self, command: list[str], output: Path) -> None:
        self.output = output
        self._file: IO[str] = output.open("w")
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=self._file, stderr=subprocess.STDOUT)

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def metrics_url(self) -> str:
        def printed() -> str:
            assert self.process.poll() is None or "metrics" in self.text, f"ended early:\n{self.text}"
            found = re.search(r"^metrics +(http\S+)\n", self.text, re.MULTILINE)
            return found.group(1) if found else ""

        return str(wait_for(printed, "the metrics' URL"))

    def finish(self) -> str:
        """Waits for the end and gives all that was printed."""
        code = self.process.wait(timeout=WAIT_S)
        assert code == 0, f"exit {code}:\n{self.text}"
        return self.text

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._file.close()


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(*command: str) -> Service:
        started.append(Service(list(command), tmp_path / f"service-{len(started)}.txt"))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture
def demo(start_service: Callable[..., Service]) -> Callable[..., Service]:
    """Starts examples/service_demo.py on a free port."""

    def start(*options: str) -> Service:
        return start_service(sys.executable, "examples/service_demo.py", "--port", "0", *options)

    return start
