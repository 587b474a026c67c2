"""Brings a few lines of Python into a running process, and hears what became of them.

DESIGN  From Python 3.14 on the interpreter itself runs a file, by sys.remote_exec, when its main thread comes by.
One that waits in a system call is woken: for a moment it is traced, and the call returns EINTR, after which Python
looks around and waits on, as it does after every signal. No signal is sent, since a signal may mean something to
the program.

Before 3.14 it is gdb. A main thread that waits in the kernel has let go of the GIL and holds no lock of the
allocator: the lines run there. One that is busy gets a pending call, and gdb waits for the interpreter to make it:
between two instructions nothing is half done. The lines only start a thread, so that the process is held for as
short as can be; the thread waits until gdb has gone.

The lines are in a folder that only the process's user can enter, below its own root. It answers on a socket there.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any, Callable, Iterator

from memwatch._cli.frame import Failure
from memwatch._cli.preflight import Target

RUN_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WAKE_S = 0.15
ANSWER_BYTES = 1 << 20
CALL_S = 60.0
_CALLS, _WAITS = "memwatch: calls", "memwatch: waits"  # said by gdb
_SEM_WAIT = (0x89, 0x189)  # operations of futex(2) that are no lock's: semaphores and conditions
_FUTEX = 202
_SEIZE, _INTERRUPT, _DETACH, _PEEKUSER, _POKEUSER = 0x4206, 0x4207, 17, 3, 6
_RAX, _ORIG_RAX = 80, 120
_RESTARTS = range(-516, -511)
_EINTR = -4 & 0xFFFFFFFFFFFFFFFF
_WALL = 0x40000000

SCRIPT = """\
def _memwatch(report):
    import json, os, socket, sys
    said = {{}}
    answer = socket.socket(socket.AF_UNIX)
    try:
        answer.connect(report)
    except OSError:  # it is too late
        answer.close()
        return
    try:
        try:
            import memwatch
        except ImportError:
            sys.path.append({package!r})
            try:
                import memwatch
            finally:
                sys.path.remove({package!r})
        from memwatch._cli import inside
        said = inside.{function}({argument!r})
    except BaseException as error:
        said = {{"error": f"{{type(error).__name__}}: {{error}}"}}
    try:
        answer.sendall(json.dumps(said).encode())
    except OSError:
        pass
    finally:
        answer.close()


def _memwatch_later(report):
    import sys, time
    while "TracerPid:\\t0\\n" not in open("/proc/self/status").read():
        time.sleep(0.005)
    taken = []
    if sys.version_info < (3, 12):
        try:
            _memwatch_on_main(report, taken)
        except (ImportError, AttributeError):
            pass
    if not taken:
        taken.append(False)
        _memwatch(report)


def _memwatch_on_main(report, taken):
    # sys.settrace is a thread's own: where that is how names are followed, the main thread has to set it.
    import ctypes, time

    def run(_):
        if not taken:
            taken.append(True)
            _memwatch(report)
        return 0

    call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(run)
    _memwatch_kept.append(call)
    ctypes.pythonapi.Py_AddPendingCall(call, None)
    end = time.monotonic() + 0.7
    while not taken and time.monotonic() < end:
        time.sleep(0.005)


_memwatch_kept = []
"""
AT_ONCE = "_memwatch({report!r})\n"
ON_A_THREAD = "import _thread\n_thread.start_new_thread(_memwatch_later, ({report!r},))\n"


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="memwatch-attach-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hand_over(target: Target, folder: str) -> None:
    """Gives what was made to the process's user, the folder last: whoever has it can put links in our way."""
    uid, gid = (int(target.status[key].split()[1]) for key in ("Uid", "Gid"))
    for name in os.listdir(folder):
        os.chmod(f"{folder}/{name}", 0o600)
        os.chown(f"{folder}/{name}", uid, gid, follow_symlinks=False)
    if uid != os.geteuid():
        os.chown(folder, uid, gid)


