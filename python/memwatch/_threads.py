"""Real threads, and waits that let others run: also where gevent or eventlet made greenlets of Python's threads.

DESIGN  What memwatch starts must be a thread of the system, since it waits in native code: as a greenlet it would stop
all others. So the functions that start threads and make locks are taken as they were before a library replaced them. Of
the locks only the recursive one of `_thread` is used, which nobody replaces: a signal handler that raises cannot leave
it locked, as it can a Condition. Waiting is left to the core, which serves signals meanwhile; in a greenlet the core is
asked without waiting, again and again, and the library's own sleep lets the others run.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
import weakref

from memwatch._typing import Any, Callable, Optional

__all__ = ["Changed", "Periodic", "RLock", "aside", "is_patched", "start", "wait"]

_PAUSE_S, _PAUSE_MAX_S = 0.001, 0.02

if sys.version_info[:2] == (3, 14):

    class RLock(_thread.RLock):
        """A signal handler that raises leaves it free, as in all other versions.

        3.14 runs handlers between an `__enter__` in C and the block, when nothing would leave it (gh-148874). After one
        in Python it does not.
        """

        def __enter__(self) -> bool:
            held = self._recursion_count()
            try:
                return self.acquire()
            except BaseException:
                if self._recursion_count() > held:
                    self.release()
                raise
else:
    from _thread import RLock


def _original(name: str) -> Any:
    """A function of `_thread` as it was before gevent or eventlet replaced it."""
    monkey, patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if monkey is not None and monkey.is_module_patched("_thread"):
        return monkey.get_original("_thread", name)
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return getattr(patcher.original("_thread"), name)
    return getattr(_thread, name)


_start_new_thread = _original("start_new_thread")
_allocate_lock = _original("allocate_lock")


def _original_sleep() -> Callable[[float], None]:
    """time.sleep as it was before gevent or eventlet replaced it."""
    monkey, patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if monkey is not None and monkey.is_module_patched("time"):
        return monkey.get_original("time", "sleep")  # type: ignore[no-any-return]
    if patcher is not None and patcher.is_monkey_patched("time"):
        return patcher.original("time").sleep  # type: ignore[no-any-return]
    return time.sleep


def real_lock() -> Any:
    """A lock that blocks the thread, also where gevent has replaced those of `threading`."""
    return _allocate_lock()


def is_patched() -> bool:
    """Whether threading.Thread makes greenlets."""
    monkey, patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if monkey is not None and (monkey.is_module_patched("_thread") or monkey.is_module_patched("threading")):
        return True
    return bool(patcher is not None and patcher.is_monkey_patched("thread"))


def start(run: Callable[[], None], name: str) -> None:
    """Starts a thread of the system. It does not keep the process alive."""

    def named() -> None:
        _name_in_system(name)
        run()

    if is_patched():
        _start_new_thread(named, ())
    else:
        threading.Thread(target=named, name=name, daemon=True).start()


_TASKS = "/proc/self/task"
_END_S = 0.5  # how long a thread is waited for that should end
pausable: weakref.WeakSet[Any] = weakref.WeakSet()
"""What has a thread of its own, with `pause()` and `resume()`."""


def _name_in_system(name: str) -> None:
    try:
        with open(f"{_TASKS}/{_thread.get_native_id()}/comm", "w") as comm:
            comm.write(name[:15])
    except OSError:
        return  # no /proc: it has its name in Python


def host_has_threads() -> bool:
    """Whether the process has other threads than ours and the one that asks."""
    try:
        tasks = [task for task in os.listdir(_TASKS) if task != str(_thread.get_native_id())]
        return not all(_is_ours(task) for task in tasks)
    except OSError:
        return True


def _is_ours(task: str) -> bool:
    try:
        with open(f"{_TASKS}/{task}/comm") as comm:
            return comm.read().startswith("memwatch")
    except OSError:
        return True  # it has ended


def await_end(thread_id: int) -> None:
    """Waits until the system counts the thread no more."""
    deadline = time.monotonic() + _END_S
    while os.path.exists(f"{_TASKS}/{thread_id}") and time.monotonic() < deadline:
        _nap(0.0002)


_nap = _original_sleep()


def _green_sleep() -> Optional[Callable[[float], object]]:
    """The sleep that lets other greenlets run; None in a thread that has none."""
    hubs = sys.modules.get("gevent._hub_local")
    if hubs is not None:
        hub = hubs.get_hub_if_exists()
        gevent = sys.modules["gevent"]
        if hub is not None and gevent.getcurrent() is not hub:
            return gevent.sleep  # type: ignore[no-any-return]
    hubs = sys.modules.get("eventlet.hubs")
    hub = None if hubs is None else getattr(hubs._threadlocal, "hub", None)
    if hub is not None and sys.modules["greenlet"].getcurrent() is not hub.greenlet:
        return sys.modules["eventlet"].sleep  # type: ignore[no-any-return]
    return None


def wait(attempt: Callable[[Optional[float]], Any], timeout: Optional[float]) -> Any:
    """What `attempt(seconds)` gives, which waits at most so long; in a greenlet it is asked not to wait, many times.

    A false answer means that it waited in vain.
    """
    sleep = _green_sleep()
    if sleep is None:
        return attempt(timeout)
    deadline = None if timeout is None else time.monotonic() + timeout
    pause_s = _PAUSE_S
    while True:
        answer = attempt(0)
        if answer or (deadline is not None and time.monotonic() >= deadline):
            return answer
        sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)


def aside(function: Callable[[], Any]) -> Any:
    """The function's result: of one that cannot but wait. In a greenlet it runs in a thread of its own."""
    if _green_sleep() is None:
        return function()
    results: list[tuple[Any, Optional[BaseException]]] = []

    def run() -> None:
        try:
            results.append((function(), None))
        except BaseException as error:
            results.append((None, error))

    try:
        _start_new_thread(run, ())
    except RuntimeError:  # the interpreter ends, and with it every greenlet
        return function()
    wait(lambda _: results, None)
    result, error = results[0]
    if error is not None:
        raise error
    return result


