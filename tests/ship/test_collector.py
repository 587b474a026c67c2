"""A real OpenTelemetry Collector, built once from its Go modules where Go is there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .parts import LIMIT_S, Ship, Watched, free_port, wait_for

HERE = Path(__file__).resolve().parent
BUILD_S = 600
BUILD = HERE.parents[1] / "build" / "collector"
CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: 127.0.0.1:PORT}}}}
exporters: {debug: {verbosity: detailed}}
service: {pipelines: {logs: {receivers: [otlp], exporters: [debug]}}, telemetry: {metrics: {level: none}}}
"""


def build() -> Path | None:
    """The program; None where it cannot be built. Takes a minute or two, once."""
    program = BUILD / "collector"
    if program.exists():
        return program
    if not shutil.which("go"):
        return None
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("main.go", "go.mod", "go.sum"):
        shutil.copy(HERE / "collector" / f"{name}.txt", BUILD / name)
    environment = {**os.environ, "GOFLAGS": "-mod=readonly"}
    command = ["go", "build", "-o", "collector", "."]
    try:  # what was compiled by then is kept for the next time
        done = subprocess.run(command, cwd=BUILD, env=environment, capture_output=True, timeout=BUILD_S)
    except subprocess.TimeoutExpired:
        return None
    return program if done.returncode == 0 else None


@pytest.fixture
def collector(runtime: Path) -> Iterator[tuple[str, Path]]:
    program = build()
    if program is None:
        pytest.skip("no Go, or its modules cannot be had: no Collector")
    port, said = free_port(), runtime / "collector.log"
    (runtime / "collector.yaml").write_text(CONFIG.replace("PORT", str(port)))
    with said.open("wb") as log:
        process = subprocess.Popen(
            [program, "--config", f"file:{runtime / 'collector.yaml'}"], stdout=log, stderr=log, cwd=runtime
        )

    def answers() -> bool:
        assert process.poll() is None, said.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(answers)
    yield f"otlp+http://127.0.0.1:{port}", said
    process.terminate()
    process.wait(LIMIT_S)


@pytest.mark.timeout(900)
def test_a_collector_takes_them(
    watch: Callable[..., Watched], ship: Callable[..., Ship], collector: tuple[str, Path], runtime: Path
) -> None:
    to, said = collector
    watched = watch("64")
    newest = watched.write(200)
    ship("--to", to).once()
    wait_for(lambda: f"log.record.uid: Str({watched.epoch}-{newest})" in said.read_text())
    text = said.read_text()
    assert "memwatch.variable.changed" in text and "memwatch.events.lost" in text
    assert f"service.name: Str({runtime.name})" in text and "memwatch.variable.name: Str(counter)" in text
    assert f"memwatch.seq: Int({newest})" in text
