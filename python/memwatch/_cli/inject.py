"""Brings a few lines of Python into a running process, and hears what became of them.

DESIGN  From Python 3.14 on the interpreter itself runs a file, by sys.remote_exec, when its main thread comes by.
One that waits in a system call is woken: for a moment it is traced, and the call returns EINTR, after which Python
looks around and waits on, as it does after every signal. No signal is sent, since a signal may mean something to
the program.

Before 3.14 it is gdb, which stops the process, calls two or three functions in it and lets go. It sets no breakpoint of
its own and waits for nothing, so that it is soon out again, also when we are killed meanwhile. A main thread that waits
in the kernel has let go of the GIL and holds no lock of the allocator: the lines run there, if it is still in the call
that it was seen in when gdb has stopped it. One that waits for the GIL is within the very lock that it would wait for
once more, and the whole process would stand still. It gets a pending call, as one that is busy, which the interpreter
makes between two instructions, where nothing is half done. A main thread that has gone to wait meanwhile is asked once
more: who of the lines comes first takes the answer's place, and the others do nothing. All that the main thread does is
to start a thread, which waits until gdb has gone.

The lines are in a folder that only the process's user can enter, below its own root. It answers on a socket there.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from typing import Any, Callable, Iterator, NamedTuple, Optional

from memwatch._cli.frame import Failure
from memwatch._cli.preflight import Target

RUN_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WAKE_S = 0.15
ANSWER_BYTES = 1 << 20
CALL_S, CALLS_SOON_S = 60.0, 10.0
AGAIN_S = 2.0
_CALLS, _SIGNAL = "memwatch: calls", "received signal"  # said by gdb
_PAGE_BYTES = 4096
_MAP_PRIVATE_ANONYMOUS = 0x22
_SEM_WAIT = (0x89, 0x189)  # operations of futex(2) that are no lock's: semaphores and conditions
_FUTEX = 202 if platform.machine() == "x86_64" else 98
_BSS_BYTES = 4 << 20  # more than any Python has
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
        answer.connect(report + ".taken")
    except OSError:  # it is too late
        answer.close()
        return
    try:
        said = _memwatch_inside().{function}({argument!r})
    except BaseException as error:
        said = {{"error": f"{{type(error).__name__}}: {{error}}"}}
    try:
        answer.sendall(json.dumps(said).encode())
    except OSError:
        pass
    finally:
        answer.close()


def _memwatch_takes(report):
    import os
    try:
        os.rename(report, report + ".taken")
    except OSError:  # it is too late, or another was first
        return False
    return True


def _memwatch_inside():
    import sys
    try:
        import memwatch
    except ImportError:
        sys.path.append({package!r})
        try:
            import memwatch
        finally:
            sys.path.remove({package!r})
    from memwatch._cli import inside
    return inside


def _memwatch_later(report):
    import sys
    while "TracerPid:\\t0\\n" not in open("/proc/self/status").read():
        _memwatch_sleep(0.005)
    if not _memwatch_takes(report):
        return
    taken = []
    if sys.version_info < (3, 12):
        try:
            _memwatch_on_main(report, taken)
        except BaseException:  # _memwatch says it
            pass
    if not taken:
        taken.append(False)
        _memwatch(report)


def _memwatch_on_main(report, taken):
    # sys.settrace is a thread's own: where that is how names are followed, the main thread has to set it. Within a
    # pending call Python 3.11 hangs in the first function that is traced, if another call is pending. greenlet adds one
    # for each thread that ends: this one may not end before. And the call is to be short.
    import ctypes, time
    _memwatch_inside()
    done = []

    def run(_):
        if not taken:
            taken.append(True)
            try:
                _memwatch(report)
            finally:
                done.append(True)
        return 0

    call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(run)
    _memwatch_kept.append(call)
    ctypes.pythonapi.Py_AddPendingCall(call, None)
    end = time.monotonic() + 0.7
    while (taken and not done) or (not taken and time.monotonic() < end):
        _memwatch_sleep(0.005)


_memwatch_kept = []
"""
AT_ONCE = "if _memwatch_takes({report!r}):\n    _memwatch({report!r})\n"
#: What the main thread does, in the midst of whatever it does. The thread is a real one, also where gevent or eventlet
#: have put greenlets in their place. An exception of a signal's handler that comes meanwhile is the program's.
STARTER = """\
def real(module, name):
    import sys
    monkey, patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if monkey is not None and monkey.is_module_patched(module):
        return monkey.get_original(module, name)
    if patcher is not None and patcher.is_monkey_patched(module.strip("_")):
        return getattr(patcher.original(module), name)
    return getattr(__import__(module), name)

try:
    names = {{"__name__": "memwatch-attach", "_memwatch_sleep": real("time", "sleep")}}
    real("_thread", "start_new_thread")(exec, ({thread!r}, names))
except KeyboardInterrupt:
    __import__("_thread").interrupt_main()
except BaseException as error:
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    if last.tb_frame.f_globals is not globals():
        import ctypes, threading
        main = ctypes.c_ulong(threading.main_thread().ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(main, ctypes.py_object(type(error)))
"""
ON_A_THREAD = """\
try:
    with open({script!r}) as file:
        text = file.read()
except OSError:  # it is too late
    pass
else:
    exec(compile(text, {script!r}, "exec"))
    _memwatch_later({report!r})
"""
#: The program may have names of its own for the builtins: `from os import *` brings an open. A pending call may not
#: fail.
RUN = """\
try:
    __import__("builtins").exec({code!r}, {{"__name__": "memwatch-attach"}})
except:
    pass
"""


