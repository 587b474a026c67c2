"""Room for a recording: a full disk, its own limit, a disk that cannot be written."""

import os
import resource
import subprocess
import sys

import numpy
import pytest

import memwatch

MIB = 1 << 20


def write_forever(file):
    while file.write(bytes(4096)):
        pass


def fill(place):
    """Writes a file until the disk is full; the file."""
    filler = place / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        write_forever(file)
    return filler


@pytest.fixture
def read_only_disk(tmp_path):
    """A file system that cannot be written."""
    place = tmp_path / "read-only"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_read_only_mount(watch, read_only_disk, wait_for):
    watched = watch(read_only_disk / "recording")
    wait_for(lambda: "Read-only file system" in watched.stats()["message"])
    subprocess.run(["mount", "-o", "remount,rw", str(read_only_disk)], check=True)
    watched.commit()
    assert watched.stats()["state"] == "recording"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(watch, small_disk, wait_for):
    path = small_disk / "recording"
    watched = watch(path)
    array = numpy.zeros(4096, "i8")
    watched.add(array, "array")
    array[0] = 1
    watched.commit()
    filler = fill(small_disk)
    for step in range(1, 10):
        array[:] = step
        watched.settle()
    stats = wait_for(lambda: watched.stats()["errors"] and watched.stats())
    assert stats["state"] == "failing"
    assert "space" in stats["message"]
    with memwatch.open_history(path) as history:
        assert history.value_at("array")[0] >= 1
    filler.unlink()
    wait_for(lambda: watched.stats()["state"] == "recording")
    array[0] = 7
    newest_seq = watched.commit()
    with memwatch.open_history(path) as history:
        assert (history.value_at("array") == array).all()
        assert history.runs[-1].newest_seq == newest_seq
        assert watched.stats()["events_missed"] == 0


def test_a_file_that_is_full_after_a_disk_that_was(watch, small_disk, wait_for):
    """The two look alike to SQLite, but older events make room for one of them only."""
    watched = watch(small_disk / "recording", max_bytes=MIB)
    array = numpy.zeros(512, "i8")
    watched.add(array, "array")
    filler = fill(small_disk)
    array[:] = 1
    watched.settle()
    wait_for(lambda: "space" in watched.stats()["message"])
    filler.unlink()
    while watched.stats()["bytes_used"] < MIB * 89 // 100:
        array[:] += 1
        watched.commit()
    large = numpy.zeros(MIB // 8 // 8, "i8")
    watched.add(large, "large")
    large[0] = 1
    watched.commit()
    with memwatch.open_history(small_disk / "recording") as history:
        assert history.value_at("large")[0] == 1


def test_a_disk_that_is_full_from_the_start(watch, small_disk, wait_for):
    filler = fill(small_disk)
    watched = watch(small_disk / "recording")
    data = bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.settle()
    wait_for(lambda: watched.stats()["errors"])
    filler.unlink()
    watched.commit()
    with memwatch.open_history(small_disk / "recording") as history:
        assert history.value_at("data")[0] == 1


def test_a_limit_on_file_sizes_kills_nobody(path, wait_for):
    code = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
from memwatch import _core_recorder
from memwatch._native import core
watcher = core.Watcher(patches=True)
recorder = _core_recorder.Recorder(watcher, sys.argv[1])
data = bytearray(8)
watcher.region_add(data, "data")
while not recorder.stats()["errors"]:
    data[0] ^= 1
    watcher.flush(5)
print(recorder.stats()["message"])
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, "too large" in run.stdout) == (0, True), run.stderr + run.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1 << 16


def test_it_stays_within_its_size_and_keeps_the_newest(watch, path, opened):
    watched = watch(max_bytes=2 * MIB)
    array, quiet, small = numpy.zeros(8_192, "i8"), numpy.zeros(1000, "i8"), bytearray(8)
    for name, buffer in (("array", array), ("quiet", quiet), ("small", small)):
        watched.add(buffer, name)
    quiet[0] = 77
    watched.commit()
    copies = {}
    generator = numpy.random.default_rng(5)
    for step in range(1, 500):
        at = int(generator.integers(0, 8_000))
        array[at : at + 150] = generator.integers(0, 1 << 60, 150)
        if step % 5 == 0:
            small[step % 8] = step % 256
        copies[watched.settle()] = (array.tobytes(), bytes(small))
    watched.commit()
    stats = watched.stats()
    assert stats["events_evicted"] > 100
    assert stats["bytes_used"] <= 2 * MIB
    assert os.stat(path).st_size <= 2 * MIB
    assert stats["errors"] == 0, stats
    history = opened(path)
    kept = [event.seq for event in history.events()]
    assert kept == list(range(kept[0], kept[-1] + 1))
    assert kept[0] > 1
    for seq, (array_then, small_then) in copies.items():
        if seq >= kept[0]:
            assert history.value_at("array", seq=seq, raw=True) == array_then
            assert history.value_at("small", seq=seq) == small_then
    assert history.value_at("quiet")[0] == 77, "a variable that rests keeps its value"
    with pytest.raises(KeyError, match="that old is kept; the oldest is"):
        history.value_at("array", seq=2)


def test_old_runs_make_room(watch, path, opened):
    for run in range(1, 7):
        watched = watch(max_bytes=MIB)
        data = numpy.zeros(1 << 14, "i8")
        watched.add(data, "data")
        for step in range(30):
            data[step * 100 : step * 100 + 100] = run * 1000 + step
            watched.settle()
        watched.commit()
        assert watched.stats()["errors"] == 0
        watched.close()
    history = opened(path)
    assert history.runs[-1].run == 6
    assert (history.value_at("data") == data).all()
