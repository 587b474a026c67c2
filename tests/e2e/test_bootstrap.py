"""Installing what is missing: quiet when nothing is, and plain words when it may not."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import wait_for

from .conftest import ROOT, WAIT_S


def bootstrap(level: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/bootstrap", level],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def fake(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A directory with every command of the system, for a PATH in which some can be replaced or left out."""
    for directory in ("/bin", "/usr/bin"):
        for command in Path(directory).iterdir():
            link = tmp_path / command.name
            if not link.is_symlink():
                link.symlink_to(command)
    return tmp_path


@pytest.mark.parametrize("level", ["c", "build", "test"])
def test_with_everything_there_it_says_nothing_and_asks_nobody(commands: Path, level: str) -> None:
    asked = commands / "asked"
    fake(commands, "apt-get", f"echo apt-get >> {asked}")
    done = bootstrap(level, PATH=f"{commands}:{os.environ['PATH']}", PYTHON=sys.executable, PIP_NO_INDEX="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not asked.exists()


@pytest.mark.parametrize("sudo", ["exit 1", None], ids=["asks for a password", "is not there"])
def test_without_rights_one_line_says_what_to_install(commands: Path, sudo: str | None) -> None:
    (commands / "prometheus").unlink()
    fake(commands, "id", "echo 1000")
    (commands / "sudo").unlink(missing_ok=True)
    if sudo:
        fake(commands, "sudo", sudo)
    done = bootstrap("test", PATH=str(commands), PYTHON=sys.executable, MEMWATCH_APT="1")
    assert done.returncode == 1
    assert done.stderr == (
        "memwatch: system packages are missing: run 'apt-get install prometheus' as root, then make again\n"
    )


@pytest.mark.parametrize(("level", "wanted"), [("demo", ""), ("stack", "prometheus")])
def test_a_target_asks_for_what_it_needs_and_no_more(commands: Path, level: str, wanted: str) -> None:
    for tool in ("prometheus", "promtool", "chromium", "clang", "clang-tidy", "valgrind", "gdb", "cmake", "meson"):
        (commands / tool).unlink(missing_ok=True)
    fake(commands, "id", "echo 1000")
    done = bootstrap(level, PATH=str(commands), PYTHON=sys.executable, PIP_NO_INDEX="1")
    told = f"memwatch: system packages are missing: run 'apt-get install {wanted}' as root, then make again\n"
    assert done.stderr == (told if wanted else "")


def test_nothing_becomes_root_without_a_word(commands: Path) -> None:
    """Where sudo asks for no password, too."""
    asked = commands / "asked"
    (commands / "prometheus").unlink()
    fake(commands, "id", "echo 1000")
    fake(commands, "sudo", f"echo $@ >> {asked}")
    done = bootstrap("test", PATH=str(commands), PYTHON=sys.executable)
    assert done.returncode == 1 and "apt-get install prometheus" in done.stderr
    assert not asked.exists()
    bootstrap("test", PATH=str(commands), PYTHON=sys.executable, MEMWATCH_APT="1")
    assert "scripts/apt_install prometheus" in asked.read_text()


def test_without_apt_one_line_names_the_packages(commands: Path) -> None:
    (commands / "prometheus").unlink()
    (commands / "apt-get").unlink()
    done = bootstrap("test", PATH=str(commands), PYTHON=sys.executable)
    assert done.returncode == 1
    assert done.stderr == (
        "memwatch: this system lacks what Debian calls prometheus: install it, then run make again\n"
    )


def test_an_old_python_is_refused(commands: Path) -> None:
    fake(commands, "python-old", "exit 1")
    done = bootstrap("build", PATH=str(commands), PYTHON="python-old")
    assert done.stderr == "memwatch: Python 3.11 or newer is needed\n"


POLICY = "policy-rc.d"


@pytest.fixture
def installing(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts scripts/apt_install with an apt-get of ours and, in a mount namespace, a /usr/sbin of its own."""
    (tmp_path / "sbin").mkdir()
    (tmp_path / "bin").mkdir()
    started = []

    def start(apt_get: str) -> subprocess.Popen[bytes]:
        fake(tmp_path / "bin", "apt-get", apt_get)
        script = 'mount --bind "$1" /usr/sbin && exec scripts/apt_install something'
        command = ["unshare", "--mount", "sh", "-c", script, "-", tmp_path / "sbin"]
        env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        started.append(subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have a /usr/sbin of its own")


@needs_root
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, "it fails", "it is done"])
def test_what_keeps_services_from_starting_goes_away_whatever_happens(
    tmp_path: Path, installing: Callable[[str], subprocess.Popen[bytes]], how: signal.Signals | str
) -> None:
    """As long as it is there no package's service starts, on this machine, ever."""
    policy = tmp_path / "sbin" / POLICY
    ends = {"it fails": "exit 1", "it is done": "exit 0"}.get(str(how), "exec sleep 100")
    process = installing(f"cat {policy} >{tmp_path}/seen; {ends}")
    wait_for(lambda: (tmp_path / "seen").exists() and (tmp_path / "seen").stat().st_size > 0, WAIT_S)
    assert "exit 101" in (tmp_path / "seen").read_text()
    if isinstance(how, signal.Signals):
        process.send_signal(how)
        if how != signal.SIGKILL:  # a shell waits for what it runs before it looks at a signal
            subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
    process.wait(WAIT_S)
    wait_for(lambda: not policy.exists(), WAIT_S)


@needs_root
def test_what_an_administrator_put_there_stays(
    tmp_path: Path, installing: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    policy = tmp_path / "sbin" / POLICY
    policy.write_text("#!/bin/sh\nexit 0\n")
    assert installing("exit 0").wait(WAIT_S) == 0
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"
