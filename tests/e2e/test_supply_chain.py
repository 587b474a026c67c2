"""What is installed is what was looked at: versions, hashes, digests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, WAIT_S

NAMES = ["requirements", "requirements-test", "requirements-dev"]


def pinned(name: str) -> dict[str, set[str]]:
    """By package and version, the hashes of its files."""
    text = (ROOT / f"{name}.lock").read_text().replace("\\\n", " ")
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            package = re.match(r"[\w.-]+==[\w.]+", line)
            assert package, line
            found[package[0].replace("_", "-").lower()] = set(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", line))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_for_is_locked_with_its_hashes(name: str) -> None:
    locked = pinned(name)
    assert all(locked.values())
    asked = re.findall(r"^[\w.-]+==[\w.]+", (ROOT / f"{name}.txt").read_text(), re.M)
    assert asked and {each.replace("_", "-").lower() for each in asked} <= set(locked), "run scripts/lock"


def test_the_locks_agree() -> None:
    everything = pinned("requirements-dev")
    for name in NAMES[:2]:
        assert pinned(name).items() <= everything.items(), "run scripts/lock"


def test_nothing_is_installed_from_a_list_without_hashes() -> None:
    for path in [*(ROOT / "scripts").iterdir(), ROOT / "Makefile", ROOT / ".ci/run"]:
        for line in path.read_text().splitlines() if path.is_file() else ():
            if re.search(r"pip install\b.* -r\b", line):
                assert "--require-hashes" in line and ".txt" not in line, f"{path}: {line}"


def test_a_file_of_another_hash_is_refused(tmp_path: Path) -> None:
    """As whoever can replace a file on the way would have it."""
    (tmp_path / "other-1.0.tar.gz").write_bytes(b"something else")
    (tmp_path / "lock").write_text(f"other==1.0 --hash=sha256:{64 * '0'}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-index", "--no-deps", "--find-links", tmp_path]
    done = subprocess.run(
        [*command, "--require-hashes", "-d", tmp_path / "out", "-r", tmp_path / "lock"],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode != 0 and "HASHES" in done.stderr.upper()


def test_images_are_pinned_by_a_command(tmp_path: Path) -> None:
    """Twice: a pinned image gets the digest that its tag has by then."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "dashboards").mkdir()
    for name in ("scripts/pin_images", "dashboards/Dockerfile", "dashboards/compose.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for digit in "12":
        docker = tmp_path / "docker"
        docker.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\necho sha256:{64 * digit}\n')
        docker.chmod(0o755)
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run([tmp_path / "scripts/pin_images"], env=env, timeout=WAIT_S, check=True, capture_output=True)
    for name in ("Dockerfile", "compose.yaml"):
        before, after = ((place / "dashboards" / name).read_text() for place in (ROOT, tmp_path))
        images = re.findall(r"^(?:FROM|\s*image:)\s+(\S+)", after, re.M)
        assert images and all(each.endswith(f"@sha256:{64 * '2'}") for each in images)
        assert after.replace(f"@sha256:{64 * '2'}", "") == re.sub(r"@sha256:\w+", "", before)
    assert "@" not in (tmp_path / "asked").read_text()
    docker.write_text("#!/bin/sh\necho no such image\n")
    done = subprocess.run([tmp_path / "scripts/pin_images"], env=env, timeout=WAIT_S, capture_output=True, text=True)
    assert done.returncode != 0 and "no such image" in done.stderr
