"""Runs the benchmark programs and prints one table in Markdown, with the machine that it was measured on.

usage: python3 bench/run.py [--build build] [--json FILE] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Section:
    """One program: what its numbers mean, and which of them are compared with which."""

    program: str
    title: str
    note: str
    #: row -> the row that it is divided by
    against: dict[str, str]


SECTIONS = [
    Section(
        "first_write",
        "The first write to a page in a window",
        "aim: at most 1.25 times the bare mechanism, in CPU time and, with a CPU left for the worker, on the wall",
        {
            f"memwatch.attribution_{attribution}{clock}": f"bare.{mechanism}{clock}"
            for attribution, mechanism in (("off", "wp_async"), ("on", "wp_async_sigtrap"))
            for clock in ("", ".wall")
        },
    ),
    Section(
        "python_write",
        "The first write to a page by a line of Python, 24 calls deep",
        "aim: at most 1.25 times the bare mechanism with a stack of one frame, 1.6 times with 16",
        {
            f"memwatch.stack_depth_{depth}{clock}": f"bare.wp_async_sigtrap{clock}"
            for depth in (1, 16)
            for clock in ("", ".wall")
        },
    ),
    Section(
        "later_write",
        "A later write in an open window",
        "aim: what an unwatched write costs",
        {
            "memwatch.attribution_off": "unwatched",
            "memwatch.attribution_on": "unwatched",
        },
    ),
    Section(
        "page_fault",
        "An ordinary page fault, elsewhere in the process",
        "aim: at most 1.25 times where BPF may be loaded",
        {
            "memwatch.attribution_off": "unwatched",
            "memwatch.default_budget.1_page": "unwatched",
            "memwatch.no_budget.1_page": "unwatched",
            "memwatch.no_budget.65536_pages": "unwatched",
            "memwatch.no_budget.come_and_go": "unwatched",
            "unwatched.again": "unwatched",
        },
    ),
    Section(
        "storm",
        "Page faults without end elsewhere in the process, as an ordinary user",
        "aim: at most 1.03 times; how far the second unwatched row is from the first is what the measurement is worth",
        {
            f"{load}.{way}": f"{load}.unwatched"
            for load in ("fresh_memory", "numpy_temporaries")
            for way in ("memwatch.default_budget", "unwatched.again")
        },
    ),
    Section(
        "echo",
        "A request to a saturated echo server of eight threads, which writes four of 50 watched variables",
        "aim: at most 1.03 times in the median, 1.1 at p99, 2 at p99.9; how far the second unwatched rows are from the "
        "first is what the measurement is worth",
        {
            f"{way}.{percentile}": f"unwatched.{percentile}"
            for way in ("memwatch", "unwatched.again")
            for percentile in ("p50", "p99", "p99.9")
        },
    ),
    Section(
        "diff",
        "The comparison alone, over the written pages of 64 MiB",
        "aim: 0.8 times the speed of memcmp at least, whether bytes changed or not; through the kernel (all memory "
        "but that of bytearray, bytes and array.array) 0.67 times the direct way, where the pages come from memory",
        {
            f"{way}.{percent}_percent.{kind}": f"{other}.{percent}_percent{suffix.format(kind)}"
            for way, other, suffix in (("memwatch", "memcmp", ""), ("kernel", "memwatch", ".{}"))
            for percent in (1, 10, 100)
            for kind in ("equal", "changed")
        },
    ),
    Section(
        "pass",
        "One pass over 64 MiB, one byte of each written page changed",
        "from the flush to its end: collect, arm, compare, copy, keep the old bytes, make the event",
        {f"memwatch.{percent}_percent": f"memcmp.{percent}_percent" for percent in (1, 10, 100)},
    ),
    Section(
        "recorder",
        "1,000 numbers written every 10 ms, recorded",
        "aim: at most 150 bytes a change, none missed",
        {},
    ),
    Section("idle", "1,000 regions over 1 GiB, nobody writes", "aim: under 0.5 % of a core", {}),
    Section(
        "poll",
        "Polled memory, with the default budget of 1 % of a core",
        "100 writes a second, eight of ten to 16 places; aim: at most 1.3 %, and for 64 MiB hot places told after 6 ms "
        "in the median and others within 3 s",
        {},
    ),
    Section(
        "events",
        "Events, end to end",
        "1,000 regions written without a pause; one write alone in a window of 5 ms, aim: under 10 ms, in 1 GiB too",
        {},
    ),
    Section(
        "feed_clients",
        "Events, while 32 clients stream all of them",
        "4,000 variables, 24,000 writes a second; aim: at 20,000 events a second the rate is that without clients",
        {"32_clients": "no_client", "32_clients.worker": "no_client.worker"},
    ),
    Section(
        "hub_scrape",
        "A scrape of the hub, 16 workers of a thousand series",
        "aim: under 50 ms; `one_by_one` asks the workers in turn and merges nothing, `multiprocess` is "
        "prometheus_client's merge of 16 processes with as many series",
        {"hub.wall": "multiprocess.wall", "one_by_one.wall": "multiprocess.wall"},
    ),
    Section(
        "metrics_render",
        "A scrape, for each series",
        "aim: at most 50 ns for the writing alone at 10,000 series",
        {
            f"memwatch.{what}.{n}_series": f"snprintf.write.{n}_series"
            for what in ("scrape", "scrape_all_changed")
            for n in (10000, 30000)
        },
    ),
    Section(
        "import_time",
        "`import memwatch`, warm",
        "aim: at most 25 ms; what the import of asyncio takes is what many programs pay anyway",
        {f"{name}{clock}": f"asyncio{clock}" for name in ("memwatch", "numpy") for clock in ("", ".wall")},
    ),
    Section(
        "regions",
        "Adding and removing a region beside so many others",
        "aim: does not grow",
        {
            f"memwatch.{verb}.{count}": f"memwatch.{verb}.1000"
            for verb in ("add", "remove")
            for count in (100000, 1000000)
        },
    ),
]


def measure(build: Path, program: str) -> dict[str, tuple[float, str]]:
    """Runs one program, in C or in Python, and reads its lines."""
    script = ROOT / "bench" / f"{program}.py"
    command = [sys.executable, script] if script.exists() else [build / "bench" / program]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows: dict[str, tuple[float, str]] = {}
    for line in result.stdout.splitlines():
        name, value, unit = line.split("\t")
        rows[name] = (float(value), unit)
    return rows


def processor() -> str:
    """Returns the processor's name as the system has it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """Describes the machine in a line."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    virtual = "hypervisor" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    kind = "virtual machine, " if virtual else ""
    load = os.getloadavg()[0]
    return (
        f"{kind}{processor()}, {os.cpu_count()} CPUs, {memory:.0f} GiB, Linux {platform.release()}, "
        f"load {load:.1f} at the start, {'root' if os.geteuid() == 0 else 'an ordinary user'}"
    )


