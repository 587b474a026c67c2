"""Fixtures: each process is ended, and the directory where exporters leave their files is the test's own."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .parts import Collector, Ship, Watched


@pytest.fixture
def runtime() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="ship-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def watch(runtime: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(*arguments: str, **options: object) -> Watched:
        made.append(Watched(runtime, *arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def ship(runtime: Path) -> Iterator[Callable[..., Ship]]:
    made: list[Ship] = []

    def make(*arguments: object, named: bool = True, **environment: str) -> Ship:
        made.append(Ship(runtime, *arguments, named=named, **environment))
        return made[-1]

    yield make
    for each in made:
        if each.process:
            with contextlib.suppress(ProcessLookupError):
                each.end(9)


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.close()
