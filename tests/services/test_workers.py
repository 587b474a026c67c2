"""Several processes of one service: ports, names, files of the dead, forks that are followed."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.conftest import ROOT, run_python

import memwatch

RUN = (sys.executable, "-X", "dev", "-c")
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "python")}


def get(server, path):
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


@pytest.fixture(name="default_port")
def _default_port():
    """Something listens on the default port, as another exporter would."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", 10764))
        except OSError:
            yield  # somebody of this machine has it: as good
            return
        holder.listen()
        yield


# --- ports and names --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("default_port")
def test_the_default_port_in_use_is_no_error(watched, tmp_path):
    server = watched.serve(runtime_dir=str(tmp_path))
    assert server.port not in (0, 10764)
    assert "memwatch_up 1" in get(server, "/metrics")


@pytest.mark.usefixtures("default_port")
def test_a_port_that_was_asked_for_is_an_error_that_says_what_to_do(watched, tmp_path):
    with pytest.raises(memwatch.Error, match=r"port 10764 .* in use: take another, or 0 for any"):
        watched.serve(port=10764, runtime_dir=str(tmp_path))


@pytest.mark.parametrize("given", ["arguments", "environment"])
def test_a_process_has_its_names_everywhere(watched, tmp_path, monkeypatch, given):
    names = {"service": "shop", "worker": "3", "labels": {"zone": "eu", "tier": 'a"b'}}
    if given == "environment":
        monkeypatch.setenv("MEMWATCH_SERVICE", "shop")
        monkeypatch.setenv("MEMWATCH_WORKER", "3")
        monkeypatch.setenv("MEMWATCH_LABELS", 'zone=eu,tier=a"b')
    server = watched.serve(port=0, runtime_dir=str(tmp_path), **(names if given == "arguments" else {}))
    for said in (json.loads(Path(server.discovery_file).read_text()), json.loads(get(server, "/api/v1/status"))):
        assert {name: said[name] for name in names} == names
        assert said["pid"] == os.getpid()
    line = f'memwatch_process_info{{pid="{os.getpid()}",service="shop",worker="3",zone="eu",tier="a\\"b"}} 1'
    assert line in get(server, "/metrics").splitlines()


def test_without_names_the_service_is_the_program(watched, tmp_path):
    server = watched.serve(port=0, runtime_dir=str(tmp_path))
    status = json.loads(get(server, "/api/v1/status"))
    assert status["service"].startswith("python")
    assert (status["worker"], status["labels"]) == (None, {})


@pytest.mark.parametrize(
    "labels",
    ["zone", "=eu", "zone=", "1zone=eu", "pid=1", "worker=1", "__a=b", "a=1,a=2", "a b=c", {"zone": "a,b"}, {1: "a"}],
)
def test_labels_that_are_none(watched, tmp_path, labels):
    with pytest.raises(ValueError, match="labels"):
        watched.serve(port=0, runtime_dir=str(tmp_path), labels=labels)


def test_names_that_are_too_long(watched, tmp_path):
    with pytest.raises(ValueError, match="service may have 127 bytes"):
        watched.serve(port=0, runtime_dir=str(tmp_path), service="x" * 128)


# --- files of the dead ------------------------------------------------------------------------------------------------