def table(section: Section, rows: dict[str, tuple[float, str]]) -> list[str]:
    """Formats one program's rows."""
    lines = [f"### {section.title}", "", f"{section.note[:1].upper()}{section.note[1:]}.", ""]
    lines += ["| | measured | ratio |", "|---|---:|---:|"]
    for name, (value, unit) in rows.items():
        ratio = ""
        base = section.against.get(name)
        if base in rows and rows[base][0] > 0:
            ratio = f"{value / rows[base][0]:.2f} of {base}"
        shown = "failed" if math.isnan(value) else f"{value:,.4g} {unit}" if value < 10000 else f"{value:,.0f} {unit}"
        lines.append(f"| {name} | {shown} | {ratio} |")
    return [*lines, ""]


def main() -> int:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description="run the benchmarks and print a table")
    parser.add_argument("--build", default="build", help="the build tree (build)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these programs")
    options = parser.parse_args()
    unknown = set(options.names) - {section.program for section in SECTIONS}
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    print(f"Machine: {machine()}.\n", flush=True)
    numbers: dict[str, dict[str, tuple[float, str]]] = {}
    for section in SECTIONS:
        if options.names and section.program not in options.names:
            continue
        numbers[section.program] = measure(ROOT / options.build, section.program)
        print("\n".join(table(section, numbers[section.program])), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), **numbers}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
