"""The peak of the host's resident memory over one call.

Linux keeps a process's high-water mark (VmHWM); writing 5 to /proc/self/clear_refs sets it back to what is
resident now. Four things would spoil the difference:

- Memory that the allocator holds free is resident already, so a call that reuses it seems to need nothing:
  glibc's malloc_trim(0) returns every free page of every arena first.
- Small objects that outlive a large block split the hole it leaves, and the next block of that size needs
  new memory: a call of many small steps seems to need all their temporaries at once. So for the measured
  call blocks of 64 KiB and more get mappings of their own (M_MMAP_THRESHOLD), which slows it.
- A transparent huge page counts whole where a block touches but its edge, up to 2 MiB a block, by how the
  block happens to lie: the measured call has none (PR_SET_THP_DISABLE).
- getrusage's ru_maxrss is inherited from the parent and has no reset: it is not used.

For the timed calls the allocator stands where glibc's own adjustment ends up once large blocks have been
freed (`settle_allocator`): the same in every row, whatever came before it.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
import threading
from pathlib import Path

import psutil

from mtbench.backend import Kernel
from mtbench.frameworks import PeakMemory

__all__ = ["host_peak", "settle_allocator"]

VMHWM = "VmHWM after clear_refs and malloc_trim"
SAMPLED = "resident set sampled every millisecond (psutil)"

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
PR_SET_THP_DISABLE = 41  # of linux/prctl.h
MEASURING_THRESHOLD = 64 << 10
SETTLED_THRESHOLD = 32 << 20  # the most that glibc's own adjustment goes to, on 64 bits


def host_peak(kernel: Kernel) -> PeakMemory:
    """The most resident memory one call added, in bytes: outputs and temporaries, inputs left out."""
    gc.collect()
    if not (sys.platform == "linux" and _clear_refs()):
        return _sampled(kernel)
    libc = _glibc()
    if libc is None:
        return PeakMemory(bytes=None, method="this C library is not glibc: VmHWM would miss what is reused")
    libc.mallopt(M_MMAP_THRESHOLD, MEASURING_THRESHOLD)
    libc.mallopt(M_TRIM_THRESHOLD, MEASURING_THRESHOLD)
    libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    try:
        # malloc_trim leaves the top of other threads' arenas alone; a free under the new threshold does not.
        kernel.wait(kernel())
        libc.malloc_trim(0)
        _clear_refs()
        before = _status("VmRSS")
        kernel.wait(kernel())
        return PeakMemory(bytes=max(0, _status("VmHWM") - before), method=VMHWM)
    finally:
        libc.prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)
        settle_allocator()


def settle_allocator() -> None:
    """Set glibc's thresholds to where they move by themselves as large blocks are freed. Nothing where the C
    library is another."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(M_MMAP_THRESHOLD, SETTLED_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * SETTLED_THRESHOLD)


def _clear_refs() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None


def _sampled(kernel: Kernel) -> PeakMemory:
    process = psutil.Process()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    kernel.wait(kernel())
    peak = max(peak, process.memory_info().rss)
    done.set()
    watcher.join()
    return PeakMemory(bytes=max(0, peak - before), method=SAMPLED)