def run_inside(target: Target, function: str, argument: Any, timeout_s: float) -> dict[str, Any]:
    """Has `inside.FUNCTION(ARGUMENT)` run in the process; what it answers."""
    with _folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        report, script = f"{folder}/answer", f"{folder}/script.py"
        listener.bind(report)
        listener.listen(1)
        listener.settimeout(0.05)
        text = SCRIPT.format(package=RUN_PACKAGE, function=function, argument=argument)
        text += (AT_ONCE if target.method == "remote_exec" else ON_A_THREAD).format(report=report)
        with open(script, "w", encoding="utf-8") as file:
            file.write(text)
        _hand_over(target, folder)
        deadline = time.monotonic() + timeout_s
        (_by_interpreter if target.method == "remote_exec" else _by_gdb)(target, script, deadline)
        return _answer(target, listener, deadline)


def _answer(target: Target, listener: socket.socket, deadline: float) -> dict[str, Any]:
    wake_at = time.monotonic() + WAKE_S
    while time.monotonic() < deadline:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if target.method == "remote_exec" and time.monotonic() >= wake_at:
                wake(target.pid)
                wake_at = time.monotonic() + 1.0
            if not os.path.exists(f"/proc/{target.pid}"):
                raise Failure(f"process {target.pid} has ended meanwhile") from None
            continue
        with connection:
            connection.settimeout(max(deadline - time.monotonic(), 0.1))
            with connection.makefile("rb") as answer:
                try:
                    text = answer.read(ANSWER_BYTES)
                except TimeoutError:
                    raise Failure(f"process {target.pid} has begun, and did not come to an end in time") from None
        if not text:
            raise Failure(f"process {target.pid} has ended meanwhile, or its thread")
        said: dict[str, Any] = json.loads(text)
        if "error" in said:
            raise Failure(f"in process {target.pid}: {said['error']}")
        return said
    raise Failure(
        f"process {target.pid} did not answer in time: its main thread runs no Python now, or waits where nothing may "
        "interrupt it. Nothing was done to it; should it come to the lines later, they do nothing"
    )


# --- from 3.14 on -----------------------------------------------------------------------------------------------------


def _by_interpreter(target: Target, script: str, deadline: float) -> None:
    """By an interpreter of the same version: the process's own program."""
    code = "import sys; sys.remote_exec(int(sys.argv[1]), sys.argv[2])"
    command = [f"/proc/{target.pid}/exe", "-I", "-S", "-c", code, str(target.pid), script]
    _run([os.path.realpath(command[0]), *command[1:]], target.pid, deadline, "sys.remote_exec")