SERVE = """
import os, signal, sys
import memwatch
watcher = memwatch.MemoryWatcher()
data = bytearray(8)
watcher.watch(data, "data")
server = watcher.serve(port=0, runtime_dir=sys.argv[1])
print(server.discovery_file, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_who_comes_next_removes_the_files_of_the_dead(watched, tmp_path, how):
    with subprocess.Popen([*RUN, SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=ENV) as process:
        left = Path(process.stdout.readline().strip())
        assert left.exists()
        watched.serve(port=0, runtime_dir=str(tmp_path))
        assert left.exists(), "its process lives"
        process.send_signal(how)
    assert left.exists()
    mine = Path(watched.serve(port=0, runtime_dir=str(tmp_path)).discovery_file)
    assert mine.exists()
    assert not left.exists()


def said_by(pid, **other):
    own = {"process_start_ticks": 1, "pid_namespace": os.stat("/proc/self/ns/pid").st_ino}
    return json.dumps({"schema": 2, "pid": pid, "port": 1, "epoch": "0", "token": "t", **own, **other})


@pytest.mark.parametrize(
    ("text", "mode", "goes"),
    [
        (said_by(os.getpid()), 0o600, True),  # the pid is another's by now
        (said_by(2**22 + 7), 0o600, True),
        (said_by(2**22 + 7, pid_namespace=1), 0o600, False),  # another container's
        (said_by(2**22 + 7), 0o644, False),
        ("{", 0o600, False),
        ("[" * 9000, 0o600, False),
        ('{"pid": "x"}', 0o600, False),
        ('{"pid": 1e300}', 0o600, False),
    ],
)
def test_only_files_that_are_certainly_of_the_dead_go(watched, tmp_path, text, mode, goes):
    other = tmp_path / "9-9.json"
    other.write_text(text)
    other.chmod(mode)
    tmp_path.chmod(0o700)
    watched.serve(port=0, runtime_dir=str(tmp_path))
    assert other.exists() != goes


def test_what_is_no_file_stays(watched, tmp_path):
    tmp_path.chmod(0o700)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(said_by(2**22 + 7))
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to(elsewhere)
    os.link(elsewhere, tmp_path / "c.json")
    (tmp_path / "d.json").mkdir()
    watched.serve(port=0, runtime_dir=str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} >= {"a.json", "b.json", "c.json", "d.json", "elsewhere"}


# --- forks ------------------------------------------------------------------------------------------------------------

FORK = """
import json, os, sys, urllib.request
import memwatch
{before}
class Thing: pass
thing, data, seen = Thing(), memwatch.buffer(4096), []
thing.n, thing.array = 0, memwatch.buffer(64)
watcher = memwatch.MemoryWatcher(follow_fork=True)
own = bytearray(8)
watcher.watch(bytearray(8), "gone")
watcher.unwatch("gone")
ids = [watcher.watch(data, "data"), watcher.watch(own, "own", callback=lambda event: seen.append(("own", event.new)))]
watcher.watch_attr(thing, "n", alias="n")
watcher.watch_attr(thing, "array", alias="array")
watcher.set_callback(lambda event: seen.append((event.variable_name, bytes(event.new_value)[:1], event.where.line)))
server = watcher.serve(runtime_dir=sys.argv[1], token="t" * 32)
parent = (server.port, watcher.get_stats()["epoch"])
data[1] = 9
assert watcher.flush()
del seen[:]
def work():
    data[0] = 1; line = sys._getframe().f_lineno
    own[0] = 2
    thing.n = 3
    thing.array[0] = 4
    assert watcher.flush()
    wrote = [each[2] for each in seen if each[:2] == ("data", b"\\x01")]
    assert wrote in ([line], [None]), seen  # None: past the budget, as after the faults of a fork it may be
    assert ("own", bytes(own)) in seen, seen
    assert {{name for name, *_ in seen}} == {{"data", "own", "n", "array"}}, seen
    assert sorted(event.seq for event in watcher.history("data")) == [watcher.history("data")[0].seq]
    thing.array = memwatch.buffer(32)
    assert watcher.flush()
    thing.array[5] = 6
    assert watcher.flush()
    assert seen[-1][0] == "array", seen
    assert (server.port, watcher.get_stats()["epoch"]) != parent and server.port != parent[0]
    request = urllib.request.Request(f"http://127.0.0.1:{{server.port}}/api/v1/status", None,
                                     {{"Authorization": "Bearer " + "t" * 32}})
    with urllib.request.urlopen(request) as answer:
        status = json.load(answer)
    assert (status["pid"], status["forks_unwatched"]) == (os.getpid(), 0), status
    assert os.path.exists(server.discovery_file) and str(os.getpid()) in server.discovery_file
    for region_id in ids:
        assert watcher.unwatch(region_id)
    watcher.close()
    assert server.discovery_file is None or not os.path.exists(server.discovery_file)
{run}
assert not seen, seen
data[2] = 1
assert watcher.flush()
assert [name for name, *_ in seen] == ["data"]
assert watcher.get_stats()["forks_unwatched"] == 0
"""

OS_FORK = """
process = os.fork()
if process == 0:
    try:
        work()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
assert os.waitpid(process, 0)[1] == 0
"""
MULTIPROCESSING = """
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
assert process.exitcode == 0
"""


@pytest.mark.parametrize("run", [OS_FORK, MULTIPROCESSING], ids=["os.fork", "multiprocessing"])
@pytest.mark.parametrize("before", ["", "import threading; threading.Thread(target=lambda: None).start()"])
def test_a_fork_is_followed(tmp_path, run, before):
    tmp_path.chmod(0o700)
    result = run_python(FORK.format(run=run, before=before), str(tmp_path), options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr
    assert not result.stderr


def test_a_followed_fork_of_a_followed_fork(tmp_path):
    code = FORK.format(run=OS_FORK, before="").replace(
        "process = os.fork()\n",
        "process = os.fork()\nif process == 0:\n    process = os.fork()\n"
        "    if process: os._exit(os.waitpid(process, 0)[1] >> 8)\n",
    )
    tmp_path.chmod(0o700)
    result = run_python(code, str(tmp_path), options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("option", ["follow_fork=True, history_path=sys.argv[1]", "history_path=sys.argv[1]"])
def test_a_followed_fork_has_a_recording_of_its_own(tmp_path, option):
    code = f"""
