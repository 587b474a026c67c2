"""Nothing that happens to the file harms the host, and what is read is right or an error."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import pytest

import memwatch

MIB = 1 << 20

# Writes number[0] = 1, 2, 3, ... and says after each which one is an event.
WRITER = """
import sys, time, numpy
from memwatch import _core_recorder
from memwatch._native import core
watcher = core.Watcher(patches=True)
recorder = _core_recorder.Recorder(watcher, sys.argv[1], max_bytes=16 << 20, commit_ms=100)
number, large = numpy.zeros(1, "i8"), numpy.zeros(100_000, "i8")
watcher.region_add(number, "number")
watcher.region_add(large, "large")
value = 0
while True:
    value += 1
    number[0] = value
    large[value % 100_000] = value
    watcher.flush(5)
    print(value, recorder.stats()["committed_seq"], flush=True)
"""


@pytest.fixture
def start_writer(path):
    """Starts processes that write; they are killed in the end."""
    started = []

    def start(code=WRITER):
        started.append(subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for writer in started:
        writer.kill()
        writer.communicate()


# Writes as fast as it can: numbers count up, an array is filled; says when each number was written.
STORM = """
import sys, time, numpy
from memwatch import _core_recorder
from memwatch._native import core
watcher = core.Watcher(patches=True)
recorder = _core_recorder.Recorder(watcher, sys.argv[1], max_bytes=1 << 22, commit_ms=100)
numbers, large = numpy.zeros(50), numpy.zeros(20_000, "i8")
for at in range(50):
    watcher.region_add(numbers[at : at + 1], f"number {at}")
watcher.region_add(large, "large")
step = 0
while True:
    step += 1
    numbers[:] = step
    large[step * 7 % 20_000] = step
    watcher.flush(5)
    print(step, time.time_ns(), recorder.stats()["committed_seq"], flush=True)
"""


def check_chain(history, run):
    """Each event begins with what the one before it left."""
    last, newest_ns = {}, 0
    for event in history.events("number *", run=run):
        assert event.old_value == last.get(event.variable_name, event.old_value)
        last[event.variable_name] = event.new_value
        newest_ns = max(newest_ns, event.detected_ns)
    seqs = [event.seq for event in history.events(run=run)]
    assert seqs == list(range(seqs[0], seqs[-1] + 1))
    return newest_ns


@pytest.mark.timeout(600)
def test_kill_9_at_any_moment(path, start_writer, of_load):
    """The pause is random, so a kill hits the middle of a commit now and then; the file goes on from kill to kill."""
    generator = random.Random(20261126)
    for _ in range(int(of_load(200) * 0.4)):
        writer = start_writer(STORM)
        while not int(writer.stdout.readline().split()[2]):
            pass
        time.sleep(generator.uniform(0.2, 0.8))
        writer.kill()
        lines = writer.stdout.read().splitlines()
        writer.wait()
        with memwatch.open_history(path) as history:
            assert history.check() == []
            run = history.runs[-1].run
            told_ns = int(lines[-2].split()[1]) if len(lines) > 1 else 0
            assert told_ns - check_chain(history, run) < 1_000_000_000
            large = history.value_at("large")
            newest = int(large.max())
            assert all(large[step * 7 % 20_000] == step for step in range(max(1, newest - 19_999), newest + 1))


def test_kill_9_while_it_writes(path, start_writer):
    for killed in (1, 2, 3):
        writer = start_writer()
        last = committed = 0
        while last < 300 * killed or committed < 2:  # the first commit may hold one of the two variables
            last, committed = map(int, writer.stdout.readline().split())
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout.read().splitlines():
            last, committed = map(int, line.split())
        writer.wait()
        with memwatch.open_history(path) as history:
            run = history.runs[-1]
            assert (run.run, run.end_ns, run.live) == (killed, 0, False)
            value = history.value_at("number")[0]
            assert 0 < value <= last + 1
            event = list(history.events(run=killed))[-1]
            assert event.seq == run.newest_seq == run.events_written >= committed
            large = history.value_at("large")
            for earlier in range(1, value):
                assert large[earlier] == earlier


def damage(path, copy, generator):
    """A copy with some bytes changed, in the pages that are used."""
    shutil.copyfile(path, copy)
    used = 2 * 4096 + os.stat(path).st_blocks * 512
    with open(copy, "r+b") as file:
        for _ in range(generator.choice((1, 1, 2, 20))):
            file.seek(generator.randrange(min(used, 1 << 19)))
            file.write(generator.randbytes(generator.choice((1, 2, 8, 4096))))


# On a busy machine they leave the last copies alone: a copy may take it twenty seconds.
READER = """
import sys, time, memwatch
began = time.monotonic()
for path in sys.argv[1:]:
    if time.monotonic() - began > 50:
        break
    try:
        with memwatch.open_history(path) as history:
            for region in history.regions:
                for seq in range(region.first_seq, region.last_seq, 37):
                    try:
                        history.value_at(region.name, seq=seq, raw=True)
                    except (KeyError, memwatch.Error):
                        pass
            n = sum(1 for event in history.events() if repr(event))
            print("read", n)
    except (memwatch.Error, KeyError) as error:
        print("refused", error)
