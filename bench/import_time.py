"""What `import memwatch` takes, beside `import asyncio` and `import numpy`, each in an interpreter of its own.

The modules' files are in the page cache and compiled. The imports take turns, so that a slow moment of the machine is
everybody's; of each the fastest counts, since others only add. An interpreter that imports nothing is subtracted.
Prints lines of "name TAB value TAB unit", as the programs in C do.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time

ROUNDS = 40
ENVIRON = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
STATEMENTS = {
    "nothing": "pass",
    "memwatch": "import memwatch",
    "asyncio": "import asyncio",
    "numpy": "import numpy",
}


def run(statement: str, cache: str) -> tuple[float, float]:
    """Returns a run's CPU time and its time on the wall, in ms."""
    command = [sys.executable, "-X", f"pycache_prefix={cache}", "-c", statement]
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=ENVIRON, check=True)
    wall = time.perf_counter() - began
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime) * 1e3, wall * 1e3


def main() -> None:
    """Measures."""
    fastest = dict.fromkeys(STATEMENTS, (1e9, 1e9))
    with tempfile.TemporaryDirectory() as cache:
        for statement in STATEMENTS.values():
            run(statement, cache)
        for _ in range(ROUNDS):
            for name, statement in STATEMENTS.items():
                cpu, wall = run(statement, cache)
                fastest[name] = (min(cpu, fastest[name][0]), min(wall, fastest[name][1]))
    for at, suffix in enumerate(("", ".wall")):
        for name, times in fastest.items():
            if name != "nothing":
                print(f"{name}{suffix}\t{times[at] - fastest['nothing'][at]:.2f}\tms")


if __name__ == "__main__":
    main()
