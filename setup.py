"""Builds the package's extension modules: asks make for the static libraries and pkg-config for the flags.

memwatch._core is the library itself. _core_exporter and _core_recorder are modules of their own, so that what
one of them needs and this machine lacks is that one's loss alone. Without _core the package works in pure Python, by
polling. Why something was not built stands in the package, in _built.py, and is said when it is imported.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build"
EXT = Path("python") / "ext"
CORE, PARTS = "core", ("exporter", "recorder")
PART_SOURCES = {"exporter": ("exporter.c",), "recorder": ("recorder.c",)}
PART_SHARED = ("part.c", "convert.c", "options.c")  # of a part, too; part.c is of nothing else
# What Debian calls the package that has a header or a library.
DEBIAN = {
    "elfutils/": "libdw-dev",
    "dwarf.h": "libdw-dev",
    "xxhash.h": "libxxhash-dev",
    "microhttpd.h": "libmicrohttpd-dev",
    "cjson/": "libcjson-dev",
    "zlib.h": "zlib1g-dev",
    "sqlite3.h": "libsqlite3-dev",
    "Python.h": "python3-dev",
    "stdio.h": "build-essential",
}
C_FLAGS = ["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wshadow"]


class BuildError(Exception):
    """Says what is missing."""


def reason(output):
    """The first error in a compiler's or make's output, and what to do about it."""
    lines = [line.strip() for line in output.splitlines() if re.search(r"error|cannot|not found|No such", line, re.I)]
    line = lines[0] if lines else (output.strip().splitlines() or ["make failed"])[-1]
    header = re.search(r"fatal error: (\S+): No such file", line)
    if not header:
        return line
    package = next((name for start, name in DEBIAN.items() if header[1].startswith(start)), None)
    return f"{header[1]} was not found" + (f" (on Debian: apt-get install {package})" if package else "")


def make(library):
    if not shutil.which("make"):
        raise BuildError("make was not found (on Debian: apt-get install build-essential)")
    if not shutil.which(os.environ.get("CC", "gcc").split()[0]):
        raise BuildError("no C compiler was found (on Debian: apt-get install build-essential)")
    environ = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "-s", f"-j{os.cpu_count() or 1}", f"PYTHON={sys.executable}", str(library.relative_to(ROOT))]
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if run.returncode:
        print(run.stdout + run.stderr, file=sys.stderr)
        raise BuildError(reason(run.stderr + run.stdout))


def pkg_config(*arguments):
    if not shutil.which("pkg-config"):
        raise BuildError("pkg-config was not found (on Debian: apt-get install pkg-config)")
    environ = dict(os.environ, PKG_CONFIG_PATH=os.pathsep.join([str(BUILD), os.environ.get("PKG_CONFIG_PATH", "")]))
    run = subprocess.run(["pkg-config", *arguments], env=environ, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BuildError(f"pkg-config {' '.join(arguments)}: {run.stderr.strip()}")
    return run.stdout.split()


class Build(build_ext):
    """build_ext that makes the libraries first, and writes down what could not be built."""

    def run(self):
        self.missing = {}
        super().run()
        self.write_down()

    def build_extension(self, ext):
        part = ext.name.rpartition("_")[2]
        try:
            if CORE in self.missing:
                raise BuildError(f"it needs memwatch._core: {self.missing[CORE]}")
            self.link(ext, part)
            super().build_extension(ext)
        except BuildError as error:
            self.missing[part] = str(error)
        except Exception as error:  # a compiler's; setuptools has many names for it
            self.missing[part] = str(error).strip().splitlines()[0]
        if part in self.missing:
            print(f"memwatch: without the {part}: {self.missing[part]}", file=sys.stderr)

    def link(self, ext, part):
        library = "memwatch" if part == CORE else f"memwatch_{part}"
        archive = BUILD / f"lib{library}.a"
        make(archive)
        ext.extra_compile_args += pkg_config("--cflags", library)
        # Of the shared libraries those that ours calls itself, not what those need in turn.
        needs = pkg_config("--print-requires-private", library)
        # Our archive by its path: -lmemwatch would take the shared library beside it.
        ext.extra_link_args += [str(archive), *pkg_config("--libs", *needs), "-ldl", "-lpthread"]
        ext.extra_link_args += ["-Wl,--as-needed", "-Wl,--exclude-libs,ALL", "-Wl,-z,now"]
        ext.depends += [str(archive)]

    def write_down(self):
        package = Path(self.get_ext_fullpath("memwatch._core")).parent
        package.mkdir(parents=True, exist_ok=True)
        lines = [f"    {part!r}: {why!r}," for part, why in sorted(self.missing.items())]
        head = '"""Written when the package was built: what could not be, and why."""\n\nMISSING: dict[str, str] = {'
        (package / "_built.py").write_text("\n".join([head, *lines, "}\n"]), encoding="utf-8")

    def get_output_mapping(self):
        """setuptools asks where each module is to be: of those that are there."""
        return {path: source for path, source in super().get_output_mapping().items() if os.path.exists(path)}

    def copy_extensions_to_source(self):
        """In place, only what was built."""
        self.extensions = [ext for ext in self.extensions if ext.name.rpartition("_")[2] not in self.missing]
        super().copy_extensions_to_source()


def extension(part, files):
    headers = sorted(str(path.relative_to(ROOT)) for path in (ROOT / EXT).glob("*.h")) + [f"{EXT}/api.inc"]
    sources = [str(EXT / name) for name in files]
    name = "memwatch._core" if part == CORE else f"memwatch._core_{part}"
    return Extension(name, sources, depends=headers, extra_compile_args=list(C_FLAGS))


of_parts = {name for names in PART_SOURCES.values() for name in names} | {"part.c"}
of_core = sorted(path.name for path in (ROOT / EXT).glob("*.c") if path.name not in of_parts)

setup(
    ext_modules=[extension(CORE, of_core)] + [extension(part, (*PART_SOURCES[part], *PART_SHARED)) for part in PARTS],
    cmdclass={"build_ext": Build},
)
