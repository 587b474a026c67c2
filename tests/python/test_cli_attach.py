"""memwatch attach and detach: with processes that run already, whatever their main thread does."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

import memwatch
from memwatch._cli import inject, preflight
from memwatch._cli.frame import Failure

MODULE = """
import threading
import time

limit = 0
data = bytearray(65536)
heard = []
lock = threading.Lock()


def change():
    global limit
    limit += 1
    data[9000] = limit % 256
"""
PROGRAM = """
import sys
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
import os, select, signal, sys, threading, time
import settings

first = threading.Thread(target=time.sleep, args=(0,))
first.start()  # the C library takes a signal of its own with the first thread
while len(os.listdir("/proc/self/task")) > 1:  # a thread that is joined may not be gone
    time.sleep(0.001)


def work():
    while True:
        settings.change()
        time.sleep(0.02)


def storm():
    while True:
        os.kill(os.getpid(), signal.SIGTRAP)
        os.kill(os.getpid(), signal.SIGINT)
        settings.change()
        time.sleep(0.001)


how = sys.argv[1]
if how in ("deep", "storm"):
    for number in (signal.SIGINT, signal.SIGTRAP):
        signal.signal(number, lambda number, frame: settings.heard.append(number))
if how in ("lock", "select", "sleep", "storm"):
    threading.Thread(target=storm if how == "storm" else work, daemon=True).start()
print("ready", flush=True)
if how == "lock":
    settings.lock.acquire()
    settings.lock.acquire()
elif how in ("select", "storm"):
    select.select([sys.stdin], [], [])
elif how == "sleep":
    time.sleep(1000)
elif how == "gevent":
    import gevent
    gevent.spawn(work)
    gevent.sleep(1000)
elif how == "names":
    open = exec = compile = None
    work()
elif how == "threads":
    import ctypes
    threading.Thread(target=work, daemon=True).start()
    ctypes.CDLL(None).pthread_exit(None)
elif how == "deep":
    sum(range(250_000_000))  # no other Python runs meanwhile
    print("back", flush=True)
    work()
elif how == "gil":
    sys.setswitchinterval(1000)  # who waits for the GIL wakes up as seldom

    end = time.monotonic() + 8

    def hold():
        while time.monotonic() < end:
            sum(range(1_000_000))
            time.sleep(0)
        work()

    for _ in range(8):
        threading.Thread(target=hold, daemon=True).start()
    while True:
        time.sleep(0.001)
elif how == "busy":
    while True:
        settings.change()
        sum(range(20000))
else:
    work()
