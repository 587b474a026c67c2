"""The README's programs run as they stand there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from .conftest import ROOT, WAIT_S

README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    found = [
        text
        for text in re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
        if containing in text
    ]
    assert len(found) == 1, f"{len(found)} blocks of {language} contain {containing!r}"
    return found[0]


def run(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env or None, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_python_quick_start(tmp_path: Path) -> None:
    source = block("python", "MemoryWatcher()")
    program = tmp_path / "quick_start.py"
    program.write_text(source)
    line = 1 + source.splitlines().index('data[0] = ord("J")')

    lines = run(sys.executable, "-X", "dev", "-W", "error", str(program), cwd=tmp_path).splitlines()

    assert lines == ["data: b'Hello' -> b'Jello'", f"written by <module>, {program}:{line}"]


def test_c_quick_start(tmp_path: Path) -> None:
    (tmp_path / "program.c").write_text(block("c", "int main"))
    command = block("bash", "pkg-config --cflags").strip()

    env = {"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(ROOT / "build"), "LD_LIBRARY_PATH": str(ROOT / "build")}
    run("bash", "-c", command, cwd=tmp_path, **env)

    assert run("./program", cwd=tmp_path, **env) == "config changed, written by main\n"


def test_the_header_has_the_same_program() -> None:
    header = (ROOT / "native/include/memwatch/memwatch.h").read_text()
    comment = header[header.index("A COMPLETE PROGRAM") : header.index(" * ERRORS")]
    told = re.sub(r"^ \* ?|//.*$", "", comment.split("\n", 1)[1], flags=re.MULTILINE)

    assert told.split() == block("c", "int main").split()


def test_every_path_of_the_tour_exists() -> None:
    tour = README[README.index("## A tour") :]
    for cell in re.findall(r"^\| (`[^|]*`) \|", tour, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", cell):
            assert (ROOT / name).exists(), name


def test_every_make_target_of_the_readme_exists() -> None:
    targets = re.findall(r"(?:`|^)make ([a-z][a-z-]*)\b", README, re.MULTILINE)
    assert targets
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{shlex.quote(target)}:.*## ", makefile, re.MULTILINE), target
