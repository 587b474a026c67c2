"""Whose file a recording is, and what an operator sees when it cannot be had."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.request
import warnings
from pathlib import Path

import pytest

import memwatch


def refused(watch, path, wait_for, sentence):
    watched = watch(path)
    wait_for(lambda: sentence in watched.stats()["message"])
    assert watched.stats()["state"] == "failing"
    watched.close()


def test_links_are_not_followed(watch, path, wait_for, tmp_path):
    target = tmp_path / "text"
    target.write_text("the user's")
    path.symlink_to(target)
    refused(watch, path, wait_for, "is a symbolic link")
    path.unlink()
    path.hardlink_to(target)
    refused(watch, path, wait_for, "has other names")
    assert target.read_text() == "the user's"


def test_a_journal_that_is_a_link_is_not_written_through(watch, path, tmp_path):
    target = tmp_path / "text"
    target.write_text("the user's")
    path.with_name("recording-journal").symlink_to(target)
    watched = watch(path)
    data = bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.commit()
    assert target.read_text() == "the user's"


def test_a_file_that_others_can_write_is_not_recorded_to(watch, path, wait_for):
    path.touch()
    path.chmod(0o666)
    refused(watch, path, wait_for, "can be written by others")


def test_a_new_file_is_the_users_alone(watch, path):
    mask = os.umask(0)
    try:
        watch(path).commit()
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_another_users_file_and_directory(watch, tmp_path, wait_for, sample):
    place = tmp_path / "theirs"
    place.mkdir()
    place.chmod(0o755)
    theirs = place / "recording"
    theirs.touch(0o600)
    os.chown(theirs, 12345, 12345)
    refused(watch, theirs, wait_for, "belongs to another user")
    theirs.unlink()
    os.chown(place, 12345, 12345)
    refused(watch, theirs, wait_for, "directory of another user")
    os.chown(sample, 12345, 12345)
    with memwatch.open_history(sample) as history:
        os.truncate(sample, 0)
        assert len(list(history.events())) > 100, "what is read is a copy"


def test_a_recording_in_wal_mode_is_read_from_a_copy(sample):
    connection = sqlite3.connect(sample, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("UPDATE runs SET program = 'changed'")
    maps = Path("/proc/self/maps").read_text().splitlines()
    with memwatch.open_history(sample) as history:
        assert history.runs[0].program == "changed"
        now = Path("/proc/self/maps").read_text().splitlines()
        assert [str(sample) in line for line in maps].count(True) == [str(sample) in line for line in now].count(True)
    connection.close()


def test_nothing_of_it_is_mapped_or_inherited(watch, path):
    watched = watch()
    data = bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.commit()
    assert not [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    inherited = subprocess.run(
        [sys.executable, "-c", "import os; files = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]; "
         "print([os.readlink(file) for file in files if os.path.exists(file)])"],
        capture_output=True, text=True, close_fds=False, timeout=60, check=True,
    )  # fmt: skip
    assert str(path) not in inherited.stdout


def test_a_path_that_can_never_work_is_a_warning(tmp_path):
    with pytest.warns(RuntimeWarning, match="nothing is recorded.*No such file") as told:
        memwatch.MemoryWatcher(history_path=tmp_path / "missing" / "recording").close()
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        memwatch.MemoryWatcher(history_path=tmp_path / "recording").close()


def test_a_failing_recorder_is_seen_by_an_operator(tmp_path, wait_for):
    place = tmp_path / "later"
    with pytest.warns(RuntimeWarning, match="nothing is recorded"):
        watcher = memwatch.MemoryWatcher(history_path=place / "recording")
    with watcher, watcher.serve(port=0) as server:
        headers = {"Authorization": f"Bearer {server.token}"}

        def get(path):
            request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.read().decode()

        def metrics():
            return dict(
                line.split(" ") for line in get("/metrics").splitlines() if line.startswith("memwatch_recorder")
            )

        assert metrics()["memwatch_recorders_failing"] == "1"
        assert int(metrics()["memwatch_recorder_errors_total"]) >= 1
        (recorder,) = json.loads(get("/api/v1/status"))["recorders"]
        assert recorder["failing"]
        assert "No such file" in recorder["message"]
        data = memwatch.buffer(8)
        watcher.watch(data, "data")
        data[0] = 1
        place.mkdir()
        wait_for(lambda: metrics()["memwatch_recorder_events_written_total"] == "1")
        found = metrics()
        assert (found["memwatch_recorders"], found["memwatch_recorders_failing"]) == ("1", "0")
        assert time.time() - float(found["memwatch_recorder_last_commit_timestamp_seconds"]) < 60
        assert 0 < int(found["memwatch_recorder_used_bytes"]) <= int(found["memwatch_recorder_max_bytes"])
        assert watcher.get_stats()["recorder"]["state"] == "recording"
