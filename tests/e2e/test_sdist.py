"""The source distribution: what is in it, and that it builds the whole package where there is nothing else of ours."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from .conftest import ROOT, WAIT_S

LIMIT_S = 10 * WAIT_S  # compiling all of it, on a machine that has other things to do
TREES = ("native", "exporter", "recorder", "python")
TOP = {"LICENSE", "README.md", "CHANGELOG.md", "MANIFEST.in", "Makefile", "setup.py", "pyproject.toml"}
MADE = {"PKG-INFO", "setup.cfg"}  # by setuptools


def run(*command: str, cwd: Path = ROOT) -> str:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of a copy, so that nothing is left behind in the work tree."""
    tree, made = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("sdist")
    run("scripts/copy_tree", str(tree))
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(made)!r})"
    run(sys.executable, "-c", code, cwd=tree)
    (found,) = made.iterdir()
    return found


def test_the_manifest(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if "." in name or "Makefile" in name}
    names = {name for name in names if not name.startswith("python/memwatch.egg-info")} - MADE
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    tracked = [name for name in tracked if (ROOT / name).exists()]
    wanted = {name for name in tracked if name.startswith(TREES)} | TOP
    wanted |= {name for name in tracked if name.startswith("scripts/") and name.endswith(".in")} | {"LICENSE"}
    assert {name for name in names if (ROOT / name).is_file()} == wanted


@pytest.mark.timeout(3 * LIMIT_S)
def test_it_builds_and_installs_the_whole(sdist: Path, tmp_path: Path) -> None:
    wheels, venv = tmp_path / "wheels", tmp_path / "venv"
    options = ["--no-deps", "--no-index"]
    run(sys.executable, "-m", "pip", "wheel", "-q", *options, "--no-build-isolation", "-w", str(wheels), str(sdist))
    (wheel,) = wheels.iterdir()
    run(sys.executable, "-m", "venv", str(venv))
    run(str(venv / "bin/python"), "-m", "pip", "install", "-q", *options, str(wheel))
    told = json.loads(run(str(venv / "bin/python"), str(Path(__file__).with_name("installed_check.py")), cwd=tmp_path))
    assert told["from"].startswith(str(venv))


def test_the_metadata_names_the_license(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        member = next(member for member in archive if member.name.count("/") == 1 and member.name.endswith("PKG-INFO"))
        file = archive.extractfile(member)
        assert file is not None
        lines = file.read().decode().splitlines()
    assert {"License-Expression: MIT", "License-File: LICENSE", "Requires-Python: >=3.11"} <= set(lines)
    assert not [line for line in lines if line.startswith("Classifier: License")]