"""

APPENDER = """
import sys, time
from memwatch import _core_recorder
from memwatch._native import core
began = time.monotonic()
for path in sys.argv[1:]:
    if time.monotonic() - began > 50:
        break
    watcher = core.Watcher(patches=True)
    recorder = _core_recorder.Recorder(watcher, path, max_bytes=1 << 20, commit_ms=1, sync=False)
    data = bytearray(64)
    watcher.region_add(data, "data")
    for step in range(1, 8):
        data[step] = step
        watcher.flush(5)
    while not recorder.flush(0.01) and not recorder.stats()["errors"]:
        pass
    print(recorder.stats()["state"], recorder.stats()["message"])
    recorder.close()
    watcher.close()
"""


@pytest.mark.parametrize(("program", "n_copies"), [(READER, 200), (APPENDER, 100)], ids=["read", "append"])
def test_damaged_files_are_refused_or_read_and_never_harm(sample, tmp_path, of_load, program, n_copies):
    generator = random.Random(int(os.environ.get("MEMWATCH_DAMAGE_SEED", "20261122")))
    copies = [tmp_path / f"copy{number}" for number in range(int(of_load(n_copies)))]
    for copy in copies:
        damage(sample, copy, generator)
    options = ["-X", "faulthandler", "-c", program]
    run = subprocess.run(
        [sys.executable, *options, *map(str, copies)], capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines
    if program == READER:
        assert all(line.startswith(("read ", "refused ")) for line in lines), lines
    else:
        assert all("damaged" in line or line.startswith("recording") for line in lines), lines
    if len(lines) == len(copies):
        n_noticed = sum("refused" in line or "damaged" in line for line in lines)
        assert n_noticed > (len(lines) / 8 if program == READER else 0)


@pytest.mark.parametrize("content", [b"some text of the user's", b"x" * 100_000, bytes(100_000)])
def test_a_file_that_is_no_recording_is_not_touched(watch, path, wait_for, content):
    path.write_bytes(content)
    watched = watch()
    stats = wait_for(lambda: watched.stats()["errors"] and watched.stats())
    assert stats["state"] == "failing"
    assert "no recording" in stats["message"] or "damaged" in stats["message"]
    watched.close()
    assert path.read_bytes() == content
    with pytest.raises(memwatch.Error, match=r"no recording|damaged"):
        memwatch.open_history(path)


def test_a_truncated_file(sample, tmp_path):
    copy = tmp_path / "copy"
    for size in (0, 1, 4096, 8192, 12288, 50_000):
        shutil.copyfile(sample, copy)
        os.truncate(copy, size)
        with pytest.raises(memwatch.Error):
            memwatch.open_history(copy)


@pytest.mark.parametrize("size", [0, 50, 4096, 8192, 20_000])
def test_the_file_is_cut_while_it_is_written(watch, path, wait_for, size):
    watched = watch()
    data = bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.commit()
    os.truncate(path, size)
    data[0] = 2
    watched.settle()
    wait_for(lambda: watched.stats()["errors"])
    assert re.search("damaged|moved away or emptied", watched.stats()["message"])
    watched.commit()
    with memwatch.open_history(path) as history:
        assert history.value_at("data")[0] == 2
    assert watched.stats()["events_missed"] == 0
    if size:
        assert path.with_name("recording.damaged").stat().st_size >= size


def test_the_file_is_moved_away(watch, path):
    watched = watch()
    data = bytearray(8)
    watched.add(data, "data")
    for value in (1, 2):
        data[0] = value
        watched.commit()
        os.rename(path, path.with_suffix(f".{value}"))
    for value in (1, 2):
        with memwatch.open_history(path.with_suffix(f".{value}")) as history:
            assert history.value_at("data")[0] == value


def test_two_recorders_on_one_path(watch, path, wait_for):
    first, second = watch(), watch()
    data = bytearray(8)
    second.add(data, "data")
    data[0] = 1
    second.settle()
    wait_for(lambda: first.stats()["errors"] or second.stats()["errors"])
    loser = first if first.stats()["errors"] else second
    winner = second if loser is first else first
    wait_for(lambda: f"process {os.getpid()}" in loser.stats()["message"])
    assert loser.stats()["state"] == "failing"
    winner.close()
    wait_for(lambda: loser.stats()["state"] == "recording")


def test_a_path_in_use_by_another_process(watch, path, wait_for, start_writer):
    writer = start_writer()
    while not int(writer.stdout.readline().split()[1]):
        pass  # until it has committed something
    watched = watch()
    data = bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.settle()
    wait_for(lambda: f"process {writer.pid}" in watched.stats()["message"])
    writer.kill()
    writer.wait()
    wait_for(lambda: watched.stats()["state"] == "recording")
    watched.commit()
    with memwatch.open_history(path) as history:
        assert [run.live for run in history.runs] == [False, True]
        assert history.value_at("data")[0] == 1, "the log kept what happened meanwhile"


def test_a_path_that_cannot_be_written(watch, tmp_path, wait_for):
    nowhere = watch(tmp_path / "missing" / "recording")
    directory = watch(tmp_path)
    wait_for(lambda: "No such file" in nowhere.stats()["message"])
    wait_for(lambda: directory.stats()["errors"])
    assert directory.stats()["state"] == "failing"
    read_only = watch(Path("/proc/recording"))
    wait_for(lambda: read_only.stats()["errors"])


def test_events_that_waited_for_the_file_are_committed_at_once(watch, tmp_path, wait_for):
    """They have waited longer than a commit interval already. A busy machine may delay one commit, but not each."""

    def delay_ns(attempt):
        path = tmp_path / f"later {attempt}" / "recording"
        watched, data = watch(path, commit_ms=1000), bytearray(8)
        watched.add(data, "data")
        data[0] = 1
        watched.settle()
        wait_for(lambda: watched.stats()["errors"] > 1)
        path.parent.mkdir()
        wait_for(lambda: watched.stats()["events_written"])
        with memwatch.open_history(path) as history:
            return history.runs[0].last_commit_ns - history.runs[0].start_ns

    assert any(delay_ns(attempt) < 1_000_000_000 for attempt in range(5))


def test_what_the_log_could_not_keep_is_a_gap(watch, tmp_path, wait_for):
    path = tmp_path / "later" / "recording"
    watched = watch(path, event_capacity=8)
    data, quiet = bytearray(8), bytearray(8)
    watched.add(data, "data")
    watched.add(quiet, "quiet")
    wait_for(lambda: watched.stats()["errors"])
    for value in range(1, 31):
        data[0] = value
        watched.settle()
    path.parent.mkdir()
    wait_for(lambda: watched.stats()["state"] == "recording")
    quiet[0] = 1
    watched.commit()
    missed = watched.stats()["events_missed"]
    assert missed in (22, 23), "the recorder may come before or after the last write"
    with memwatch.open_history(path) as history:
        assert history.runs[0].events_missed == missed
        assert [event.seq for event in history.events()] == list(range(missed + 1, 32))
        for seq in range(missed + 1, 31):
            assert history.value_at("data", seq=seq)[0] == seq
        with pytest.raises(KeyError, match="that old is kept"):
            history.value_at("data", seq=10)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # it is: one thread records
def test_a_child_of_a_fork_leaves_it_alone(watch, path, wait_for):
    watched = watch()
    data = bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.commit()
    history = memwatch.open_history(path)
    child = os.fork()
    if not child:
        status = 1
        try:
            watched.close()
            try:
                _ = history.runs
            except memwatch.Error:
                status = 0
            with memwatch.open_history(path) as again:
                status += again.value_at("data")[0] != 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    data[0] = 2
    watched.commit()
    assert history.value_at("data")[0] == 2
    history.close()


def test_the_lock_dies_with_the_process_though_its_children_live(start_writer, watch, wait_for):
    code = WRITER.replace(
        "value = 0", "import os\nchild = os.fork()\nif not child: time.sleep(60)\nprint(child)\nvalue = 0"
    )
    writer = start_writer(code)
    child = int(writer.stdout.readline())
    for _ in range(20):
        writer.stdout.readline()
    writer.kill()
    writer.wait()
    try:
        os.kill(child, 0)
        watched = watch()
        wait_for(lambda: watched.stats()["state"] == "recording")
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # it is: one thread writes
def test_children_may_use_sqlite_whenever_they_were_forked(watch, path, tmp_path, of_load):
    """A child that was forked while the recorder held a lock of SQLite's would wait for ever."""
    watched = watch(commit_ms=1)
    numbers, stop = numpy.zeros(200), threading.Event()
    for at in range(200):
        watched.add(numbers[at : at + 1], f"number {at}")

    def write():
        while not stop.is_set():
            numbers[:] += 1
            watched.watcher.flush(5)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(int(of_load(200))):
            child = os.fork()
            if not child:
                signal.alarm(20)
                with sqlite3.connect(":memory:") as connection:
                    connection.execute("CREATE TABLE t (x)")
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        writer.join()
    watched.commit()
    assert watched.stats()["errors"] == 0