class Changed:
    """What threads wait for, in place of a Condition: no interrupt leaves anything locked."""

    def __init__(self) -> None:
        self.lock = RLock()
        """Guards what the waiters ask for."""
        self._waiters: list[Any] = []

    def notify_all(self) -> None:
        """Has every waiter ask again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release()

    def wait_for(self, predicate: Callable[[], bool], timeout: Optional[float]) -> bool:
        """Waits until it is true. The caller does not hold the lock."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            waiter = _allocate_lock()
            waiter.acquire()
            self._waiters.append(waiter)  # before the question: what changes after it wakes this one
            left = -1 if deadline is None else max(deadline - time.monotonic(), 0)
            if predicate() or left == 0:
                return predicate()
            waiter.acquire(timeout=left)


class Periodic:
    """A thread that calls `owner.check_changes()` again and again, more seldom when that takes long. Ends with its
    owner, which it does not keep alive."""

    def __init__(self, owner: Any, interval_s: float, share: float, name: str) -> None:
        self._owner = weakref.ref(owner)
        self._interval_s = self.pause_s = interval_s
        self._share = share
        self._name = name
        self._ended = False
        pausable.add(self)
        self._begin()

    def stop(self, timeout: float = 2.0) -> None:
        """Twice is allowed. Waits for the call under way, but inside it."""
        self._ended = True
        self._end(timeout)

    def pause(self) -> None:
        """Ends the thread for a while."""
        self._end(_END_S)

    def resume(self) -> None:
        """Goes on, unless it was stopped."""
        if not self._ended:
            self._begin()

    def _begin(self) -> None:
        self._stopped = _allocate_lock()  # released to end the thread
        self._running = _allocate_lock()  # released when it has ended
        self._stopped.acquire()
        self._running.acquire()
        self._thread_id = 0
        start(self._run, self._name)

    def _end(self, timeout: float) -> None:
        running = self._running
        if self._stopped.locked():
            self._stopped.release()
        if self._thread_id == _thread.get_native_id():
            return
        if wait(lambda seconds: running.acquire(timeout=seconds), timeout):
            running.release()  # for who ends it once more
            await_end(self._thread_id)

    def _run(self) -> None:
        stopped, running = self._stopped, self._running
        self._thread_id = _thread.get_native_id()
        try:
            while not stopped.acquire(timeout=self.pause_s):
                owner = self._owner()
                if owner is None:
                    return
                started = time.thread_time()
                owner.check_changes()
                self.pause_s = max(self._interval_s, (time.thread_time() - started) / self._share)
                del owner
        finally:
            running.release()
