"""A writer in C++, from outside: what its event says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[2] / os.environ.get("MEMWATCH_BUILD", "build")

PROGRAM = r"""
#include <memwatch/memwatch.h>
#include <atomic>
#include <cstdio>
#include <string>

namespace app {
template <class T> struct Box {
    T value = 0;
    __attribute__((noinline)) void set(T to) { value = to; }
};
}
static app::Box<double> box;
static std::string unused = "the C++ library is there";

static std::atomic<bool> told{false};

static void on_change(const memwatch_event *event, void *)
{
    const memwatch_where &where = event->where;
    if (where.attribution == MEMWATCH_ATTRIBUTION_PAGE || told)
        return;
    told = true;
    std::printf("%s|%s|%s:%d\n", memwatch_attribution_text(where.attribution), where.symbol, where.native.function,
                where.native.line);
}

int main()
{
    memwatch *watcher;
    if (memwatch_open(nullptr, &watcher) < 0 ||
        memwatch_region_add(watcher, &box.value, sizeof box.value, nullptr, nullptr) < 0)
        return 1;
    memwatch_callback_set(watcher, on_change, nullptr);
    for (int i = 1; i <= 10 && !told; i++) { // a writer that loses its processor in the midst is not always known
        box.set(i + 0.5);
        memwatch_flush(watcher, 60000);
    }
    memwatch_close(watcher);
}
"""


@pytest.mark.skipif(BUILD.name in {"asan", "ubsan", "tsan"}, reason="a plain program beside a sanitized library")
def test_names_are_as_the_source_has_them(tmp_path: Path) -> None:
    source, program = tmp_path / "box.cpp", tmp_path / "box"
    source.write_text(PROGRAM)
    include = Path(__file__).resolve().parents[2] / "native" / "include"
    command = ["g++", "-std=c++17", "-O1", "-g", f"-I{include}", source, "-o", program]
    subprocess.run([*command, f"-L{BUILD}", "-lmemwatch", f"-Wl,-rpath,{BUILD}"], check=True)
    result = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60)
    attribution, symbol, function = result.stdout.strip().split("|")
    if attribution == "none":
        pytest.skip("no authors here")
    line = PROGRAM.splitlines().index("    __attribute__((noinline)) void set(T to) { value = to; }") + 1
    assert symbol == "app::Box<double>::set(double)"
    assert function == f"app::Box<double>::set(double):{line}"
