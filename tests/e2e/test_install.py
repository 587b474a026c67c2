"""What the libraries show, and what `make install` leaves for others to use."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, WAIT_S

pytestmark = pytest.mark.timeout(10 * WAIT_S)  # the first test of a fixture waits for compilers

HEADERS = {
    "memwatch": [f"native/include/memwatch/{name}.h" for name in ("memwatch", "reader", "stats", "types", "watch")],
    "memwatch_exporter": ["exporter/include/memwatch/exporter.h"],
    "memwatch_recorder": ["recorder/include/memwatch/recorder.h"],
}

PROGRAM = """
#include <memwatch/exporter.h>
#include <memwatch/reader.h>
#include <stdio.h>

int main(void)
{
	struct memwatch_exporter_options options;
	memwatch_exporter_options_init(&options);
	return printf("%s %d\\n", memwatch_version(), options.port) < 0;
}
"""

WATCHING = """
#include <memwatch/memwatch.h>
#include <stdio.h>

static int count;

int main(void)
{
	memwatch *watcher;
	struct memwatch_stats stats;
	if (memwatch_open(NULL, &watcher) || memwatch_region_add(watcher, &count, sizeof count, NULL, NULL))
		return 1;
	count++;
	if (memwatch_flush(watcher, 10000) || memwatch_stats_get(watcher, &stats))
		return 2;
	memwatch_close(watcher);
	return printf("%llu\\n", (unsigned long long)stats.ledger.delivered) < 0;
}
"""


def run(*command: str, **env: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=3 * WAIT_S, check=False
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def version() -> str:
    header = (ROOT / "native/include/memwatch/memwatch.h").read_text()
    return re.findall(r'^#define MEMWATCH_VERSION "(.*)"', header, re.MULTILINE)[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("installed")
    env = dict.fromkeys(("MAKEFLAGS", "MFLAGS", "MAKELEVEL"), "")
    run("make", "install", f"DESTDIR={directory}", "PREFIX=/opt/memwatch", f"PYTHON={sys.executable}", **env)
    return directory


@pytest.mark.parametrize("name", HEADERS)
def test_only_the_public_functions_are_exported(name: str) -> None:
    shown = run("nm", "-D", "--defined-only", "--format=posix", f"build/lib{name}.so").splitlines()
    exported = {line.split()[0].partition("@")[0] for line in shown if " A " not in line}
    text = "".join((ROOT / header).read_text() for header in HEADERS[name])
    declared = set(re.findall(r"MEMWATCH_API\b[^;]*?\b(memwatch_\w+)\(", text))
    assert exported == declared


@pytest.mark.parametrize("name", HEADERS)
def test_an_archive_has_no_global_name_but_the_public_ones(name: str) -> None:
    shown = run("nm", "-g", "--defined-only", "--format=posix", f"build/lib{name}.a").splitlines()
    names = {line.split()[0] for line in shown if " " in line}
    assert names
    assert {bare for bare in names if not bare.startswith("memwatch_")} == set()


def bare_names() -> list[str]:
    """Returns what the files of the libraries call their shared functions."""
    archives = [f"build/internal/lib{name}.a" for name in HEADERS]
    shown = run("nm", "-g", "--defined-only", "--format=posix", *archives).splitlines()
    return sorted({line.split()[0] for line in shown if " T " in line and not line.startswith("memwatch_")})


def test_a_program_may_have_functions_of_the_same_names_as_ours(tmp_path: Path) -> None:
    """None of them is called in place of ours, whether they are the program's or those of a library that it uses."""
    names = bare_names()
    assert {"event_new", "mem_alloc", "log_read"} <= set(names)
    host = tmp_path / "host.c"
    host.write_text("#include <stdlib.h>\n" + "".join(f"void {name}(void) {{ abort(); }}\n" for name in names))
    program = tmp_path / "program.c"
    program.write_text(WATCHING)
    archive = ["build/libmemwatch.a", "-ldw", "-pthread"]
    run("gcc", "-shared", "-fPIC", "-fno-builtin", "-o", str(tmp_path / "libhost.so"), str(host))
    common = ["-Inative/include", "-fno-builtin", str(program)]
    run("gcc", "-o", str(tmp_path / "own"), *common, str(host), *archive)
    run("gcc", "-o", str(tmp_path / "shared"), *common, *archive, "-Wl,--no-as-needed", str(tmp_path / "libhost.so"))
    for made in ("own", "shared"):
        assert run(str(tmp_path / made), LD_LIBRARY_PATH=str(tmp_path)) == "1\n"


