"""What tests of several directories share."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 30.0


def wait_for(condition, limit_s=LIMIT_S, what="the condition"):
    """Waits until the condition holds; its last value. Fails after a generous limit."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {limit_s:.0f} s for {what}"
        time.sleep(0.005)
    return value


class Recorder(list):
    """A callback that keeps its events."""

    def __call__(self, event):
        self.append(event)

    def of(self, name):
        """The events of one variable."""
        return [event for event in self if event.variable_name == name]


def run_python(code, *arguments, timeout=60, options=("-X", "dev", "-W", "error"), environ=None):
    """Runs a program in a Python of its own."""
    return subprocess.run(
        [sys.executable, *options, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python"), **(environ or {})},
    )


def balance(account):
    """detected minus all that detections end as: 0 for a ledger that balances."""
    dropped = account["dropped"]
    lost = sum(dropped.values()) if isinstance(dropped, dict) else dropped
    ended = account["delivered"] + account["coalesced"] + account["unchanged"] + account["filtered"] + lost
    return account["detected"] - ended


@pytest.fixture(name="wait_for")
def _wait_for():
    return wait_for


@pytest.fixture(name="run_python")
def _run_python():
    return run_python


@pytest.fixture(name="balance")
def _balance():
    return balance


@pytest.fixture
def recorder():
    """A fresh callback that keeps its events."""
    return Recorder()


@pytest.fixture
def watcher():
    """A watcher with the defaults."""
    from memwatch import MemoryWatcher

    with MemoryWatcher() as watcher:
        yield watcher


@pytest.fixture
def watched(watcher, recorder):
    """A watcher whose events the recorder keeps."""
    watcher.set_callback(recorder)
    return watcher


@pytest.fixture
def in_thread():
    """Runs a function in a thread and joins it; raises what it raised."""

    def run(function, *arguments, name=None):
        errors = []

        def target():
            try:
                function(*arguments)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=target, name=name)
        thread.start()
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "the thread hangs"
        if errors:
            raise errors[0]

    return run
