"""Events as plain data: to_dict() is what the feed says, and a pickle keeps what an event carries."""

from __future__ import annotations

import copy
import ctypes
import json
import math
import multiprocessing
import pickle
import urllib.request
from typing import Any

import pytest

import memwatch

numpy = pytest.importorskip("numpy")


class Config(ctypes.Structure):
    _fields_ = (("limit", ctypes.c_int), ("rate", ctypes.c_double))


def make_events(watcher: memwatch.MemoryWatcher) -> list[memwatch.ChangeEvent]:
    """One of each kind that a program meets."""
    arrays = {
        "doubles": numpy.zeros((3, 4)),
        "fortran": numpy.zeros((3, 4), order="F"),
        "flags": numpy.zeros(5, dtype="?"),
        "longs": numpy.zeros(3, dtype="u8"),
        "large": numpy.zeros(9000, dtype="f4"),
        "half": numpy.zeros(7, dtype="f2"),
        "one": numpy.zeros(1, dtype="i8"),
        "hidden": numpy.zeros(4),
    }
    text, config, integer = bytearray(12), Config(), ctypes.c_longlong()
    for name, array in arrays.items():
        watcher.watch(array, name, values="hash" if name == "hidden" else "full")
    for obj, name in ((text, "text"), (config, "config"), (integer, "integer")):
        watcher.watch(obj, name)
    holder = type("Holder", (), {})()
    holder.level = 1
    watcher.watch_attr(holder, "level")
    for array in arrays.values():
        array.flat[min(3, array.size - 1)] = 1
        array.flat[0] = 1
    arrays["doubles"][2, 1] = math.nan
    arrays["doubles"][2, 2] = -math.inf
    arrays["longs"][1] = 2**64 - 1
    text[:5] = b"hello"
    config.limit, integer.value, holder.level = 7, -(2**62), 2.5
    assert watcher.flush()
    return list(watcher.events(since=0, timeout=0))


def test_the_same_as_the_feed() -> None:
    with memwatch.MemoryWatcher() as watcher, watcher.serve(port=0, runtime_dir="") as server:
        events = make_events(watcher)
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/api/v1/events?limit=1000",
            headers={"Authorization": f"Bearer {server.token}"},
        )
        with urllib.request.urlopen(request) as answer:
            told = json.load(answer)["events"]
        assert len(events) >= 12
        by_seq = {each["seq"]: each for each in told}
        for event in events:
            expected = by_seq[event.seq]
            assert event.to_dict() == expected
            assert json.loads(event.to_json()) == expected
            assert "\n" not in event.to_json()


def seen(event: memwatch.ChangeEvent) -> list[Any]:
    names = "seq timestamp_ns variable_name kind backend how_big old_value new_value old_preview changes merged note"
    return [getattr(event, name) for name in names.split()] + [repr(event), dict(event.where).keys(), event.to_dict()]


def test_pickles() -> None:
    with memwatch.MemoryWatcher() as watcher:
        events = make_events(watcher)
        for event in events:
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
                assert seen(pickle.loads(pickle.dumps(event, protocol))) == seen(event)
            assert seen(copy.copy(event)) == seen(copy.deepcopy(event)) == seen(event)
    again = {event.variable_name: pickle.loads(pickle.dumps(event)) for event in events}
    assert again["doubles"].new[2, 2] == -math.inf
    assert again["large"].new is None and again["large"].new_preview


def send(queue: Any, data: bytes) -> None:
    queue.put(pickle.loads(data).variable_name)


def test_goes_to_another_process() -> None:
    with memwatch.MemoryWatcher() as watcher:
        data = bytearray(9)
        watcher.watch(data, "data")
        data[0] = 1
        watcher.flush()
        (event,) = watcher.events(since=0, timeout=0)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=send, args=(queue, pickle.dumps(event)))
        process.start()
        assert queue.get(timeout=60) == "data"
        process.join(60)


def test_recorded_events_too(tmp_path: Any) -> None:
    with memwatch.MemoryWatcher(history_path=tmp_path / "r.memwatch") as watcher:
        make_events(watcher)
    with memwatch.open_history(tmp_path / "r.memwatch") as history:
        for event in history.events():
            assert json.loads(event.to_json())["name"] == event.variable_name
            assert pickle.loads(pickle.dumps(event)).to_dict() == event.to_dict()