def test_what_is_left_of_a_killed_process_is_read_where_nothing_can_be_written(tmp_path, path, start_writer, of_load):
    """Its last commit may have to be undone: then in a copy."""
    for _ in range(8):
        writer = start_writer(STORM)
        while not int(writer.stdout.readline().split()[2]):
            pass
        for _ in range(20):
            writer.stdout.readline()
        writer.kill()
        writer.wait()
        place = tmp_path / "archive"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name in ("recording", "recording-journal"):
            if (path.parent / name).exists():
                shutil.copyfile(path.parent / name, place / name)
        if not (place / "recording-journal").exists():
            continue
        before = (place / "recording").read_bytes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "access", lambda file, mode: mode != os.W_OK)
            with memwatch.open_history(place / "recording") as history:
                assert history.check() == []
                check_chain(history, history.runs[-1].run)
        assert (place / "recording").read_bytes() == before


ASKED = """
import sys, threading
import memwatch
from memwatch import _core_recorder
from memwatch._native import core

def ask(work, ready):
    ready.wait()
    try:
        while True:
            work()
    except memwatch.Error:
        pass

for _ in range(20):
    watcher = core.Watcher(patches=True)
    recorder = _core_recorder.Recorder(watcher, sys.argv[1], max_bytes=1 << 20, commit_ms=1, sync=False)
    data = bytearray(64)
    watcher.region_add(data, "data")
    data[0] = 1
    recorder.flush(5)
    ready = threading.Barrier(4)
    works = (recorder.stats, recorder.stats, lambda: recorder.flush(0))
    threads = [threading.Thread(target=ask, args=(work, ready)) for work in works]
    for thread in threads:
        thread.start()
    ready.wait()
    recorder.close()
    watcher.close()
    for thread in threads:
        thread.join()
"""


def test_it_is_asked_while_it_closes(run_python, path):
    """MALLOC_PERTURB_ overwrites what is freed."""
    result = run_python(ASKED, str(path), environ={"MALLOC_PERTURB_": "170"})
    assert result.returncode == 0, result.stderr
