"""Misuse: nothing is accepted in silence, and each sentence names the argument, its value and the way out."""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import memwatch
from memwatch import MemoryWatcher, _native

pytestmark = pytest.mark.skipif(not _native.core.NATIVE, reason="without the extension other rules hold")
Misuse = Callable[[MemoryWatcher], Any]


def numbers() -> Any:
    return memoryview(bytearray(24)).cast("d")


async def coroutine(event: object) -> None:
    """Nobody would await it."""


CASES: list[tuple[type[Exception], str, Misuse]] = [
    (TypeError, "name=7: a name is text", lambda w: w.watch(bytearray(8), name=7)),  # type: ignore[arg-type]
    (ValueError, "a name is not empty", lambda w: w.watch(bytearray(8), name="")),
    (ValueError, "name='  ': a name is not blank", lambda w: w.watch(bytearray(8), name="  ")),
    (ValueError, "a name has no zero character", lambda w: w.watch(bytearray(8), name="a\0b")),
    (TypeError, "values=5: it is one of", lambda w: w.watch(bytearray(8), values=5)),  # type: ignore[arg-type]
    (ValueError, r"when=\('gt', 1\): this bytearray holds bytes", lambda w: w.watch(bytearray(8), when=("gt", 1))),
    (ValueError, "the lower limit comes first", lambda w: w.watch(bytearray(8), when=("outside", 5, 1))),
    (ValueError, "can become NaN", lambda w: w.watch(array.array("i", [1]), when="any_nan")),
    (ValueError, '"any_nan" finds it', lambda w: w.watch(bytearray(8), when=("gt", float("nan")))),
    (TypeError, "max_rate='x': it is a number", lambda w: w.watch(bytearray(8), max_rate="x")),  # type: ignore[arg-type]
    (ValueError, "metric=True: this bytearray holds bytes", lambda w: w.watch(bytearray(8), metric=True)),
    (TypeError, "metric='x': it is True or False", lambda w: w.watch(numbers(), metric="x")),  # type: ignore[arg-type]
    (TypeError, "cannot be called with one event", lambda w: w.set_callback(lambda: 1)),  # type: ignore
    (TypeError, "cannot be called with one event", lambda w: w.watch(bytearray(8), callback=lambda a, b: 1)),  # type: ignore
    (TypeError, r"unwatch\(None\): it takes a region's name", lambda w: w.unwatch(None)),  # type: ignore[arg-type]
    (TypeError, r"flush\(timeout='x'\): it is a number", lambda w: w.flush("x")),  # type: ignore[arg-type]
    (ValueError, "since=-1 is out of range: it is the seq", lambda w: w.events(since=-1)),
    (TypeError, "it is the seq of an event", lambda w: w.events(since="x")),  # type: ignore[arg-type]
    (TypeError, "port='80': it is a number", lambda w: w.serve(port="80")),  # type: ignore[arg-type]
    (ValueError, "port=-1: it is a number from 0 to 65535", lambda w: w.serve(port=-1)),
    (TypeError, "has no option 'tokn'; it has", lambda w: w.serve(tokn="x")),  # type: ignore[call-arg]
    (TypeError, r"buffer\('a'\): it is a whole number", lambda w: memwatch.buffer("a")),  # type: ignore[arg-type]
    (TypeError, "empty.*it is a whole number", lambda w: memwatch.empty("x")),
    (TypeError, "adapter=5: it is a memwatch.adapters.TrackerAdapter; options", lambda w: MemoryWatcher(5)),
    (TypeError, r"window_ms='a': it is a whole number \(ms\)", lambda w: MemoryWatcher(window_ms="a")),  # type: ignore[arg-type]
    (TypeError, "window_ms=1.5: it is a whole number", lambda w: MemoryWatcher(window_ms=1.5)),  # type: ignore[arg-type]
    (ValueError, "window_ms=-5: it is from 1 to 10000", lambda w: MemoryWatcher(window_ms=-5)),
    (ValueError, "ring_capacity=1000000000000: it is from 16 to", lambda w: MemoryWatcher(ring_capacity=10**12)),
    (ValueError, "attribution_budget=7: it is from 0 to 1", lambda w: MemoryWatcher(attribution_budget=7)),
    (ValueError, "attribution_budget=nan: it is from 0 to 1", lambda w: MemoryWatcher(attribution_budget=math.nan)),
    (TypeError, "follow_fork='no': it is True or False", lambda w: MemoryWatcher(follow_fork="no")),  # type: ignore[arg-type]
    (ValueError, "backend='': it is a name; leave it out for auto", lambda w: MemoryWatcher(backend="")),
    (TypeError, "history_path=5: it is the path of a file", lambda w: MemoryWatcher(history_path=5)),  # type: ignore[arg-type]
    (ValueError, r"history_path='a\\x00b': the path of a file", lambda w: MemoryWatcher(history_path="a\0b")),
    (ValueError, "history_path=.*no file can be named", lambda w: MemoryWatcher(history_path="\ud800")),
    (ValueError, r"name='\\ud800': a name has no lone surrogates", lambda w: w.watch(bytearray(8), name="\ud800")),
    (TypeError, "max_rate=True: it is a number of events", lambda w: w.watch(bytearray(8), max_rate=True)),
    (ValueError, "max_rate=nan: it is events a second", lambda w: w.watch(bytearray(8), max_rate=math.nan)),
    (ValueError, "max_rate=-1: it is records a second", lambda w: w.log_events(max_rate=-1)),
    (TypeError, "name=5: it is a glob", lambda w: w.log_events(name=5)),  # type: ignore[arg-type]
    (TypeError, "callback coroutine is a coroutine function.*async for", lambda w: w.set_callback(coroutine)),
    (ValueError, r"unwatch\(-1\): no watch\(\) returns", lambda w: w.unwatch(-1)),
    (ValueError, r"flush\(timeout=nan\): it is a number", lambda w: w.flush(math.nan)),
    (TypeError, "5 is no glob: include and exclude", lambda w: w.all(include=5)),
    (TypeError, "the type int have no items", lambda w: w.watch_item(5, 0)),
    (MemoryError, r"buffer\(4611686018427387904\): the system has no", lambda w: memwatch.buffer(1 << 62)),
    (MemoryError, r"buffer\(1180591620717411303424\): the system has no", lambda w: memwatch.buffer(1 << 70)),
    (TypeError, "watcher=None: it is a MemoryWatcher", lambda w: memwatch.wsgi_app(None)),
    (TypeError, "allowed_hosts='shop': it is a list", lambda w: memwatch.asgi_app(w, allowed_hosts="shop")),
    (TypeError, r"allowed_hosts=\[5\]: it is a list", lambda w: memwatch.wsgi_app(w, allowed_hosts=[5])),
    (TypeError, "path=5: it is the path of a file", lambda w: memwatch.open_history(5)),  # type: ignore[arg-type]
    (memwatch.Error, "/tmp cannot be opened: Is a directory", lambda w: memwatch.open_history("/tmp")),
]


