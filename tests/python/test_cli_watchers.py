"""ps, open, tail, top, show, value, blame, discover: with real processes that watch and serve."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import memwatch

HEAD = ("PID", "SERVICE", "WORKER", "ADDRESS", "VARIABLES", "CHANGES/S", "LOST")

pytestmark = pytest.mark.skipif("exporter" in memwatch._native.missing, reason="no exporter here")

SERVICE = """
import sys, time
import memwatch

watcher = memwatch.MemoryWatcher()
data = memwatch.buffer(8)
watcher.watch(data, "data")
table = memwatch.empty((2, 3))
watcher.watch(table, "table")
secret = memwatch.buffer(8)
watcher.watch(secret, "api_token")
limit = 10
watcher.watch_name("limit")
watcher.watch(memwatch.buffer(1), "na\\x1b[31m\\nme")


def set_limit(value):
    global limit
    limit = value


def step(number):
    data[0] = number
    table[1, 2] = number + 0.5
    secret[0] = number
    set_limit(number)
    watcher.flush()


options = {} if len(sys.argv) < 3 else {"port": int(sys.argv[2])}
server = watcher.serve(**{"port": 0, "service": sys.argv[1], **options})
print(server.port, flush=True)
for line in sys.stdin:
    step(int(line))
    print("done", flush=True)
server.close()
watcher.close()
"""


class Service:
    """A process that watches; each number that it is told is a change of each of its variables."""

    def __init__(self, environ, name, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, name, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )  # fmt: skip
        self.port = int(self.process.stdout.readline())
        self.pid = self.process.pid
        self.url = f"http://127.0.0.1:{self.port}/"

    def step(self, number):
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture
def environ(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    return {**os.environ, "XDG_RUNTIME_DIR": str(directory), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def start(environ):
    started = []

    def start_service(name="web", *arguments):
        started.append(Service(environ, name, *arguments))
        return started[-1]

    yield start_service
    for each in started:
        each.end()


@pytest.fixture
def shell(environ):
    def run(*arguments, **more):
        return subprocess.run(
            [sys.executable, "-m", "memwatch", *map(str, arguments)],
            capture_output=True, text=True, timeout=60, check=False, env={**environ, **more}
        )  # fmt: skip

    return run


class Lines:
    """What a command that goes on prints."""

    def __init__(self, environ, wait_for, *arguments):
        self._wait_for = wait_for
        self.process = subprocess.Popen(
            [sys.executable, "-m", "memwatch", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
        )  # fmt: skip
        self.seen = []
        threading.Thread(target=lambda: self.seen.extend(iter(self.process.stdout.readline, "")), daemon=True).start()

    def wait(self, pattern):
        return self._wait_for(
            lambda: next((line for line in list(self.seen) if re.search(pattern, line)), None),
            what=f"{pattern} in {self.seen}",
        )

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture
def follow(environ, wait_for):
    running = []

    def begin(*arguments):
        running.append(Lines(environ, wait_for, *arguments))
        return running[-1]

    yield begin
    for each in running:
        each.process.kill()
        each.process.wait()
        each.process.stdout.close()


# --- ps ---------------------------------------------------------------------------------------------------------------


def ours(text, *services):
    """The lines about the services of this test: root sees everybody's."""
    return [line for line in text.splitlines() if any(str(each.pid) in line.split() for each in services)]


def test_ps_lists_who_watches_where(start, shell):
    one, two = start("web"), start("shop")
    done = shell("ps", "--seconds", "0")
    assert tuple(done.stdout.splitlines()[0].split()) == HEAD
    lines = ours(done.stdout, one, two)
    assert [line.split()[1] for line in lines] == ["shop", "web"]
    assert one.url in lines[1] and lines[1].split()[-3] == "5"
    assert (done.returncode, shell("ps", "nosuch").returncode) == (0, 1)


def test_ps_as_json(start, shell):
    one = start("web")
    one.step(1)
    [facts] = [json.loads(line) for line in shell("ps", "--json", one.pid).stdout.splitlines()]
    assert (facts["pid"], facts["service"], facts["address"], facts["variables"]) == (one.pid, "web", one.url, 5)
    assert facts["changes_per_second"] >= 0 and facts["lost"] == {}


