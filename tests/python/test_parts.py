"""What a missing part costs: that part. Its true cause is said once at import, by the doctor and in get_stats()."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import memwatch
from memwatch import _core

PACKAGE = Path(memwatch.__file__).parent
SUFFIX = "".join(Path(_core.__file__).name.partition(".")[1:])
NAME = {"core": "_core", "exporter": "_core_exporter", "recorder": "_core_recorder"}
LIBRARY = {"exporter": rb"libmicrohttpd\.so", "recorder": rb"libsqlite3\.so", "core": rb"libdw\.so"}

PROGRAM = """
import sys, warnings
sys.path.insert(0, sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import memwatch
    import memwatch
    import memwatch._doctor
    import memwatch.adapters
assert memwatch.__file__.startswith(sys.argv[1])
for warning in caught:
    print("warning:", warning.message)
with memwatch.MemoryWatcher() as watcher:
    data = bytearray(9000)
    if len(sys.argv) > 2:
        watcher.watch(data, "data")
        data[5000] = 1
        assert watcher.flush()
        assert watcher.get_stats()["delivered"] == 1
    print("stats:", watcher.get_stats()["missing"])
    try:
        watcher.serve(port=0).close()
        print("serves")
    except memwatch.Error as error:
        print("serve:", error.strerror)
try:
    memwatch.MemoryWatcher(history_path=sys.argv[1] + "/recording").close()
    print("records")
except memwatch.Error as error:
    print("record:", error.strerror)
print(memwatch._doctor.text(memwatch._doctor.report()))
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package, for this Python."""
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".py", ".pyi") or path.name.endswith(SUFFIX):
            target = tmp_path / "memwatch" / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path


def lose_library(package, part):
    """As if the machine had no such library."""
    path = package / "memwatch" / f"{NAME[part]}{SUFFIX}"
    path.write_bytes(re.sub(LIBRARY[part], lambda name: name[0].replace(b"lib", b"Lib"), path.read_bytes()))


def lines_of(run_python, package, *arguments):
    run = run_python(PROGRAM, str(package), *arguments, options=("-X", "dev"), environ={"PYTHONPATH": ""})
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_nothing_is_missing(run_python, package):
    lines = lines_of(run_python, package, "native")
    assert lines[:3] == ["stats: {}", "serves", "records"]


@pytest.mark.parametrize(("part", "other"), [("exporter", "records"), ("recorder", "serves")])
def test_a_library_that_is_missing_when_it_runs(run_python, package, part, other):
    lose_library(package, part)
    lines = lines_of(run_python, package, "native")
    warnings = [line for line in lines if line.startswith("warning:")]
    assert len(warnings) == 1
    cause = re.search(rf"memwatch runs without its {part}: (Lib.*cannot open shared object file.*)", warnings[0])[1]
    assert lines[1] == f"stats: {{{part!r}: {cause!r}}}"
    assert other in lines
    assert any(line.startswith(("serve:", "record:")) and line.endswith(f"{part}: {cause}") for line in lines)
    assert f"  - {part}: {cause}" in lines


def test_the_core_that_is_missing_when_it_runs(run_python, package):
    lose_library(package, "core")
    lines = lines_of(run_python, package)
    assert len([line for line in lines if line.startswith("warning:")]) == 1
    assert re.match(r"warning: memwatch runs without its C extension: Libdw.so.1: cannot open shared object", lines[0])
    assert any(line.startswith("  - native: Libdw.so.1: cannot open") for line in lines)


def test_what_could_not_be_built(run_python, package):
    why = "microhttpd.h was not found (on Debian: apt-get install libmicrohttpd-dev)"
    (package / "memwatch" / f"_core_exporter{SUFFIX}").unlink()
    (package / "memwatch" / "_built.py").write_text(f"MISSING = {{'exporter': {why!r}}}")
    lines = lines_of(run_python, package, "native")
    assert lines[0] == f"warning: memwatch runs without its exporter: not built: {why}"
    assert "records" in lines


def test_what_was_built_for_another_python(run_python, package):
    other = "cpython-38-x86_64-linux-gnu"
    for name in NAME.values():
        (package / "memwatch" / f"{name}{SUFFIX}").rename(package / "memwatch" / f"{name}.{other}.so")
    (package / "memwatch" / "_built.py").write_text("MISSING = {}")
    lines = lines_of(run_python, package)
    cause = f"not built for this Python, but for {other}"
    assert lines[0].startswith(f"warning: memwatch runs without its C extension: {cause}")
    assert f"  - native: {cause}" in lines


@pytest.mark.parametrize("part", ["_core_exporter", "_core_recorder"])
def test_a_part_calls_the_library_through_the_core_alone(part):
    path = PACKAGE / f"{part}{SUFFIX}"
    symbols = subprocess.run(["nm", "-uD", str(path)], capture_output=True, text=True, check=True).stdout
    assert not re.findall(r"\b(?:memwatch|watcher|dependent)_\w+", symbols), "it needs a row in python/ext/api.inc"