@pytest.fixture
def watcher() -> Iterator[MemoryWatcher]:
    with MemoryWatcher() as watcher:
        yield watcher


@pytest.mark.parametrize(("kind", "sentence", "misuse"), CASES, ids=[sentence[:40] for _, sentence, _ in CASES])
def test_misuse_is_refused(watcher: MemoryWatcher, kind: type[Exception], sentence: str, misuse: Misuse) -> None:
    with pytest.raises(kind, match=sentence):
        misuse(watcher)
    assert watcher.get_stats()["tracked_regions"] == 0


def test_a_closed_watcher_takes_no_names() -> None:
    watcher = MemoryWatcher()
    watcher.close()
    with pytest.raises(memwatch.Error, match="the watcher is closed"):
        watcher.all()


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("MEMWATCH_WINDOWMS", "5", "MEMWATCH_WINDOWMS is no option of memwatch: MEMWATCH_WINDOW_MS is"),
        ("MEMWATCH_WINDOW_MS", "abc", "MEMWATCH_WINDOW_MS='abc': it is a whole number"),
        ("MEMWATCH_WINDOW_MS", "0", "window_ms must be 1 to 10000, not 0"),
        ("MEMWATCH_FOLLOW_FORK", "perhaps", "it is yes or no"),
    ],
)
def test_the_environment_is_not_ignored(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=sentence):
        MemoryWatcher()


def test_what_is_right_passes(watcher: MemoryWatcher) -> None:
    watcher.watch(numbers(), name="numbers", when=("outside", 1, 5), metric=True, max_rate=2)
    watcher.watch(bytearray(8), name="bytes", when="changed", callback=print)
    watcher.set_callback(lambda event, *more: None)
    watcher.events(since=0).close()


def test_what_is_shown_of_things(watcher: MemoryWatcher) -> None:
    watcher.watch(bytearray(8), name="bytes")
    assert "1 regions, 0 events, backend" in repr(watcher)
    server = watcher.serve(port=0)
    assert repr(server) == f"<memwatch.Server port {server.port}, serving>"
    server.close()
    assert repr(server).endswith("closed>")
    stream = watcher.events()
    assert repr(stream) == "<EventStream after event 0, 0 missed>"
    stream.close()
    logs = watcher.log_events(level="WARNING", name="by*")
    assert repr(logs) == "<memwatch.LogEvents by* at WARNING, open>"
    logs.close()
    assert repr(logs).endswith("closed>")
    assert repr(memwatch.wsgi_app(watcher)) == "<memwatch.WsgiApp for this machine>"
    assert repr(memwatch.asgi_app(watcher, allowed_hosts=["shop.example"])) == "<memwatch.AsgiApp for shop.example>"


def test_the_statistics_are_typed(watcher: MemoryWatcher) -> None:
    """Every number there is has its type, and none that is not there."""
    stats = watcher.get_stats(regions=True)
    assert set(stats) == set(memwatch.Stats.__annotations__)
    assert set(stats["attribution"]) == set(__import__("memwatch._stats")._stats.Attribution.__annotations__)


def test_help_tells_how_to_begin() -> None:
    import pydoc

    text = pydoc.plain(pydoc.render_doc(memwatch))
    assert 'watcher.watch(array, name="weights")' in text
    assert "_scope" not in pydoc.plain(pydoc.render_doc(MemoryWatcher))