def wake(pid: int) -> None:
    """Has the system call that the main thread waits in return EINTR. Elsewhere than on x86-64 it is left alone."""
    if platform.machine() != "x86_64":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(_SEIZE, pid, None, None) < 0:
        return
    pending = 0
    try:
        if libc.ptrace(_INTERRUPT, pid, None, None) < 0:
            return
        _, status = os.waitpid(pid, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return
        if status >> 16 == 0:
            pending = os.WSTOPSIG(status)  # a signal of its own came first: it gets it
        elif libc.ptrace(_PEEKUSER, pid, _ORIG_RAX, None) >= 0 and libc.ptrace(_PEEKUSER, pid, _RAX, None) in _RESTARTS:
            libc.ptrace(_POKEUSER, pid, _RAX, _EINTR)
    finally:
        libc.ptrace(_DETACH, pid, None, pending)


# --- before 3.14 ------------------------------------------------------------------------------------------------------


def _waits(pid: int) -> bool:
    """Whether the main thread waits in the kernel, where it holds no lock: three looks see the same call."""
    seen = set()
    for _ in range(3):
        try:
            with open(f"/proc/{pid}/task/{pid}/syscall", encoding="ascii") as file:
                seen.add(file.read().strip())
        except OSError:
            return False
        time.sleep(0.03)
    if len(seen) > 1:
        return False
    words = seen.pop().split()
    if words[0] in ("running", "-1"):
        return False
    return int(words[0]) != _FUTEX or int(words[2], 16) in _SEM_WAIT


def _gdb_script(script: str, waits: bool) -> str:
    """What gdb does once it has stopped the process. An error ends it, and lets go of the process.

    Every signal goes on to the process, but the one of the breakpoint (`queue-signal 0`), which would end it.
    """
    x86 = platform.machine() == "x86_64"
    code = f"exec(compile(open('{script}').read(),'{script}','exec'),{{'__name__':'memwatch-attach'}})"
    run = f'call ((int(*)(const char*))PyRun_SimpleString)("{code}")'
    still = f"$orig_rax >= 0 && ($rax == -4 || ($rax >= {_RESTARTS[0]} && $rax <= {_RESTARTS[-1]}))"  # as it is stopped
    return f"""\
sharedlibrary libpython
sharedlibrary libc
thread 1
if {int(waits)} && {still if x86 else "1"}
echo {_CALLS}\\n
set $memwatch_state = ((int(*)(void))PyGILState_Ensure)()
{run}
call ((void(*)(int))PyGILState_Release)($memwatch_state)
else
echo {_CALLS}\\n
call ((int(*)(void*,void*))Py_AddPendingCall)((void*)PyCallable_Check, (void*)0)
tbreak *(unsigned long)&PyCallable_Check thread 1{" if $rdi == 0" if x86 else ""}
handle SIGSTOP stop noprint nopass
echo {_WAITS}\\n
continue
handle SIGSTOP nostop noprint pass
queue-signal 0
if $_thread == 1 && $pc == (unsigned long)&PyCallable_Check
echo {_CALLS}\\n
{run}
end
end
detach
"""


def _by_gdb(target: Target, script: str, deadline: float) -> None:
    """No signal is gdb's: the process would not come back from a call in which one came, a SIGTRAP of ours say."""
    command = ["gdb", "-batch", "-nx", "-nw", "-iex", "set auto-solib-add off", "-iex", "set debuginfod enabled off"]
    command += ["-ex", "set confirm off", "-ex", "handle all nostop noprint pass"]
    command += ["-ex", "handle SIGTRAP SIGINT nostop noprint pass", "-p", str(target.pid)]
    with tempfile.NamedTemporaryFile("w", prefix="memwatch-", suffix=".gdb", encoding="utf-8") as steps:
        steps.write(_gdb_script(script, _waits(target.pid)))
        steps.flush()
        said = _run([*command, "-x", steps.name], target.pid, deadline, "gdb")
    if "No symbol" in said or "Error in sourced" in said:
        raise Failure(f"gdb cannot call into {target.executable}: {_last_line(said)}")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it says nothing"


def _run(command: list[str], pid: int, deadline: float, what: str) -> str:
    """Runs a helper of ours that does something to a process. It ends by the deadline, unless a call of it goes on.

    It has a session of its own: a Ctrl-C in the terminal is ours to answer.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MEMWATCH"))}
    with tempfile.TemporaryFile() as output:

        def said() -> str:
            return os.pread(output.fileno(), ANSWER_BYTES, 0).decode(errors="replace")

        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, start_new_session=True
        )
        try:
            process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            _end(process, said, pid)
            raise Failure(f"{what} did not come to an end in time") from None
        except BaseException:
            _end(process, said, pid)
            raise
        if process.returncode != 0:
            raise Failure(f"{what} failed: {_last_line(said())}")
        return said()


def _end(process: subprocess.Popen[bytes], said: Callable[[], str], pid: int) -> None:
    """Ends a helper that is late. gdb only takes its breakpoints out of a process that it has stopped.

    And the process would not come back from a call that gdb lets go of it in: such a call is waited for.
    """

    def calls() -> bool:
        return process.poll() is None and said().rfind(_CALLS) > said().rfind(_WAITS)

    end = time.monotonic() + CALL_S
    while calls() and time.monotonic() < end:
        time.sleep(0.05)
    if calls():
        raise Failure(f"gdb, process {process.pid}, is within a call in process {pid}, and has to come to its end")
    with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
        if _WAITS in said():
            os.kill(pid, signal.SIGSTOP)  # for gdb, which ends then
            process.wait(CALL_S)
            os.kill(pid, signal.SIGCONT)  # should gdb have been gone already
        process.terminate()
        process.wait(CALL_S)
