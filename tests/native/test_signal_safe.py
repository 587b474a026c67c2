"""What signal handlers may reach: follows every call from the handlers through the object files.

A handler runs in the middle of anything, so that whatever it calls, however deep, must be async-signal-safe. The calls
are read from the machine code: direct calls, tail calls, and every function whose address is taken on the way. What is
called through pointers that were set elsewhere is listed below by hand.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("MEMWATCH_BUILD", "build")

pytestmark = [
    pytest.mark.skipif(BUILD.name in {"asan", "ubsan", "tsan"}, reason="sanitizers call functions of their own"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed"),
]

#: Functions of the C library that may run in a handler: async-signal-safe by POSIX, plain code without state, or the
#: end of a process whose stack is overwritten (Debian builds extensions with that check).
ALLOWED = {
    "__errno_location", "__popcountdi2", "__stack_chk_fail", "clock_gettime", "fstat", "getpid", "gettid", "ioctl",
    "memchr", "memcmp", "memcpy", "memmove", "memset", "mprotect", "pthread_sigmask", "sched_yield", "sigaction",
    "sigaddset", "sigemptyset", "sigfillset", "sigprocmask", "strlen", "syscall",
}  # fmt: skip

#: Handlers by the prefix of their name.
HANDLER = re.compile(r"on_(\w+_)?(segv|trap|bus|signal)(_\d)?$")

#: Reached through pointers, or documented as callable from a handler.
ALSO = {"memwatch_location_intern", "rearm"}

SECTION = re.compile(r"^Disassembly of section (\S+):$")
FUNCTION = re.compile(r"^([0-9a-f]+) <(.+)>:$")
DIRECT = re.compile(r"\s(?:call|jmp|j[a-z]+)\s+[0-9a-f]+ <([^+>]+)(?:\+0x[0-9a-f]+)?>")
NAMED = re.compile(r"R_X86_64_\S+\s+([A-Za-z_][\w.]*)")
PLACED = re.compile(r"R_X86_64_P\w+32\s+(\.text[\w.]*)([+-]0x[0-9a-f]+)")

#: What the frame hook of the Python extension takes of the interpreter: reads without a lock or a reference, and types.
OF_PYTHON = {
    *("PyCode_Addr2Line", "PyGILState_GetThisThreadState", "memwatch_location_intern"),
    *("PyAsyncGen_Type", "PyCode_Type", "PyCoro_Type", "PyGen_Type"),
}

Key = tuple[str, str]


def disassemble(path: Path) -> dict[str, set[str]]:
    """Returns, for each function of an object file, the names that its code refers to."""
    text = subprocess.run(["objdump", "-drw", path], capture_output=True, text=True, check=True).stdout
    found: dict[str, set[str]] = {}
    starts: dict[str, list[tuple[int, str]]] = {}
    places: list[tuple[str, str, int]] = []
    section = function = ""
    for line in text.splitlines():
        if start := SECTION.match(line):
            section = start[1]
        elif start := FUNCTION.match(line):
            function = start[2]
            found[function] = set()
            starts.setdefault(section, []).append((int(start[1], 16), function))
        elif place := PLACED.search(line):  # the rest of a function in another section, or a pointer to a static one
            places.append((function, place[1], int(place[2], 16) + 4))
        elif named := NAMED.search(line):
            found[function].add(named[1])
        elif direct := DIRECT.search(line):
            found[function].add(direct[1])
    for function, section, offset in places:
        found[function].add(max(start for start in starts[section] if start[0] <= offset)[1])
    return found


@cache
def functions() -> dict[Key, set[str]]:
    """Returns, for each (object file, function), the names that its code refers to."""
    objects = sorted((BUILD / "obj" / "native" / "src").rglob("*.o"))
    assert objects, "build first: make"
    return {(path.stem, name): names for path in objects for name, names in disassemble(path).items()}


@cache
def undefined() -> set[str]:
    """Returns the names that the library takes from elsewhere."""
    objects = sorted((BUILD / "obj" / "native" / "src").rglob("*.o"))
    lines = subprocess.run(["nm", *objects], capture_output=True, text=True, check=True).stdout.splitlines()
    wanted = {line.split()[-1] for line in lines if re.match(r"\s+[Uw] ", line)}
    return wanted - {line.split()[-1] for line in lines if re.match(r"[0-9a-f]+ [A-Z] ", line)}


def handlers() -> list[Key]:
    """Returns the functions from which to follow the calls."""
    return [key for key in functions() if HANDLER.match(key[1]) or key[1] in ALSO]


def reached(root: Key) -> dict[str, list[str]]:
    """Returns the foreign functions that `root` may reach, each with the calls that lead there."""
    code = functions()
    by_name: dict[str, list[Key]] = {}
    for key in code:
        by_name.setdefault(key[1], []).append(key)
    foreign: dict[str, list[str]] = {}
    queue: list[tuple[Key, list[str]]] = [(root, [root[1]])]
    seen = {root}
    while queue:
        (stem, function), way = queue.pop(0)
        for name in sorted(code[stem, function]):
            own = (stem, name)
            for key in [own] if own in code else by_name.get(name, []):
                if key not in seen:
                    seen.add(key)
                    queue.append((key, [*way, name]))
            if name in undefined():
                foreign.setdefault(name, [*way, name])
    return foreign


def test_each_backend_with_a_handler_is_covered() -> None:
    stems = {stem for stem, _ in handlers()}
    assert {"mprotect", "sigtrap", "location"} <= stems
    users = {stem for (stem, _), names in functions().items() if {"chain_install"} & names} - {"chain"}
    assert users <= stems


def test_what_is_called_through_pointers_is_there() -> None:
    names = {name for _, name in functions()}
    assert names >= ALSO


def test_handlers_reach_signal_safe_functions_only() -> None:
    unsafe = {
        " -> ".join(way)
        for root in handlers()
        for name, way in reached(root).items()
        if name not in ALLOWED and not name.startswith("_GLOBAL_OFFSET_TABLE_")
    }
    assert not unsafe


@pytest.mark.parametrize("tree", sorted((ROOT / "build").glob("temp.*/python/ext")), ids=lambda tree: tree.parts[-3])
def test_the_frame_hook_reaches_signal_safe_functions_only(tree: Path) -> None:
    code = {name: names for part in ("frames", "memo") for name, names in disassemble(tree / f"{part}.o").items()}
    reached_names, queue = {"hook"}, ["hook"]
    while queue:
        new = code.get(queue.pop(), set()) - reached_names
        reached_names |= new
        queue += new
    assert {"memo_find", "PyCode_Addr2Line"} <= reached_names
    lines = subprocess.run(["nm", "-u", tree / "frames.o", tree / "memo.o"], capture_output=True, text=True, check=True)
    foreign = {line.split()[-1] for line in lines.stdout.splitlines() if re.match(r"\s+U ", line)} - set(code)
    assert (reached_names & foreign) - ALLOWED - OF_PYTHON - {"_GLOBAL_OFFSET_TABLE_"} == set()


def test_what_handlers_run_has_no_stack_protector(tmp_path: Path) -> None:
    """It reads from the C library's storage, which not every thread has; distributions build with it."""
    handlers, other = [tmp_path / "obj/native/src" / name for name in ("fault/mprotect.o", "watch.o")]
    options = [f"B={tmp_path}", "CFLAGS=-O2 -fstack-protector-all"]
    subprocess.run(["make", "-s", *options, str(handlers), str(other)], cwd=ROOT, capture_output=True, check=True)
    wants = [
        subprocess.run(["nm", "-u", path], capture_output=True, text=True, check=True) for path in (handlers, other)
    ]
    assert ["__stack_chk_fail" in each.stdout for each in wants] == [False, True]


def test_the_walk_sees_what_it_must_see() -> None:
    """It would find an unsafe function: outside the handlers there are some."""
    openers = [key for key in functions() if key[1] == "memwatch_open"]
    assert openers
    found = {name for root in openers for name in reached(root)}
    assert found & {"malloc", "calloc", "realloc", "mmap"}
    assert found & {"pthread_create", "pthread_mutex_lock"}


def test_nothing_in_the_library_prints_or_exits() -> None:
    banned = {"printf", "puts", "putchar", "fprintf", "vfprintf", "fputs", "fwrite", "perror", "syslog"}
    banned |= {"__printf_chk", "__fprintf_chk", "__vfprintf_chk", "stdout", "stderr"}
    banned |= {"exit", "quick_exit", "abort", "__assert_fail"}
    assert undefined() & banned == set()
