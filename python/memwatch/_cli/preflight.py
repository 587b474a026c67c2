"""Can a process be attached to? One sentence for each thing that is missing, before anything is done to it."""

from __future__ import annotations

import os
import re
import shutil
import stat
from typing import Iterator, NamedTuple, Optional

from memwatch._cli.processes import namespace

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST = (3, 11)
REMOTE_EXEC = (3, 14)
_CAP_SYS_PTRACE = 1 << 19


class Check(NamedTuple):
    """One thing that has to hold."""

    good: bool
    sentence: str


class Target(NamedTuple):
    """What /proc says of a process."""

    pid: int
    status: dict[str, str]
    version: Optional[tuple[int, int]]
    free_threaded: bool
    executable: str

    @property
    def method(self) -> str:
        """How code comes into it."""
        return "remote_exec" if self.version is not None and self.version >= REMOTE_EXEC else "gdb"


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def target_of(pid: int) -> Target:
    """OSError when there is no such process, or it is none of ours."""
    status = dict(line.split(":\t", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    try:
        mapped = _read(f"/proc/{pid}/maps")
        executable = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        mapped = executable = ""
    found = re.search(r"/libpython(3)\.(\d+)(t?)[^/\n]*\.so", mapped) or re.search(
        r"/python(3)\.(\d+)(t?)$", executable
    )
    version = (int(found[1]), int(found[2])) if found else None
    return Target(pid, status, version, bool(found and found[3]), executable)


def _effective_capabilities() -> int:
    match = re.search(r"^CapEff:\s+([0-9a-f]+)", _read("/proc/self/status"), re.M)
    return int(match[1], 16) if match else 0


def _scope() -> Check:
    try:
        scope = int(_read("/proc/sys/kernel/yama/ptrace_scope"))
    except (OSError, ValueError):
        scope = 0
    may = bool(_effective_capabilities() & _CAP_SYS_PTRACE)
    if scope == 0 or (scope < 3 and may):
        return Check(True, f"kernel.yama.ptrace_scope is {scope}")
    cure = "no setting but a reboot changes that" if scope == 3 else "run as root, or sysctl kernel.yama.ptrace_scope=0"
    return Check(False, f"kernel.yama.ptrace_scope is {scope}, which keeps processes from one another: {cure}")


def _container(target: Target) -> Check:
    foreign = [kind for kind in ("mnt", "pid") if namespace(target.pid, kind) != namespace("self", kind)]
    try:
        root = os.readlink(f"/proc/{target.pid}/root")
    except OSError:
        root = "/"
    if not foreign and root == "/":
        return Check(True, "it has our files and process ids")
    return Check(
        False,
        f"it is in a container: attach from inside (nsenter -t {target.pid} -m -p -n, docker exec, kubectl debug), "
        "where its files and its memwatch are",
    )


def _interpreter(target: Target, uid: int) -> Check:
    """What runs or reads it runs with our rights: of another user's process it has to be the system's."""
    try:
        alone = os.path.samestat(os.stat(target.executable), os.stat(f"/proc/{target.pid}/exe"))
        alone = alone and _is_systems(target.executable)
    except OSError:
        alone = False
    if alone:
        return Check(True, f"its interpreter is {target.executable}, which its user cannot change")
    return Check(
        False,
        f"its interpreter, {target.executable or 'which cannot be seen'}, may be its user's own, and would run with "
        f"your rights: attach as that user, sudo -u '#{uid}'",
    )


def _is_systems(path: str) -> bool:
    """Whether only root, or we, can change what lies there."""
    trusted, others = (0, os.geteuid()), 0o022
    path = os.path.realpath(path)
    while True:
        info = os.stat(path)
        if info.st_uid not in trusted or (info.st_mode & others and not info.st_mode & stat.S_ISVTX):
            return False
        if path == "/":
            return True
        path, others = os.path.dirname(path), 0o002


def _way_in(target: Target) -> Check:
    if target.method == "gdb":
        gdb = shutil.which("gdb")
        if gdb is None:
            return Check(False, "gdb is not installed, which takes us into Pythons before 3.14: apt-get install gdb")
        return Check(True, f"gdb is {gdb}")
    try:
        environ = _read(f"/proc/{target.pid}/environ").split("\0")
        arguments = _read(f"/proc/{target.pid}/cmdline").split("\0")
    except OSError:
        environ = arguments = []
    if any(each.startswith("PYTHON_DISABLE_REMOTE_DEBUG=") and each[-1] != "=" for each in environ):
        return Check(False, "it was started with PYTHON_DISABLE_REMOTE_DEBUG, which refuses sys.remote_exec")
    if "disable-remote-debug" in " ".join(arguments):
        return Check(False, "it was started with -X disable-remote-debug, which refuses sys.remote_exec")
    return Check(True, "sys.remote_exec is not switched off")


def _extension(target: Target) -> Check:
    assert target.version is not None
    tag = f"cpython-{target.version[0]}{target.version[1]}{'t' if target.free_threaded else ''}-"
    if any(name.startswith(f"_core.{tag}") for name in os.listdir(PACKAGE)):
        return Check(True, f"memwatch is built for Python {target.version[0]}.{target.version[1]} in {PACKAGE}")
    name = f"Python {target.version[0]}.{target.version[1]}{'t' if target.free_threaded else ''}"
    if _has_its_own(target, tag):
        return Check(True, f"{name} has its own memwatch")
    return Check(
        False, f"memwatch is not built for {name}: install it with the process's own interpreter, {target.executable}"
    )


def _has_its_own(target: Target, tag: str) -> bool:
    prefix = os.path.dirname(os.path.dirname(target.executable))
    assert target.version is not None
    folder = f"{prefix}/lib/python{target.version[0]}.{target.version[1]}/site-packages/memwatch"
    return os.path.isdir(folder) and any(name.startswith(f"_core.{tag}") for name in os.listdir(folder))


def checks(pid: int) -> Iterator[Check]:
    """In the order in which they matter; what comes after one that fails may be missing."""
    try:
        target = target_of(pid)
    except OSError:
        yield Check(False, f"there is no process {pid}")
        return
    state = target.status.get("State", "?")
    if state[:1] in "ZX":
        alone = int(target.status.get("Threads", "1")) <= 1
        what = "has ended and waits for its parent" if alone else "goes on without its main thread, which has ended"
        yield Check(False, f"process {pid} {what}")
        return
    if state[:1] == "T":
        yield Check(False, f"process {pid} is stopped: kill -CONT {pid}")
    uid = int(target.status["Uid"].split()[1])
    ours = uid == os.geteuid() or bool(_effective_capabilities() & _CAP_SYS_PTRACE)
    yield Check(ours, f"process {pid} is user {uid}'s" + ("" if ours else ": become that user, or root"))
    if not ours:
        return
    yield _scope()
    tracer = int(target.status.get("TracerPid", "0"))
    yield Check(tracer == 0, f"process {tracer} traces it already" if tracer else "no debugger is attached to it")
    yield _container(target)
    if target.version is None:
        yield Check(False, f"{target.executable or 'it'} is no CPython 3 that can be recognised")
        return
    known = target.version >= OLDEST
    name = f"Python {target.version[0]}.{target.version[1]}"
    yield Check(known, f"it runs {name}" + ("" if known else ": 3.11 is the oldest that is watched"))
    if known and uid != os.geteuid():
        yield _interpreter(target, uid)
    if known:
        yield _way_in(target)
        yield _extension(target)