"""

needs_a_way = pytest.mark.skipif(
    sys.version_info < (3, 14) and shutil.which("gdb") is None, reason="no gdb here, and no sys.remote_exec"
)
needs_parts = pytest.mark.skipif(bool(memwatch._native.missing), reason="no extension or no exporter here")


@pytest.fixture
def environ(tmp_path):
    (tmp_path / "settings.py").write_text(MODULE)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "run").mkdir(mode=0o700)
    return {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run"), "NO_COLOR": "1"}


@pytest.fixture
def start(tmp_path, environ):
    started = []

    def run(how, *options, **more):
        process = subprocess.Popen(
            [sys.executable, *options, "program.py", how],
            cwd=tmp_path, env={**environ, **more}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


@pytest.fixture
def shell(environ):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "memwatch", *map(str, arguments)],
            capture_output=True, text=True, timeout=110, check=False, env=environ
        )  # fmt: skip

    return run


def left(pid):
    """Threads, descriptors and signals of a process."""
    with open(f"/proc/{pid}/status") as file:
        signals = re.findall(r"^(Sig(?:Cgt|Ign|Blk)):\s+(\w+)$", file.read(), re.M)
    return len(os.listdir(f"/proc/{pid}/task")), sorted(os.listdir(f"/proc/{pid}/fd")), signals


def tracer(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"^TracerPid:\s+(\d+)$", file.read(), re.M).group(1))


@needs_a_way
@needs_parts
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["often", "busy", "sleep", "lock", "select"])
def test_the_writer_is_named_and_nothing_is_left(start, shell, wait_for, how):
    if how == "lock" and sys.version_info >= (3, 14):
        pytest.skip("sys.remote_exec does not reach a main thread that waits for a lock")
    process = start(how)
    before = left(process.pid)
    done = shell("attach", process.pid, "--watch", "settings:data,settings:limit", "--port", 0, "--timeout", 90)
    assert done.returncode == 0, done.stderr
    assert re.match(rf"2 variables watched in process {process.pid}, http://127.0.0.1:\d+/#\w+\n$", done.stdout)

    def writers():
        lines = shell("tail", process.pid, "--once", "--json", "-n", "200", "--name", "settings.*").stdout.splitlines()
        return [(each["name"], each["where"]["function"], each["where"]["line"]) for each in map(json.loads, lines)]

    wait_for(lambda: ("settings.data", "change", 14) in writers(), 60, "the writer of the memory")
    if how in ("often", "busy") or sys.version_info >= (3, 12):  # sys.settrace is a thread's own
        wait_for(lambda: ("settings.limit", "change", 13) in writers(), 60, "who bound the name")
    done = shell("detach", process.pid, "--timeout", 90)
    assert (done.returncode, done.stdout) == (0, f"process {process.pid} is left as it was\n"), done.stderr
    wait_for(lambda: left(process.pid) == before, 30, "threads, descriptors and signals as they were")
    assert process.poll() is None


@needs_a_way
@needs_parts
@pytest.mark.timeout(300)
def test_it_can_be_attached_to_twice_and_again(start, shell):
    process = start("often")
    attach = ("attach", process.pid, "--no-serve", "--json", "--timeout", 90, "--watch")
    assert json.loads(shell(*attach, "settings:data").stdout)["watched"] == ["settings.data"]
    said = json.loads(shell(*attach, "program:how,settings:nosuch").stdout)
    assert said["watched"] == ["settings.data", "program.how"] and said["missing"] == ["settings:nosuch"]
    assert shell("detach", process.pid, "--timeout", 90).returncode == 0
    again = shell("detach", process.pid, "--timeout", 90)
    assert again.returncode == 1 and "nothing was attached" in again.stderr
    assert json.loads(shell(*attach, "settings:limit").stdout)["watched"] == ["settings.limit"]


@needs_a_way
@needs_parts
@pytest.mark.timeout(300)
def test_a_storm_of_signals_ends_nobody(start, shell):
    process = start("storm")
    for _ in range(3):
        done = shell("attach", process.pid, "--no-serve", "--timeout", 90, "--watch", "settings:data,settings:limit")
        assert done.returncode == 0, done.stderr
        done = shell("detach", process.pid, "--timeout", 90)
        assert (done.returncode, process.poll()) == (0, None), done.stderr


@needs_a_way
@needs_parts
@pytest.mark.timeout(300)
def test_a_main_thread_that_waits_for_the_gil_is_not_called_into(start, shell):
    """Its lock is taken: it would wait within the wait, and so would everybody."""
    process = start("gil")
    done = shell("attach", process.pid, "--no-serve", "--timeout", 90, "--watch", "settings:data")
    assert (done.returncode, process.poll()) == (0, None), done.stderr
    done = shell("detach", process.pid, "--timeout", 90)
    assert (done.returncode, process.poll()) == (0, None), done.stderr


@needs_a_way
@needs_parts
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["gevent", "names"])
def test_the_programs_own_threads_and_names_do_not_matter(start, shell, wait_for, how):
    """gevent makes a greenlet of a thread, and `from os import *` another open."""
    if how == "gevent":
        pytest.importorskip("gevent")
    process = start(how)
    before = left(process.pid)
    for _ in range(2):
        done = shell("attach", process.pid, "--no-serve", "--timeout", 90, "--watch", "settings:data,settings:limit")
        assert done.returncode == 0, done.stderr
        done = shell("detach", process.pid, "--timeout", 90)
        assert (done.returncode, process.poll()) == (0, None), done.stderr
    if how != "gevent":
        wait_for(lambda: left(process.pid) == before, 30, "threads, descriptors and signals as they were")


def listens(pid):
    """Whether it waits for an answer; from 3.14 on, since before it has a socket earlier than its tracer."""
    if sys.version_info < (3, 14):
        return False
    with contextlib.suppress(OSError):  # a descriptor that was closed meanwhile
        return any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:") for fd in os.listdir(f"/proc/{pid}/fd"))
    return False


def changed_code(pid):
    """Where the code in a process is not what its files hold."""
    changed = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            found = re.match(r"(\w+)-(\w+) r-xp (\w+) \S+ \d+ +(/\S*/(?:libpython|python|libc\.)\S*)$", line)
            if found is not None:
                begin, end, offset = (int(found[n], 16) for n in (1, 2, 3))
                memory.seek(begin)
                with open(found[4], "rb") as file:
                    file.seek(offset)
                    code = file.read(end - begin)
                changed += [found[4]] if memory.read(len(code)) != code else []
    return changed


@needs_a_way
@needs_parts
@pytest.mark.timeout(1200)
def test_attach_that_is_killed_leaves_nothing(start, shell, wait_for, environ):
    process = start("often")
    dice = random.Random(1)
    for _ in range(20 if os.environ.get("MEMWATCH_STRESS") else 4):
        attach = [sys.executable, "-m", "memwatch", "attach", str(process.pid), "--no-serve", "--timeout", "90"]
        with subprocess.Popen(
            [*attach, "--watch", "settings:data"], stderr=subprocess.DEVNULL, env=environ
        ) as attaching:
            if dice.random() < 0.7:  # as soon as it is in the process
                wait_for(lambda: tracer(process.pid) or attaching.poll() is not None, 60, "a tracer")
            time.sleep(dice.uniform(0, 0.6))
            attaching.send_signal(dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        assert process.poll() is None
    wait_for(lambda: tracer(process.pid) == 0, 60, "no tracer")
    done = shell("attach", process.pid, "--no-serve", "--timeout", 90, "--watch", "settings:data")
    assert done.returncode == 0, done.stderr
    assert shell("detach", process.pid, "--timeout", 90).returncode == 0
    assert (changed_code(process.pid), process.poll()) == ([], None)


@needs_a_way
@needs_parts
@pytest.mark.timeout(300)
def test_a_time_that_is_over_ends_nobody(start, shell):
    """Whatever gdb is about at that time."""
    process = start("often")
    for timeout in (0.1, 0.2, 0.3, 0.4):
        shell("attach", process.pid, "--no-serve", "--timeout", timeout, "--watch", "settings:data")
        assert (process.poll(), tracer(process.pid), changed_code(process.pid)) == (None, 0, [])


@needs_a_way
@needs_parts
@pytest.mark.timeout(300)
@pytest.mark.parametrize("ended", ["by its time", "by the user"])
def test_a_main_thread_that_never_comes_by_is_left_as_it_was(start, shell, wait_for, environ, ended):
    process = start("deep")
    attach = [sys.executable, "-m", "memwatch", "attach", str(process.pid), "--no-serve", "--watch", "settings:data"]
    attach += ["--timeout", "1" if ended == "by its time" else "90"]
    with subprocess.Popen(attach, stderr=subprocess.PIPE, text=True, env=environ) as attaching:
        if ended == "by the user":
            wait_for(lambda: tracer(process.pid) or listens(attaching.pid), 30, "a tracer, or who waits for an answer")
            attaching.send_signal(signal.SIGINT)
        said = attaching.stderr.read()
    assert attaching.returncode != 0 and ("in time" in said or ended == "by the user")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "back\n" and process.poll() is None
    attach = ("attach", process.pid, "--no-serve", "--json", "--timeout", 90, "--watch", "settings:data,settings:heard")
    assert json.loads(shell(*attach).stdout)["watched"] == ["settings.data", "settings.heard"]
    assert process.poll() is None


# --- what is missing --------------------------------------------------------------------------------------------------


def test_a_process_that_is_not_there(shell):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for arguments in (["attach", process.pid, "--watch", "a:b"], ["detach", process.pid]):
        done = shell(*arguments)
        assert done.returncode == 1 and f"there is no process {process.pid}" in done.stderr


def test_a_program_that_is_no_python(shell):
    with subprocess.Popen(["sleep", "100"]) as process:
        done = shell("attach", process.pid, "--watch", "a:b")
        process.kill()
    assert done.returncode == 1 and "is no CPython" in done.stderr


def test_a_process_whose_main_thread_has_ended(start, shell, wait_for):
    process = start("threads")
    wait_for(lambda: preflight.target_of(process.pid).status["State"][:1] == "Z", 60, "the end of the thread")
    done = shell("attach", process.pid, "--check")
    assert done.returncode == 1 and "goes on without its main thread" in done.stdout
    assert process.poll() is None


def test_a_process_that_is_stopped(start, shell):
    process = start("often")
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 30
    while preflight.target_of(process.pid).status["State"][:1] != "T" and time.monotonic() < deadline:
        time.sleep(0.01)
    done = shell("attach", process.pid, "--check")
    assert done.returncode == 1 and f"no  process {process.pid} is stopped: kill -CONT" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_another_users_process(start, monkeypatch):
    process = start("often")
    monkeypatch.setattr(preflight, "_effective_capabilities", lambda: 0)
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 12345)
    [*_, last] = preflight.checks(process.pid)
    assert last.sentence == f"process {process.pid} is user 0's: become that user, or root"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have another user's process")
@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="no Python here that others may run")
def test_an_interpreter_that_its_user_can_change_is_not_run():
    """Root would run whatever that user calls a Python."""
    system = os.path.realpath("/usr/bin/python3")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        own = shutil.copy(system, folder)
        os.chown(own, 12345, 12345)
        for executable, good in ((system, True), (own, False)):
            with subprocess.Popen(
                [executable, "-c", "print('ready', flush=True); input()"], cwd="/", user=12345, group=12345,
                extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONHOME": "/usr"},
            ) as process:  # fmt: skip
                assert process.stdout.readline() == b"ready\n"
                checks = list(preflight.checks(process.pid))
                process.communicate(b"\n")
            (check,) = [check for check in checks if check.sentence.startswith("its interpreter")]
            assert check.good == good, check
            assert good or "sudo -u '#12345'" in check.sentence
        os.chown(own, 0, 0)
        os.chmod(own, 0o777)
        assert not preflight._is_systems(own)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have another user's process")
def test_root_writes_nothing_through_links_of_the_other_user(tmp_path, monkeypatch):
    """Who is given the folder puts a link in the place of the script at once."""
    victim = tmp_path / "roots"
    victim.write_text("root's")
    victim.chmod(0o640)
    chown, planted = os.chown, []

    def attacked(path, uid, gid, **more):
        chown(path, uid, gid, **more)
        if os.path.isdir(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}/script.py")
            os.symlink(victim, f"{path}/script.py")
            planted.append(path)

    monkeypatch.setattr(inject.os, "chown", attacked)
    monkeypatch.setattr(inject, "_by_gdb", lambda *_: None)
    monkeypatch.setattr(inject, "_by_interpreter", lambda *_: None)
    target = preflight.target_of(os.getpid())
    theirs = target._replace(status={**target.status, "Uid": "12345\t12345", "Gid": "12345\t12345"})
    with pytest.raises((Failure, OSError)):
        inject.run_inside(theirs, "detach", None, 0.2)
    info = victim.stat()
    assert planted and victim.read_text() == "root's"
    assert (info.st_uid, info.st_mode & 0o777) == (0, 0o640)


@pytest.mark.parametrize(("scope", "good"), [("0", True), ("1", False), ("2", False), ("3", False)])
def test_ptrace_scope(start, monkeypatch, scope, good):
    read = preflight._read
    monkeypatch.setattr(preflight, "_read", lambda path: scope if path.endswith("ptrace_scope") else read(path))
    monkeypatch.setattr(preflight, "_effective_capabilities", lambda: 0)
    check = preflight._scope()
    assert check.good == good and f"ptrace_scope is {scope}" in check.sentence


def test_no_gdb(start, monkeypatch):
    if sys.version_info >= (3, 14):
        pytest.skip("this Python needs none")
    process = start("often")
    monkeypatch.setenv("PATH", "/nonexistent")
    sentences = [check.sentence for check in preflight.checks(process.pid) if not check.good]
    assert any("apt-get install gdb" in sentence for sentence in sentences)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before 3.14 there is nothing to switch off")
@pytest.mark.parametrize("way", [{"options": ("-X", "disable-remote-debug")}, {"PYTHON_DISABLE_REMOTE_DEBUG": "1"}])
def test_remote_debugging_is_switched_off(start, way):
    options = way.pop("options", ())
    process = start("often", *options, **way)
    assert any("refuses sys.remote_exec" in check.sentence for check in preflight.checks(process.pid) if not check.good)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a container")
def test_a_container_is_attached_to_from_inside(monkeypatch, shell):
    command = ["unshare", "--mount", sys.executable, "-c", "print('ready', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout.readline() == "ready\n":
            assert f"nsenter -t {process.pid}" in shell("attach", process.pid, "--check").stdout
        process.kill()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["attach", "self", "--watch", "a:b"], "is no process id"),
        (["attach", "1"], "nothing to watch"),
        (["attach", "1", "--watch", "a.b"], "did you mean a:b?"),
        (["detach"], "PID"),
    ],
)
def test_misuse(shell, arguments, sentence):
    done = shell(*arguments)
    assert done.returncode == 2 and sentence in done.stderr
