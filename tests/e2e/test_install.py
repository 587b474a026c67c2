"""What the libraries show, and what `make install` leaves for others to use."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, WAIT_S

HEADERS = {
    "memwatch": ["native/include/memwatch/memwatch.h", "native/include/memwatch/reader.h"],
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


def run(*command: str, **env: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=3 * WAIT_S, check=False
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("installed")
    env = dict.fromkeys(("MAKEFLAGS", "MFLAGS", "MAKELEVEL"), "")
    run("make", "install", f"DESTDIR={directory}", "PREFIX=/opt/memwatch", f"PYTHON={sys.executable}", **env)
    return directory


@pytest.mark.parametrize("name", HEADERS)
def test_only_the_public_functions_are_exported(name: str) -> None:
    shown = run("nm", "-D", "--defined-only", "--format=posix", f"build/lib{name}.so").splitlines()
    exported = {line.split()[0] for line in shown}
    text = "".join((ROOT / header).read_text() for header in HEADERS[name])
    declared = set(re.findall(r"MEMWATCH_API\b[^;]*?\b(memwatch_\w+)\(", text))
    assert exported == declared


@pytest.mark.parametrize("name", HEADERS)
def test_the_shared_library_has_a_soname(name: str) -> None:
    dynamic = run("readelf", "-d", f"build/lib{name}.so")
    assert f"Library soname: [lib{name}.so.0]" in dynamic


@pytest.mark.parametrize("linking", [["--libs"], ["--libs", "--static"]], ids=["shared", "static"])
def test_a_c_program_builds_with_what_was_installed(installed: Path, tmp_path: Path, linking: list[str]) -> None:
    lib = installed / "opt/memwatch/lib"
    env = {"PKG_CONFIG_LIBDIR": f"{lib}/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": str(installed)}
    flags = run("pkg-config", "--cflags", *linking, "memwatch_exporter", **env).split()
    source = tmp_path / "program.c"
    source.write_text(PROGRAM)
    if "--static" in linking:
        flags = ["-Wl,-Bstatic" if f == "-lmemwatch_exporter" else f for f in flags]
        flags = [f for f in flags if f != "-lmemwatch" and f != "-Wl,-Bstatic"]
        flags += [f"{lib}/libmemwatch_exporter.a", f"{lib}/libmemwatch.a", *flags]
    run("gcc", "-o", str(tmp_path / "program"), str(source), *flags)
    assert run(str(tmp_path / "program"), LD_LIBRARY_PATH=str(lib)).split()[1:] == ["10764"]


def test_the_package_is_installed_and_imports(installed: Path, tmp_path: Path) -> None:
    packages = [path.parent.parent for path in installed.rglob("memwatch/__init__.py")]
    assert len(packages) == 1
    code = "import memwatch, sys; print(memwatch.__file__); w = memwatch.MemoryWatcher(); w.close()"
    told = run(sys.executable, "-c", code, PYTHONPATH=str(packages[0]))
    assert Path(told.strip()).is_relative_to(installed)