def test_a_file_of_a_process_that_was_killed_is_passed_over_with_a_word(start, shell):
    dead = start("dead")
    dead.process.kill()
    dead.process.wait()
    done = shell("ps")
    assert not ours(done.stdout, dead)
    assert "passed over" in done.stderr or "no process" in done.stderr


def test_nobody_watches(shell):
    if os.geteuid() == 0:
        pytest.skip("root sees everybody's")
    done = shell("ps")
    assert done.returncode == 1 and "watcher.serve()" in done.stderr


def test_a_process_that_is_stopped_is_named(start, shell, monkeypatch):
    one = start("web")
    one.process.send_signal(signal.SIGSTOP)
    try:
        done = shell("ps", one.pid)
        assert done.returncode == 1
        assert re.search(rf"web\[{one.pid}\].*does not answer", done.stderr)
    finally:
        one.process.send_signal(signal.SIGCONT)


CONTAINER = """
mount -t tmpfs tmpfs /tmp
ip link set lo up
unset XDG_RUNTIME_DIR
exec "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and ip, to make a container")
def test_watchers_in_containers_are_found_and_asked(environ, shell):
    """With files, processes and a network of its own."""
    make = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "bash", "-euc", CONTAINER, "container"]
    process = subprocess.Popen(
        [*make, sys.executable, "-c", SERVICE, "boxed"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    )  # fmt: skip
    with process:
        if not process.stdout.readline():
            pytest.skip("no container can be made here")
        process.stdin.write("7\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        [facts] = [json.loads(line) for line in shell("ps", "boxed", "--json").stdout.splitlines()]
        assert facts["in_container"] and facts["file"].startswith("/proc/")
        with open(f"/proc/{facts['pid']}/cmdline") as file:
            assert "boxed" in file.read()
        assert "limit: 10 -> 7" in shell("tail", facts["pid"], "--once").stdout
        assert json.loads(shell("discover", "--json").stdout) == []
        process.stdin.close()


# --- open -------------------------------------------------------------------------------------------------------------


def test_open_prints_an_address_whose_code_is_good_once(start, shell):
    one = start("web")
    address = shell("open", one.pid).stdout.strip()
    base, code = address.split("#")
    assert base == one.url
    request = urllib.request.Request(f"{base}api/v1/token", headers={"Authorization": f"Memwatch-Code {code}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert len(json.load(answer)["token"]) >= 32
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(request, timeout=30)
    refused.value.close()


def test_open_asks_which_one(start, shell):
    one, two = start("web"), start("web")
    done = shell("open", "web")
    assert done.returncode == 1
    assert f"web[{one.pid}]" in done.stderr and f"web[{two.pid}]" in done.stderr
    assert len(shell("open", "web", "--all").stdout.splitlines()) == 2


# --- show, value, blame -----------------------------------------------------------------------------------------------


def test_show_lists_values_and_writers(start, shell):
    one = start()
    one.step(7)
    lines = shell("show", one.pid).stdout.splitlines()
    rows = {line.split("  ")[0]: line for line in lines}
    assert "[[0.0, 0.0, 0.0], [0.0, 0.0, 7.5]]" in rows["table"] and "step (<string>:24)" in rows["table"]
    assert "set_limit (<string>:19)" in rows["limit"] and " 7 " in rows["limit"]
    assert "(hash)" in rows["api_token"]
    assert "na\\x1b[31m\\nme" in rows


def test_letters_that_the_locale_has_not_are_shown_by_their_numbers(start, shell):
    service = start("sérv語")
    for command in (("ps",), ("show", service.pid), ("tail", service.pid, "--once"), ("top", service.pid)):
        done = shell(*command, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, (command, done.stderr)
        assert command[0] != "ps" or "v\\u8a9e" in done.stdout


def test_show_one_variable(start, shell):
    one = start()
    one.step(7)
    text = shell("show", one.pid, "table").stdout
    assert "table  d[2, 3], 48 bytes" in text and "table[1, 2]: 0.0 -> 7.5  by step" in text
    done = shell("show", one.pid, "tabel")
    assert done.returncode == 1 and "there are: data, table" in done.stderr


def test_value_now_at_a_time_and_after_an_event(start, shell, wait_for):
    one = start()
    one.step(7)
    first = json.loads(shell("tail", one.pid, "--once", "--json", "--name", "table").stdout.splitlines()[-1])
    one.step(9)
    assert shell("value", one.pid, "table").stdout == "[[0.0, 0.0, 0.0], [0.0, 0.0, 9.5]]\n"
    assert shell("value", "table", one.pid, "--seq", first["seq"]).stdout == "[[0.0, 0.0, 0.0], [0.0, 0.0, 7.5]]\n"
    at = str(first["time_ms"] / 1e3 + 0.001)
    [answer] = map(json.loads, shell("value", one.pid, "table", "--at", at, "--json").stdout.splitlines())
    assert answer["value"][1][2] in (7.5, 9.5)
    assert shell("value", one.pid, "data", "--raw").stdout.encode() == b"\x09" + bytes(7)


def test_value_of_a_name(start, shell):
    one = start()
    one.step(7)
    one.step(9)
    assert shell("value", one.pid, "limit").stdout == "9\n"
    events = map(json.loads, shell("tail", one.pid, "--once", "--json", "--name", "limit").stdout.splitlines())
    first, second = (event["seq"] for event in events)
    assert shell("value", one.pid, "limit", "--seq", first).stdout == "7\n"
    assert shell("value", one.pid, "limit", "--seq", second - 1).stdout == "7\n"


def test_a_value_that_is_hidden_is_not_shown(start, shell):
    one = start()
    one.step(7)
    done = shell("value", one.pid, "api_token")
    assert done.returncode == 1 and done.stdout == "" and "policy" in done.stderr


def test_blame_names_the_writer_of_each_part(start, shell):
    one = start()
    one.step(7)
    lines = shell("blame", one.pid, "table").stdout.splitlines()
    assert lines[0].split() == ["PART", "EVENT", "TIME", "WRITER"]
    assert re.search(r"^\[1, 2\]\s+\d+ .* step \(<string>:24\)", lines[-1])
    assert "not changed" in lines[1]
    assert "set_limit" in shell("blame", one.pid, "limit").stdout


@pytest.mark.parametrize("words", [["value"], ["value", "1", "2", "3"], ["blame"]])
def test_words_that_do_not_fit(shell, words):
    assert shell(*words).returncode == 2


# --- tail -------------------------------------------------------------------------------------------------------------


def test_tail_begins_with_the_last_lines_and_goes_on(start, follow):
    one = start()
    one.step(7)
    lines = follow("tail", one.pid, "--name", "table")
    assert "by step (<string>:24)" in lines.wait(r"table\[1, 2\]: 0.0 -> 7.5")
    one.step(9)
    lines.wait(r"table\[1, 2\]: 7.5 -> 9.5")
    assert not any("limit" in line for line in lines.seen)
    assert lines.interrupt() == 130
    assert "Traceback" not in "".join(lines.seen)


def test_tail_goes_on_with_the_process_that_took_the_place(start, follow):
    one = start("web")
    lines = follow("tail", "web", "--name", "limit", "--since", "0")
    one.step(7)
    lines.wait("limit: 10 -> 7")
    one.process.kill()
    one.process.wait()
    lines.wait(r"-- web\[\d+\] has ended; waiting")
    two = start("web")
    two.step(8)
    lines.wait(rf"-- web\[{two.pid}\] has started")
    lines.wait("limit: 10 -> 8")


def test_tail_goes_on_from_a_place(start, shell):
    one = start()
    for number in (1, 2, 3):
        one.step(number)
    events = [json.loads(line) for line in shell("tail", one.pid, "--once", "--json").stdout.splitlines()]
    epoch = json.loads(shell("ps", one.pid, "--json").stdout)["epoch"]
    place = f"{epoch}-{events[4]['seq']}"
    again = shell("tail", one.pid, "--once", "--json", "--since", place).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in again] == [event["seq"] for event in events[5:]]


def test_tail_tells_a_place_of_a_process_that_is_gone(start, follow):
    one = start()
    one.step(5)
    lines = follow("tail", one.pid, "--since", "0123456789abcdef-7", "--name", "limit")
    lines.wait("knows nothing of that place")
    lines.wait("limit: 10 -> 5")


def test_tail_of_an_address_elsewhere_needs_its_token(start, shell, environ):
    one = start()
    one.step(5)
    [file] = Path(environ["XDG_RUNTIME_DIR"]).glob("memwatch/*.json")
    found = json.loads(file.read_text())
    elsewhere = {"XDG_RUNTIME_DIR": "/nonexistent"}
    if os.geteuid() != 0:
        assert "token" in shell("tail", one.url, "--once", **elsewhere).stderr
    done = shell("tail", one.url, "--once", MEMWATCH_TOKEN=found["token"], **elsewhere)
    assert "limit: 10 -> 5" in done.stdout, done.stderr


def test_tail_of_several_says_whose_event_it_is(start, shell):
    one, two = start("web"), start("web")
    one.step(1)
    two.step(2)
    text = shell("tail", "web", "--once", "--name", "limit").stdout
    assert re.search(rf"web\[{one.pid}\]  limit: 10 -> 1\b", text)
    assert re.search(rf"web\[{two.pid}\]  limit: 10 -> 2\b", text)


@pytest.mark.parametrize("since", ["yesterday", "0123-7", "-5"])
def test_a_time_that_is_none(shell, since):
    done = shell("tail", f"--since={since}")
    assert done.returncode == 2 and "10m" in done.stderr


def test_nobody_reads_the_tail_any_more(start, environ):
    one = start()
    command = [sys.executable, "-m", "memwatch", "tail", str(one.pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


# --- top --------------------------------------------------------------------------------------------------------------


def test_top_prints_one_table_where_there_is_no_terminal(start, shell):
    one = start()
    one.step(7)
    lines = shell("top", one.pid, "--seconds", "0.2").stdout.splitlines()
    assert lines[0].split() == ["WATCHER", "NAME", "VALUE", "CHANGES/S", "LAST", "WRITER"]
    assert any(re.search(r"limit\s+7\s+0 .* set_limit", line) for line in lines)
    assert lines[-1] == "nothing was lost"


def test_top_counts_changes(start, environ):
    one = start()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "memwatch", "top", str(one.pid), "--plain", "--seconds", "0.2"]
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "env": {**environ, "TERM": "xterm"}}
    with subprocess.Popen(command, **terminal) as process:
        os.close(theirs)
        text, number = "", 0
        while not re.search(r"limit\s+\d+\s+[1-9]", text):
            number += 1
            one.step(number)
            if select.select([ours], [], [], 0.05)[0]:
                text += os.read(ours, 65536).decode()
            assert number < 3000
        os.write(ours, b"q")
        while True:
            try:
                if not os.read(ours, 65536):
                    break
            except OSError:
                break
        assert process.wait(30) == 0
    os.close(ours)


def test_top_with_textual(monkeypatch):
    pytest.importorskip("textual")
    import asyncio

    from textual.widgets import DataTable

    from memwatch._cli.rates import Row
    from memwatch._cli.top_screen import Screen

    looks = []

    def sample():
        looks.append(len(looks))
        rows = [Row("web[1]", "b\x1b[31m", str(len(looks)), 1.5, 1000, 2000, "f (a.py:1)")]
        return [*rows, Row("web[1]", "a", "[x](y)", 0.0, 0, 2000, "")], "nothing was lost"

    async def drive():
        app = Screen(sample, 0.1)
        async with app.run_test() as pilot:
            table = app.query_one(DataTable)
            while table.row_count < 2 or len(looks) < 3:
                await pilot.pause(0.05)
            assert [str(cell) for cell in table.get_row_at(0)][1] == "b\\x1b[31m"
            await pilot.press("n")
            while str(table.get_row_at(0)[1]) != "a":
                await pilot.pause(0.05)
            await pilot.press("q")

    asyncio.run(drive())


# --- discover ---------------------------------------------------------------------------------------------------------


def test_discover_tells_prometheus(start, shell):
    one = start("web")
    [group] = json.loads(shell("discover", "--json").stdout)
    assert group["targets"] == [f"127.0.0.1:{one.port}"]
    assert group["labels"]["__meta_memwatch_service"] == "web"
