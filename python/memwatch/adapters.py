"""Adapters: other ways to find changes than the native core's choice.

    watcher = MemoryWatcher(adapter=PollingAdapter(interval_s=0.1))

Anyone can write one: derive from TrackerAdapter, and let `memwatch.testing.AdapterConformance` say whether it keeps
what an adapter must keep.
"""

from __future__ import annotations

from memwatch._polling import PollingAdapter
from memwatch._trace.adapter import TraceAdapter
from memwatch._tracker import TrackerAdapter

__all__ = ["MprotectAdapter", "PollingAdapter", "TraceAdapter", "TrackerAdapter"]


class MprotectAdapter(TrackerAdapter):
    """The native core with the `mprotect` backend, which write-protects every page that a watched buffer touches.

    For machines without userfaultfd where the writer must be known, and for comparing. `auto` never takes it. It has
    hazards:

    - A system call that writes into a watched page fails with EFAULT: `read`, `recv_into`, `readinto`, `getrandom`.
      A large read fills what lies before the first such page, and returns that without an error.
      Of a datagram that was to be received there the contents are lost; a `read` from a stream can be repeated.
    - SIGSEGV gets a handler. Who replaces it later (`faulthandler.enable()`) ends the process at the next write.
    - That holds for the neighbours too: everything else on those pages, whoever owns it. Give watched buffers pages of
      their own (`memwatch.buffer`, `memwatch.empty`).
    - A thread that blocks SIGSEGV dies at its first write into a watched page.
    - Each isolated page splits a mapping; the kernel allows 65,530 mappings (`vm.max_map_count`).
    - Memory that a device writes by itself (O_DIRECT, io_uring's registered buffers, RDMA) is written past it, unseen.
    """

    name = "mprotect"
    native_backend = "mprotect"
