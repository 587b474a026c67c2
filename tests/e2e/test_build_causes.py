"""What setup.py says of what it could not build: the true cause, and the package that brings it, or none."""

import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import setuptools

from .conftest import ROOT


def needed() -> list[tuple[str, str]]:
    """What the C libraries and the extension take, as scripts/bootstrap has it: a package, and a header of it."""
    text = (ROOT / "scripts/bootstrap").read_text().partition("prometheus has")[0]
    return [*re.findall(r"^\t+(\S+) .*has_header (\S+)$", text, re.MULTILINE), ("python3-dev", "Python.h")]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """setup.py's names, without a build."""
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    return runpy.run_path(str(ROOT / "setup.py"))


def preprocess(header: str, directory: Path) -> str:
    """What the compiler prints where there is no such header."""
    command = ["gcc", "-nostdinc", f"-I{directory}", "-E", "-x", "c", "-"]
    run = subprocess.run(command, input=f"#include <{header}>\n", capture_output=True, text=True, check=False)
    assert run.returncode, header
    return run.stderr


@pytest.mark.parametrize(("package", "header"), needed())
def test_a_missing_header_is_named_with_its_package(
    script: dict[str, Any], tmp_path: Path, package: str, header: str
) -> None:
    said = script["reason"](preprocess(header, tmp_path))
    assert len(needed()) >= 8
    assert said == f"{header} was not found (on Debian: apt-get install {package})"


@pytest.mark.parametrize(
    "line",
    [
        "/bin/sh: 1: python3: not found",
        "/usr/bin/ld: cannot find -ldw: No such file or directory",
        "exporter/embed names a file that is not there: page.css: cannot go on",
        "event.h:5:10: fatal error: ours.h: No such file or directory",
    ],
)
def test_no_package_is_named_for_anything_else(script: dict[str, Any], line: str) -> None:
    said = script["reason"](f"In file included from event.c:3:\n{line}\nmake: *** [Makefile:200: it] Error 1\n")
    assert "apt-get" not in said
    assert said == line or said == "ours.h was not found"


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([], "make was not found (on Debian: apt-get install build-essential)"),
        (["make"], "no C compiler was found (on Debian: apt-get install build-essential)"),
    ],
)
def test_a_missing_tool_is_named(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: list[str], said: str
) -> None:
    for tool in tools:
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(script["BuildError"], match=re.escape(said)):
        script["make"](ROOT / "build/libmemwatch.a")
    with pytest.raises(script["BuildError"], match="pkg-config was not found"):
        script["pkg_config"]("--cflags", "memwatch")


def test_the_page_is_embedded_without_python(tmp_path: Path) -> None:
    """Its want was once told as that of libmicrohttpd."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "dirname", "cat", "od", "sed", "mv"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    made = tmp_path / "page.h"
    subprocess.run(["sh", str(ROOT / "exporter/embed"), str(made)], env={"PATH": str(tools)}, check=True)
    assert "page_app_js[]" in made.read_text()


def test_what_could_not_be_built_is_written_down(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a part that needs another one the cause is the other's."""
    why = "xxhash.h was not found (on Debian: apt-get install libxxhash-dev)"
    monkeypatch.chdir(ROOT)

    def fails(library: Path) -> None:
        raise script["BuildError"](why)

    build = script["Build"]
    monkeypatch.setitem(build.link.__globals__, "make", fails)
    distribution = setuptools.Distribution({"ext_modules": [script["extension"]("core", [])]})
    distribution.ext_modules.append(script["extension"]("recorder", []))
    command = build(distribution)
    command.build_lib, command.build_temp = str(tmp_path), str(tmp_path / "temp")
    command.ensure_finalized()
    command.run()
    written = runpy.run_path(str(tmp_path / "memwatch/_built.py"))["MISSING"]
    assert written == {"core": why, "recorder": f"it needs memwatch._core: {why}"}
    assert not [name for name in os.listdir(tmp_path / "memwatch") if name.endswith(".so")]
