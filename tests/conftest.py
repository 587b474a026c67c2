"""What tests of several directories share."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 30.0

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs ignore it, and all that they start
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


# What an open by that name says is tested where it is; other programs ask for mprotect on purpose.
NO_HAZARD = ("-W", "ignore:the backend mprotect was asked for:RuntimeWarning")


def run_python(code, *arguments, timeout=60, options=("-X", "dev", "-W", "error"), environ=None):
    """Runs a program in a Python of its own."""
    return subprocess.run(
        [sys.executable, *options, *NO_HAZARD, "-c", code, *arguments],
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


def of_load(full):
    """How long a load lasts, or how much of it there is: all of it in `make stress`, a quarter in every `make test`."""
    return full if os.environ.get("MEMWATCH_STRESS") else full / 4


@pytest.fixture(name="of_load")
def _of_load():
    return of_load


def slowness():
    """How many times longer than on a fast machine at rest Python takes for its work now: at least 1."""
    times = []
    for _ in range(5):
        started = time.thread_time()
        for number in range(5000):
            {"name": f"name {number}", "numbers": [number, str(number)]}.get("name")
        times.append(time.thread_time() - started)
    return max(1.0, min(times) / 0.003)


@pytest.fixture(name="slowness")
def _slowness():
    return slowness


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


# --- what runs at the same time ---------------------------------------------------------------------------------------
#
# With pytest-xdist (-n) the tests run in several processes. Those of one file share a process, because of the fixtures
# that a file shares. Some directories share more, and the tests of some files share nothing.

TOGETHER = ("tests/dashboards", "tests/e2e")  # one world; one work tree to run make in
APART = ("tests/native/test_native.py", "tests/recorder/test_trouble.py", "tests/recorder/test_room.py")


def scope_of(nodeid):
    """The tests of one scope run in one process, in their order."""
    path = nodeid.partition("::")[0]
    directory = os.path.dirname(path)
    return nodeid if path in APART else directory if directory in TOGETHER else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        """One that also comes to an end when tests crash: not again those that did, and a new process gets to work."""

        def _split_scope(self, nodeid):
            return scope_of(nodeid)

        def remove_node(self, node):
            scopes = self.assigned_work.pop(node)
            left = [(scope, nodeid) for scope, tests in scopes.items() for nodeid, done in tests.items() if not done]
            if not left:
                return None
            crashed_scope, crashed = left[0]
            scopes[crashed_scope][crashed] = True
            self.workqueue.update({scope: tests for scope, tests in scopes.items() if not all(tests.values())})
            for other in self.assigned_work:
                self._reschedule(other)
            return crashed

        def schedule(self):
            super().schedule()
            for node in self.nodes:  # a process begins with its first scope when it has another, or is to be the last
                self._reschedule(node)

    return Scheduling(config, log)


@contextlib.contextmanager
def locked(path, how):
    """Holds an advisory lock."""
    with open(path, "w") as file:
        fcntl.flock(file, how)
        yield
        fcntl.flock(file, fcntl.LOCK_UN)  # children of the tests may have the file open for longer


@contextlib.contextmanager
def in_room(directory, alone):
    """With the others, or alone. Who waits to be alone keeps the door shut, so that nobody else comes in meanwhile."""
    with contextlib.ExitStack() as room:
        with locked(f"{directory}/door", fcntl.LOCK_EX):
            room.enter_context(locked(f"{directory}/room", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        yield


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: measures time that others would take: no other test runs meanwhile")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["room"] = str(node.config.cache.mkdir("room"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    shared = getattr(item.config, "workerinput", None)
    with in_room(shared["room"], item.get_closest_marker("alone")) if shared else contextlib.nullcontext():
        return (yield)
