"""What users have been promised: the quick reference's commands and programs, as they stand there."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, WAIT_S

QUICK_START = """
from memwatch import MemoryWatcher

watcher = MemoryWatcher()

# Track a buffer
data = bytearray(b"Hello")
watcher.watch(data, name="data")

# Set callback
def on_change(event):
    print(f"{event.variable_name} changed!")
    print(f"Old: {event.old_value}")
    print(f"New: {event.new_value}")

watcher.set_callback(on_change)

# Modify - callback fires!
data[0] = ord('J')
"""

NUMPY = """
import numpy as np
array = np.zeros((1000, 1000))
watcher.watch(array, name="my_array")
"""

MANY = """
buffers = [bytearray(100) for _ in range(10)]
for i, buf in enumerate(buffers):
    watcher.watch(buf, name=f"buf_{i}")
"""

AUTO = """
watcher.all()  # Watches all variables in scope
"""

STATISTICS = """
stats = watcher.get_stats()
print(f"Tracking {stats['tracked_regions']} regions")
print(f"Memory: {stats['native_memory_bytes']:,} bytes")
"""

FIELDS = """
def on_change(event):
    event.seq              # Sequence number
    event.timestamp_ns     # When (nanoseconds)
    event.variable_name    # Variable name
    event.where            # {file, function, line, fault_ip}
    event.how_big          # Size in bytes

    # For small values (≤ 4KB):
    event.old_value        # Full old value
    event.new_value        # Full new value

    # For large values (> 4KB):
    event.storage_key_old  # Storage key
    event.storage_key_new  # Storage key

    # Always available:
    event.old_preview      # First 256 bytes
    event.new_preview      # First 256 bytes
"""

ADAPTER = """
from memwatch.adapters import TrackerAdapter

class MyAdapter(TrackerAdapter):
    def track(self, obj, metadata):
        # Register with native core
        # Return region_id
        pass

    def untrack(self, region_id):
        # Unregister
        pass

    def check_changes(self):
        # Optional: sync check
        return []

    def get_stats(self):
        return {'adapter': 'my_adapter'}

# Use custom adapter
watcher = MemoryWatcher(adapter=MyAdapter())
"""

Runner = Callable[..., str]

pytestmark = pytest.mark.timeout(5 * WAIT_S)


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    return {**kept, **changes}


def run(*command: str, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=5 * WAIT_S, check=False)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, as a clone has them, and the objects made from them: compiling those once is enough."""
    directory = tmp_path_factory.mktemp("clone") / "memwatch"
    made = shutil.ignore_patterns(
        ".git", "build", ".venv*", "*.so", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, directory, ignore=made)
    shutil.copytree(ROOT / "build" / "obj", directory / "build" / "obj")
    for name in ("flags", "exporter_page.h"):
        shutil.copy2(ROOT / "build" / name, directory / "build" / name)
    return directory


@pytest.fixture(scope="module")
def python3(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Runs commands in the clone, where `python3` is an interpreter that has no memwatch yet."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", str(venv), cwd=clone, env=environment())
    packages = run(
        str(venv / "bin/python3"),
        "-c",
        "import sysconfig; print(sysconfig.get_path('purelib'))",
        cwd=clone,
        env=environment(),
    )
    # What building and the examples need (setuptools, NumPy) comes from the environment that runs the tests; the
    # .pth files there, memwatch's among them, do not take effect in this way.
    (Path(packages.strip()) / "borrowed.pth").write_text(str(Path(pytest.__file__).parents[1]) + "\n")
    env = environment(PATH=f"{venv / 'bin'}:{os.environ['PATH']}", VIRTUAL_ENV=str(venv))

    def in_clone(command: str, cwd: Path = clone) -> str:
        return run("bash", "-c", command, cwd=cwd, env=env)

    return in_clone


@pytest.fixture(scope="module")
def installed(python3: Runner, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Runs a program outside the clone, after the quick reference's installation."""
    python3("python3 setup.py build_ext --inplace")
    python3("python3 setup.py install")
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def program(*parts: str) -> str:
        (elsewhere / "program.py").write_text("\n".join(map(textwrap.dedent, parts)), encoding="utf-8")
        return python3("python3 -W error program.py", cwd=elsewhere)

    return program


def test_the_package_is_installed_outside_the_clone(installed: Runner, clone: Path) -> None:
    assert str(clone) not in installed(
        "import memwatch, memwatch._core; print(memwatch.__file__, memwatch._core.__file__)"
    )


def test_quick_start(installed: Runner) -> None:
    assert installed(QUICK_START).splitlines() == ["data changed!", "Old: b'Hello'", "New: b'Jello'"]


def test_common_use_cases(installed: Runner) -> None:
    check = """
    assert watcher.get_stats()["tracked_regions"] == 12
    array[3, 4] = 5
    buffers[7][0] = 1
    assert watcher.flush(10)
    """
    lines = installed(QUICK_START, "watcher.flush(10)", NUMPY, MANY, check, STATISTICS).splitlines()
    assert {"my_array changed!", "buf_7 changed!", "Tracking 12 regions"} <= set(lines)
    assert not {f"buf_{i} changed!" for i in range(10) if i != 7} & set(lines)


def test_watching_everything_in_scope(installed: Runner) -> None:
    check = """
    assert watcher.get_stats()["tracked_regions"] >= 2, watcher.get_stats()
    second[0] = 1
    watcher.flush(10)
    """
    assert "second changed!" in installed(QUICK_START, "second = bytearray(9)", AUTO, check).splitlines()


def test_event_fields(installed: Runner) -> None:
    check = """
    seen = []
    watcher.set_callback(lambda event: (on_change(event), seen.append(event)))
    big = bytearray(5000)
    watcher.watch(big, name="big")
    big[9] = 1
    data[0] = 1
    watcher.close()
    small, large = (next(e for e in seen if e.variable_name == name) for name in ("data", "big"))
    assert {"file", "function", "line", "fault_ip"} <= set(small.where), small.where
    assert small.new_value == bytes(data) and small.how_big == 5
    assert large.old_value is None and large.storage_key_old and large.storage_key_new
    assert large.new_preview == bytes(big[:256]) and small.seq and small.timestamp_ns
    """
    installed(QUICK_START, "watcher.flush(10)", FIELDS, check)


def test_custom_adapter(installed: Runner) -> None:
    check = """
    thing = object()
    watcher.watch(thing, name="thing")
    watcher.unwatch("thing")
    watcher.close()
    """
    installed("from memwatch import MemoryWatcher", ADAPTER, check)


@pytest.mark.parametrize(
    "script",
    [
        "examples/small_buffer_demo.py",
        "examples/large_buffer_demo.py",
        "tests/page_sharing_test.py",
        "tests/overflow_test.py",
        "tests/integration_test.py",
    ],
)
def test_scripts(installed: Runner, python3: Runner, script: str) -> None:
    assert python3(f"python3 {script}")


def test_make_demo() -> None:
    text = run("make", "demo", "DEMO_SECONDS=2", cwd=ROOT, env=environment())
    assert "live page" in text
    assert "changes detected = " in text


def test_make_examples() -> None:
    text = run("make", "examples", cwd=ROOT, env=environment(EXAMPLE_SECONDS="1"))
    shown = [line for line in text.splitlines() if line.startswith("== ")]
    sources = sorted(path.stem for path in (ROOT / "examples").iterdir() if path.suffix in {".c", ".py"})
    assert sorted(Path(line.split()[2 if ".py" in line else 1]).stem for line in shown) == sources