def _lines(script: str, report: str) -> bytes:
    """For PyRun_SimpleString."""
    thread = ON_A_THREAD.format(script=script, report=report)
    lines = RUN.format(code=STARTER.format(thread=thread)).encode() + b"\0"
    assert len(lines) <= _PAGE_BYTES
    return lines


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
        if target.method == "remote_exec":
            text += AT_ONCE.format(report=report)
        with open(script, "w", encoding="utf-8") as file:
            file.write(text)
        _hand_over(target, folder)
        deadline = time.monotonic() + timeout_s
        if target.method == "remote_exec":
            _by_interpreter(target, script, deadline)
            return _answer(target, listener, deadline, lambda: wake(target.pid))
        lines = _lines(script, report)
        _by_gdb(target, lines, _wait_of(target.pid), deadline)

        def ask_again() -> None:
            wait = _wait_of(target.pid) if os.path.exists(report) else None
            if wait is not None:  # gdb and an import of theirs do not go together
                _by_gdb(target, lines, wait, deadline)

        return _answer(target, listener, deadline, ask_again)


def _answer(target: Target, listener: socket.socket, deadline: float, ask_again: Callable[[], None]) -> dict[str, Any]:
    again_at = time.monotonic() + (WAKE_S if target.method == "remote_exec" else AGAIN_S)
    while time.monotonic() < deadline:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if not os.path.exists(f"/proc/{target.pid}"):
                raise Failure(f"process {target.pid} has ended meanwhile") from None
            if time.monotonic() >= again_at:
                ask_again()
                again_at = time.monotonic() + AGAIN_S
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


class Wait(NamedTuple):
    """The system call that a thread waits in: its number, its first argument, and the thread's registers."""

    number: int
    first: int
    stack: int
    code: int


def _wait_of(pid: int) -> Optional[Wait]:
    """Where the main thread waits in the kernel without a lock: three looks see the same call. None: it does not.

    A thread that waits for the GIL waits for a condition, wakes up often, and that condition is the runtime's.
    """
    seen = set()
    for _ in range(3):
        try:
            with open(f"/proc/{pid}/task/{pid}/syscall", encoding="ascii") as file:
                call = file.read().strip()
            with open(f"/proc/{pid}/task/{pid}/status", encoding="utf-8", errors="replace") as file:
                waits = next((line for line in file if line.startswith("voluntary_ctxt_switches")), "")
        except OSError:
            return None
        seen.add((call, waits if call.startswith(f"{_FUTEX} ") else ""))
        time.sleep(0.03)
    words = seen.pop()[0].split()
    if seen or len(words) < 9:  # it runs, or waits outside of a call
        return None
    wait = Wait(int(words[0]), *(int(words[n], 16) for n in (1, 7, 8)))
    is_lock = wait.number == _FUTEX and (int(words[2], 16) not in _SEM_WAIT or _is_static(pid, wait.first))
    return None if is_lock else wait


def _is_static(pid: int, address: int) -> bool:
    """Whether it is in the data of a program or a library, as the lock of the GIL is; others are allocated."""
    file_end = 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            span, _, _, _, _, *path = line.split(maxsplit=5)
            start, end = (int(word, 16) for word in span.split("-"))
            is_file = bool(path) and path[0].startswith("/")
            if start <= address < end:
                is_bss = not path and start == file_end and address < start + _BSS_BYTES
                return is_file or is_bss
            file_end = end if is_file else 0
    return True


