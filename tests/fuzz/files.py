"""Fuzzes what the package reads of others: discovery files, configuration files and recordings, together for
FUZZ_SECONDS.

Each is a good one with bytes changed. It is read, or refused with the package's own exception: nothing else may happen.
No C of ours reads them, so there is no sanitizer here.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "python"))

import memwatch  # noqa: E402  # from this tree
from memwatch._cli import plan  # noqa: E402
from memwatch._cli.found import in_directory  # noqa: E402
from memwatch._cli.frame import Failure  # noqa: E402
from memwatch._hub import files as hub_files  # noqa: E402
from memwatch._hub.workers import labels_of  # noqa: E402

DISCOVERY = b"""{"version": 1, "pid": 4711, "port": 21764, "url": "http://127.0.0.1:21764/", "unix_socket": null,
"epoch": "0123456789abcdef", "token": "0123", "service": "shop", "worker": "1", "labels": {"zone": "eu"},
"process_start_ticks": 12, "pid_namespace": 4026531836}"""
CONFIG = b"""[watcher]
window_ms = 5
history_budget = "64 MiB"
[exporter]
port = 0
labels = {zone = "eu"}
[[variables]]
watch = ["app.settings:*", "app:limit"]
exclude = "app.settings:debug"
when = ["outside", 0, 100]
values = "hash"
max_rate = 10.5
"""
TOKENS = [b"null", b"-1", b"1e999", b"18446744073709551616", b'""', b"[]", b"{}", b"true", b"\xff", b"\0", b"\\ud800",
          b"[" * 2000, b"{" * 2000, b'"' * 9, b"0" * 5000, b"../../", b"NaN", b"'''", b"1979-05-27"]  # fmt: skip


def mutated(seed: bytes, chance: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
        end = min(at + chance.choice((0, 1, 4, 16)), len(data))
        data[at:end] = chance.choice((chance.randbytes(chance.choice((1, 2, 8))), chance.choice(TOKENS)))
    return bytes(data)


def discovery(data: bytes, folder: Path) -> None:
    path = folder / "1.json"
    path.write_bytes(data)
    path.chmod(0o600)
    for each in in_directory(str(folder), 0, [], False):
        assert isinstance(each.address, str) and isinstance(each.title, str)
        labels_of(each)
        hub_files.is_gone({**each.said, "pid": None})
        try:
            assert each.host and each.host_header
        except ValueError:
            raise AssertionError(f"an address that cannot be read was believed: {each.url!r}") from None


def config(data: bytes, folder: Path) -> None:
    path = folder / "memwatch.toml"
    path.write_bytes(data)
    with contextlib.suppress(Failure):
        plan.read(str(path))


def recording(data: bytes, folder: Path) -> None:
    path = folder / "recording"
    path.write_bytes(data)
    with contextlib.suppress(KeyError, memwatch.Error), memwatch.open_history(path) as history:
        repr(history.runs)
        for region in history.regions:
            with contextlib.suppress(KeyError, memwatch.Error):
                history.value_at(region.name)
        for event in history.events():
            repr(event)


def main() -> None:
    seconds, seed = float(os.environ.get("FUZZ_SECONDS", "10")) / 3, int(os.environ.get("FUZZ_SEED", time.time_ns()))
    golden = (ROOT / "tests/recorder/golden-2.memwatch").read_bytes()
    for read, good in ((discovery, DISCOVERY), (config, CONFIG), (recording, golden)):
        chance, n, end = random.Random(seed), 0, time.monotonic() + seconds
        folder = Path(tempfile.mkdtemp())
        data = good
        try:
            while time.monotonic() < end:
                read(data, folder)
                data, n = mutated(good, chance), n + 1
        except BaseException:
            (ROOT / f"build/failed-{read.__name__}").write_bytes(data)
            print(f"fuzz: build/failed-{read.__name__} holds what failed", file=sys.stderr)
            raise
        finally:
            shutil.rmtree(folder)
        print(f"fuzz: {read.__name__} files\n      inputs tried: {n}")


if __name__ == "__main__":
    main()