def test_a_static_program_builds_with_the_flags_of_pkg_config(tmp_path: Path) -> None:
    program = tmp_path / "program.c"
    program.write_text(WATCHING)
    flags = run("pkg-config", "--static", "--cflags", "--libs", "memwatch", PKG_CONFIG_PATH="build").split()
    run("gcc", "-static", "-o", str(tmp_path / "static"), str(program), *flags)
    assert run(str(tmp_path / "static")) == "1\n"


@pytest.mark.parametrize("name", HEADERS)
def test_the_shared_library_has_a_soname(name: str) -> None:
    dynamic = run("readelf", "-d", f"build/lib{name}.so")
    assert f"Library soname: [lib{name}.so.0]" in dynamic


@pytest.mark.parametrize("archives", [False, True], ids=["shared", "static"])
def test_a_c_program_builds_with_what_was_installed(installed: Path, tmp_path: Path, archives: bool) -> None:
    lib = installed / "opt/memwatch/lib"
    env = {"PKG_CONFIG_PATH": f"{lib}/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": str(installed)}
    flags = run("pkg-config", "--cflags", "--libs", "memwatch_exporter", **env).split()
    source = tmp_path / "program.c"
    source.write_text(PROGRAM)
    if archives:
        flags = [flag for flag in flags if not flag.startswith("-lmemwatch")]
        flags += [f"{lib}/libmemwatch_exporter.a", f"{lib}/libmemwatch.a"]
        names = run("pkg-config", "--print-requires-private", "memwatch_exporter", "memwatch", **env).split()
        flags += run("pkg-config", "--libs", *names).split()
    run("gcc", "-o", str(tmp_path / "program"), str(source), *flags)
    assert run(str(tmp_path / "program"), LD_LIBRARY_PATH=str(lib)).split()[1:] == ["10764"]


def test_the_package_is_installed_and_imports(installed: Path, tmp_path: Path) -> None:
    packages = [path.parent.parent for path in installed.rglob("memwatch/__init__.py")]
    assert len(packages) == 1
    code = "import memwatch, sys; print(memwatch.__file__); w = memwatch.MemoryWatcher(); w.close()"
    told = run(sys.executable, "-c", code, PYTHONPATH=str(packages[0]))
    assert Path(told.strip()).is_relative_to(installed)


def test_what_else_is_installed(installed: Path) -> None:
    share = installed / "opt/memwatch/share"
    assert (share / "man/man1/memwatch.1").is_file()
    assert (share / "memwatch/grafana/overview.json").is_file()
    assert (share / "memwatch/prometheus/rules/memwatch.alerts.yml").is_file()
    assert "-Wl,-rpath,/opt/memwatch/lib" in (installed / "opt/memwatch/lib/pkgconfig/memwatch.pc").read_text()


def test_the_python_of_the_system_is_left_alone(tmp_path: Path) -> None:
    """Where the mark of PEP 668 says that it belongs to the package manager."""
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\necho called >"$0.called"\n')  # the mark is there
    python.chmod(0o755)
    command = [
        "scripts/install",
        str(tmp_path / "build"),
        "0",
        "0",
        "",
        str(tmp_path / "prefix"),
        "add-package",
        str(python),
    ]
    told = run(*command, PIP_BREAK_SYSTEM_PACKAGES="")
    assert f"was not installed: {python} belongs to the system (PEP 668)" in told
    assert f"VENV/bin/pip install {ROOT}" in told
    assert not (tmp_path / "prefix").exists()
    assert not Path(f"{python}.called").exists()


def test_a_prefix_of_ones_own_gets_a_word_about_the_loader(tmp_path: Path) -> None:
    """pkg-config and CMake put it into a program; another is told how."""
    told = run("scripts/install", "build", version(), "0", "", str(tmp_path / "prefix"), "add-c")
    assert (
        f"{tmp_path}/prefix/lib is not searched by the loader: pkg-config gives an rpath, else set LD_LIBRARY_PATH"
        in told
    )
    assert "memwatch_exporter.pc" in "".join(path.name for path in tmp_path.rglob("*.pc"))


def test_uninstall_leaves_nothing(installed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "installed"
    run("cp", "-a", str(installed), str(copy))
    kept = copy / "opt/memwatch/lib/somebody_elses"
    kept.write_text("")
    run("make", "uninstall", f"DESTDIR={copy}", "PREFIX=/opt/memwatch", MAKEFLAGS="", MFLAGS="", MAKELEVEL="")
    assert [path for path in copy.rglob("*") if not path.is_dir() and "__pycache__" not in path.parts] == [kept]