def _gdb_script(calls: str) -> str:
    """What gdb does. An error ends it, and lets go of the process: so does a file of calls that is no more."""
    return f"""\
sharedlibrary libpython
sharedlibrary libc
thread 1
source {calls}
detach
"""


def _still(wait: Optional[Wait]) -> str:
    """For gdb: whether the thread that it has stopped waits where it was seen to wait."""
    if wait is None:
        return "0"
    place = f"(unsigned long)$sp == {wait.stack} && (unsigned long)$pc == {wait.code}"
    if platform.machine() != "x86_64":
        return place
    call = f"$orig_rax == {wait.number} && (unsigned long)$rdi == {wait.first}"
    return f"{place} && {call} && ($rax == -4 || ($rax >= {_RESTARTS[0]} && $rax <= {_RESTARTS[-1]}))"


def _gdb_calls(lines: str, wait: Optional[Wait]) -> str:
    """What gdb calls in the process.

    The lines come into a page of their own: where gdb would put them, malloc, the thread may just be.
    """
    prototype = "unsigned long(*)(void*,unsigned long,int,int,int,long)"
    mmap = f"(({prototype})mmap)((void*)0,{_PAGE_BYTES},3,{_MAP_PRIVATE_ANONYMOUS},-1,0)"
    return f"""\
echo {_CALLS}\\n
set $memwatch_lines = {mmap}
restore {lines} binary $memwatch_lines
if {_still(wait)}
set $memwatch_state = ((int(*)(void))PyGILState_Ensure)()
call ((int(*)(const char*))PyRun_SimpleString)((char*)$memwatch_lines)
call ((void(*)(int))PyGILState_Release)($memwatch_state)
else
call ((int(*)(void*,void*))Py_AddPendingCall)((void*)PyRun_SimpleString, (void*)$memwatch_lines)
end
"""


def _by_gdb(target: Target, lines: bytes, wait: Optional[Wait], deadline: float) -> None:
    """No signal is gdb's: the process would not come back from a call in which one came, a SIGTRAP of ours say."""
    command = ["gdb", "-batch", "-nx", "-nw", "-iex", "set auto-solib-add off", "-iex", "set debuginfod enabled off"]
    command += ["-ex", "set confirm off", "-ex", "handle all nostop print pass"]
    command += ["-ex", "handle SIGTRAP SIGINT nostop print pass", "-p", str(target.pid)]
    with tempfile.TemporaryDirectory(prefix="memwatch-") as own:  # in the other one its user may have put links
        steps, calls = f"{own}/steps.gdb", f"{own}/calls.gdb"
        with open(f"{own}/lines", "wb") as file:
            file.write(lines)
        with open(steps, "w", encoding="utf-8") as file:
            file.write(_gdb_script(calls))
        with open(calls, "w", encoding="utf-8") as file:
            file.write(_gdb_calls(f"{own}/lines", wait))
        said = _run([*command, "-x", steps], target.pid, deadline, "gdb", calls)
    if "No symbol" in said or "Error in sourced" in said:
        raise Failure(f"gdb cannot call into {target.executable}: {_last_line(said)}")
    if wait is not None and _SIGNAL in said:
        wake(target.pid)  # the call that it waits in goes on as if there had been none


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it says nothing"


def _run(command: list[str], pid: int, deadline: float, what: str, calls: str = "") -> str:
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
            _end(process, said, pid, calls)
            raise Failure(f"{what} did not come to an end in time") from None
        except BaseException:
            _end(process, said, pid, calls)
            raise
        if process.returncode != 0:
            raise Failure(f"{what} failed: {_last_line(said())}")
        return said()


def _end(process: subprocess.Popen[bytes], said: Callable[[], str], pid: int, calls: str) -> None:
    """Ends a helper that is late. The process would not come back from a call that gdb lets go of it in.

    Without its file of calls gdb begins none. One that it has opened already is waited for.
    """

    def ends_within(seconds: float, or_calls: bool) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if process.poll() is not None or (or_calls and _CALLS in said()):
                return True
            time.sleep(0.05)
        return False

    if calls:
        os.unlink(calls)
        ends_within(CALLS_SOON_S, or_calls=True)
        if _CALLS in said() and not ends_within(CALL_S, or_calls=False):
            raise Failure(f"gdb, process {process.pid}, is within a call in process {pid}, and has to come to its end")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.terminate()
        process.wait(CALL_S)
