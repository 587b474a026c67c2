"""Builds memwatch._core: asks make for the static libraries and pkg-config for the flags.

Where they cannot be built the package is installed without the extension and works in pure Python, by polling.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build"
MEMWATCH = BUILD / "libmemwatch.a"
# What may be left out: the files of python/ext that need the archive, and what Debian calls the libraries it needs.
PARTS = {
    "exporter": (["exporter.c"], "libmicrohttpd-dev libcjson-dev"),
    "recorder": (["recorder.c"], "libsqlite3-dev"),
}
C_FLAGS = ["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wshadow"]


class BuildError(Exception):
    """Says what is missing."""


def make(library):
    if not shutil.which("make"):
        raise BuildError("memwatch: building the C extension needs make and a C compiler")
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
    run = subprocess.run(
        ["make", "-s", str(library.relative_to(ROOT))], cwd=ROOT, env=environ, stdout=sys.stderr.fileno(), check=False
    )
    return run.returncode == 0


def pkg_config(*arguments):
    if not shutil.which("pkg-config"):
        raise BuildError("memwatch: building the C extension needs pkg-config")
    environ = dict(os.environ, PKG_CONFIG_PATH=os.pathsep.join([str(BUILD), os.environ.get("PKG_CONFIG_PATH", "")]))
    command = ["pkg-config", *arguments]
    run = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BuildError(f"memwatch: {' '.join(command)}: {run.stderr.strip()}")
    return run.stdout.split()


class Build(build_ext):
    """build_ext that makes the libraries first."""

    def build_extension(self, ext):
        try:
            self.link_memwatch(ext)
        except BuildError as error:
            print(error, file=sys.stderr)
            print("memwatch: installing without the C extension; it will poll, in pure Python", file=sys.stderr)
            return
        super().build_extension(ext)

    def link_memwatch(self, ext):
        if not make(MEMWATCH):
            raise BuildError("memwatch: libmemwatch did not build (on Debian: apt-get install libdw-dev libxxhash-dev)")
        packages, archives = ["memwatch"], [MEMWATCH]
        for part, (files, needs) in PARTS.items():
            archive = BUILD / f"libmemwatch_{part}.a"
            if make(archive):
                packages.insert(0, f"memwatch_{part}")
                archives.insert(0, archive)
                ext.define_macros.append((f"MEMWATCH_WITH_{part.upper()}", "1"))
            else:
                print(f"memwatch: without the {part} (on Debian: apt-get install {needs})", file=sys.stderr)
                ext.sources = [source for source in ext.sources if Path(source).name not in files]
        # What the archives call themselves; --static would add what those libraries would need as archives.
        flags = pkg_config("--cflags", "--libs", *packages, *pkg_config("--print-requires-private", *packages))
        ext.extra_compile_args += [flag for flag in flags if not flag.startswith("-l")]
        # The archives by their paths: -lmemwatch would take the shared library beside them.
        ext.extra_link_args += [str(archive) for archive in archives]
        ext.extra_link_args += [flag for flag in flags if flag.startswith("-l") and "memwatch" not in flag]
        ext.extra_link_args += ["-Wl,--exclude-libs,ALL", "-Wl,-z,now"]
        ext.depends += [str(archive) for archive in archives]


sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "python" / "ext").glob("*.c"))
headers = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "python" / "ext").glob("*.h"))

setup(
    ext_modules=[
        Extension("memwatch._core", sources, depends=headers, extra_compile_args=list(C_FLAGS), optional=True)
    ],
    cmdclass={"build_ext": Build},
)