import os, sys
import memwatch
data = memwatch.buffer(4096)
watcher = memwatch.MemoryWatcher({option})
watcher.watch(data, "data")
for i in range(3):
    process = os.fork()
    if process == 0:
        data[0] = 5
        if "follow" in {option!r}:
            watcher.close()
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0
data[1] = 1
watcher.close()
"""
    result = run_python(code, str(tmp_path / "file.memwatch"), options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr
    follows = option.startswith("follow")
    with memwatch.open_history(str(tmp_path / "file.memwatch")) as history:
        assert len(list(history.events("data"))) == 1
    assert (tmp_path / "file.memwatch.1").exists() == follows
    assert not (tmp_path / "file.memwatch.2").exists(), "the first child's number was free again"
    if follows:
        with memwatch.open_history(str(tmp_path / "file.memwatch.1")) as history:
            assert [event.new_value[0] for event in history.events("data")] == [5, 5, 5]


UNFOLLOWED = """
import logging, os, sys
import memwatch
logging.basicConfig(format="%(name)s %(levelname)s %(process)d %(message)s", stream=sys.stdout)
data = memwatch.buffer(4096)
watcher = memwatch.MemoryWatcher()
{watch}
for i in range(3):
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    print("child", process, flush=True)
print("forks", watcher.get_stats()["forks_unwatched"])
"""


def test_a_fork_that_is_not_followed_is_counted_and_told_once():
    result = run_python(UNFOLLOWED.format(watch='watcher.watch(data, "data")'), options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr
    told, first, *_, forks = result.stdout.splitlines()
    assert told.startswith(f"memwatch WARNING {first.split()[1]} ")
    assert "follow_fork=True" in told
    assert forks == "forks 3"
    assert result.stdout.count("memwatch WARNING") == 1


def test_who_watches_nothing_is_told_nothing():
    result = run_python(UNFOLLOWED.format(watch=""), options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stdout


def test_what_cannot_be_followed_is_told_and_the_rest_is_watched():
    code = """
import array, os
import memwatch
data, other = array.array("d", [0]), memwatch.buffer(4096)
watcher = memwatch.MemoryWatcher(follow_fork=True)
watcher.watch(data, "data", when=("gt", 1))
watcher.watch(other, "other")
watcher._regions[next(iter(watcher._regions))].again.options["when"] = "nonsense"
process = os.fork()
if process == 0:
    other[0] = 1
    assert watcher.flush() and [event.new_value[0] for event in watcher.history("other")] == [1]
    os._exit(0)
assert os.waitpid(process, 0)[1] == 0
"""
    result = run_python(code, options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr
    assert "is not watched:" in result.stderr


def test_follow_fork_by_the_environment(monkeypatch):
    monkeypatch.setenv("MEMWATCH_FOLLOW_FORK", "yes")
    with memwatch.MemoryWatcher() as watcher:
        assert watcher._follows
    monkeypatch.setenv("MEMWATCH_FOLLOW_FORK", "maybe")
    with pytest.raises(ValueError, match=r"MEMWATCH_FOLLOW_FORK='maybe'.*yes or no"):
        memwatch.MemoryWatcher()


def test_the_status_and_the_page_tell_of_forks(watched, tmp_path):
    data = memwatch.buffer(64)
    watched.watch(data, "data")
    server = watched.serve(port=0, runtime_dir=str(tmp_path))
    logging.getLogger("memwatch").setLevel(logging.CRITICAL)
    try:
        process = os.fork()
        if process == 0:
            os._exit(0)
        os.waitpid(process, 0)
    finally:
        logging.getLogger("memwatch").setLevel(logging.NOTSET)
    assert json.loads(get(server, "/api/v1/status"))["forks_unwatched"] == 1
    assert "memwatch_forks_unwatched_total 1" in get(server, "/metrics")
    page = "".join(path.read_text() for path in (ROOT / "exporter" / "page").glob("*.js"))
    assert "forks_unwatched" in page, "the page says it"


def test_sub_interpreters():
    """One that shares the main one's GIL watches; one of its own gets an exception, and the main one goes on."""
    code = """
import sys
try:
    import _interpreters as interpreters
    legacy, isolated, run = interpreters.create("legacy"), interpreters.create("isolated"), interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    legacy, isolated, run = interpreters.create(isolated=False), interpreters.create(), interpreters.run_string
inside = '''
import warnings
warnings.simplefilter("ignore")
try:
    import memwatch
    data, seen = memwatch.buffer(64), []
    with memwatch.MemoryWatcher() as watcher:
        watcher.watch(data, "data", callback=seen.append)
        data[0] = 1
        assert watcher.flush()
    print("watched", len(seen), flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
'''
import memwatch
for each in (legacy, isolated):
    run(each, inside)
    interpreters.destroy(each)
data, seen = memwatch.buffer(64), []
with memwatch.MemoryWatcher() as watcher:
    watcher.watch(data, "data", callback=seen.append)
    data[0] = 1
    assert watcher.flush() and len(seen) == 1
print("main", len(seen))
"""
    result = run_python(code, options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr
    legacy, isolated, main = result.stdout.splitlines()
    assert main == "main 1"
    assert isolated in ("RuntimeError", "ImportError", "watched 1")
    assert legacy in ("watched 1", "RuntimeError", "ImportError")
    if sys.version_info < (3, 12):
        assert legacy == "watched 1"
