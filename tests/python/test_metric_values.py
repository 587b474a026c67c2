"""A watched scalar is a gauge, whatever its type; an array with `metric` has its summary."""

from __future__ import annotations

import json
import re
import urllib.request

import numpy as np
import pytest

from memwatch import MemoryWatcher, Server

WHOLE = ["?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", ">i2", ">u4", ">i8", "<u2"]
FLOATS = ["e", "f", "d", "g", ">f2", ">f4", ">f8", "<f8"]


def values(server: Server, family: str) -> dict[str, float]:
    with urllib.request.urlopen(server.url.split("#")[0] + "metrics") as answer:
        text = answer.read().decode()
    found = re.findall(rf'^{family}\{{variable="([^"]+)"\}} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def events(server: Server) -> dict[str, dict[str, object]]:
    request = urllib.request.Request(server.url.split("#")[0] + "api/v1/events?limit=1000")
    request.add_header("Authorization", f"Bearer {server.token}")
    with urllib.request.urlopen(request) as answer:
        return {event["name"]: event for event in json.load(answer)["events"]}


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_every_numeric_dtype_of_one_item_is_a_gauge(shape: tuple[int, ...]) -> None:
    with MemoryWatcher() as watcher, watcher.serve(port=0) as server:
        arrays = {code: np.zeros(shape, dtype=code) for code in WHOLE + FLOATS}
        for code, array in arrays.items():
            watcher.watch(array, name=code)
        assert values(server, "memwatch_variable_value") == dict.fromkeys(arrays, 0)
        for code, array in arrays.items():
            array[...] = 1 if code in WHOLE else -1.5
        watcher.flush()
        expected = {code: 1 if code in WHOLE else -1.5 for code in arrays}
        assert values(server, "memwatch_variable_value") == expected
        if shape == ():
            assert {name: event["new_number"] for name, event in events(server).items()} == expected


@pytest.mark.parametrize("code", ["F", "D", "S4", "U2", "M8[ns]", "V3"])
def test_what_is_no_number_is_none(code: str) -> None:
    with MemoryWatcher() as watcher, watcher.serve(port=0) as server:
        watcher.watch(np.zeros((), dtype=code), name="other")
        assert values(server, "memwatch_variable_value") == {}


@pytest.mark.parametrize("code", [code for code in WHOLE + FLOATS if code != "?"])
def test_summaries_of_arrays(code: str) -> None:
    with MemoryWatcher() as watcher, watcher.serve(port=0) as server:
        array = np.array([1, 2, 6], dtype=code)
        watcher.watch(array, name="array", metric=True)
        for family, expected in (("min", 1), ("max", 6), ("mean", 3), ("nan", 0)):
            assert values(server, f"memwatch_variable_{family}") == {"array": expected}


@pytest.mark.parametrize("preview", [0, 4, 256])
@pytest.mark.parametrize("inline", [0, 4, 4096])
def test_a_number_is_decoded_from_its_own_bytes_however_few_are_shown(preview: int, inline: int) -> None:
    with MemoryWatcher(preview_size=preview, inline_threshold=inline) as watcher, watcher.serve(port=0) as server:
        number = np.array([1.5])
        hidden = np.array([1.5])
        watcher.watch(number, name="number")
        watcher.watch(hidden, name="hidden", values="preview")
        number[0] = hidden[0] = 2.5
        watcher.flush()
        said = events(server)
        assert (said["number"]["old_number"], said["number"]["new_number"]) == (1.5, 2.5)
        shown = (1.5, 2.5) if preview >= 8 else (None, None)
        assert (said["hidden"].get("old_number"), said["hidden"].get("new_number")) == shown


def test_a_crowd_of_iterators_hides_no_callback() -> None:
    """The newest sinks are listed first."""

    def samples() -> dict[str, float]:
        with urllib.request.urlopen(server.url.split("#")[0] + "metrics") as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    with MemoryWatcher() as watcher, watcher.serve(port=0) as server:
        array = np.zeros(1)
        watcher.watch(array, name="array")
        watcher.set_callback(lambda event: None)
        array[0] = 1
        watcher.flush()
        before = samples()
        iterators = [watcher.events() for _ in range(100)]
        after = samples()
        assert after["memwatch_sinks"] == len(watcher.get_stats()["sinks"]) == 1 + len(iterators)
        assert after["memwatch_callback_duration_seconds_count"] == 1
        counters = {name for name in before if re.search(r"_(total|count|sum|bucket)(\{|$)", name)}
        assert {name for name in counters if after[name] < before[name]} == set()
