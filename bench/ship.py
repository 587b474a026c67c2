"""What shipping costs: processor time, memory and bytes for each event, to a stand-in Collector and to a file.

python bench/ship.py [EVENTS]
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from ship.parts import Collector, Ship, Watched, lines, wait_for


def measure(runtime: Path, to: str, n_events: int, name: str, start_s: float = 0.0) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    Ship(runtime, "--to", to, "--state", runtime / f"{name}.state").once()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - start_s
    print(f"{name:12} {cpu_s:.2f} s of processor for {n_events} events, {cpu_s / n_events * 1e6:.0f} us each")
    return cpu_s


def main() -> None:
    n_events = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    runtime = Path(tempfile.mkdtemp(prefix="ship-"))
    watched, collector = Watched(runtime), Collector()
    try:
        watched.write(1)
        start_s = measure(runtime, str(runtime / "none"), 1, "its start")
        n_events = watched.write(n_events)
        measure(runtime, f"otlp+http://127.0.0.1:{collector.port}", n_events, "OTLP", start_s)
        sent = sum(int(headers["Content-Length"]) for _, _, headers, _ in collector.requests)
        plain = sum(len(data) for _, data, _, _ in collector.requests)
        print(f"{'':12} {plain / n_events:.0f} bytes an event, {sent / n_events:.0f} compressed, ", end="")
        print(f"{len(collector.requests)} requests")
        measure(runtime, str(runtime / "file"), n_events, "file", start_s)
        print(f"{'':12} {os.path.getsize(runtime / 'file') / n_events:.0f} bytes an event")
        idle = Ship(runtime, "--to", runtime / "idle", "--state", runtime / "file.state").start()
        status = Path(f"/proc/{idle.process.pid}/status")
        watched.write(1)
        wait_for(lambda: lines(runtime / "idle"))
        peak = re.search(r"VmRSS:\s+(\d+)", status.read_text())
        print(f"{'resident':12} {int(peak[1]) / 1024:.0f} MiB")
        idle.end()
    finally:
        watched.end()
        collector.close()
        shutil.rmtree(runtime)


if __name__ == "__main__":
    main()
