"""The peak of the host's resident memory over one call.

Linux keeps a process's high-water mark (VmHWM); writing 5 to /proc/self/clear_refs sets it back to what is
resident now. These would spoil the difference:

- Memory that the last call still holds. A framework's threads free temporaries after the call has said that
  it is done: XLA's CPU client up to 6 ms after, by when malloc_trim has run and VmRSS has been read. So what
  is resident is read once every other thread sleeps (`_wait_for_other_threads`).
- Memory that the allocator holds free is resident already, so a call that reuses it seems to need nothing:
  glibc's malloc_trim(0) returns every free page of every arena first, but for the top of other threads'
  arenas. Those go when such a thread frees 64 KiB or more, whole since M_TOP_PAD is 0 meanwhile. A thread
  that has not done so since the clocks still hides up to 64 MiB: hence a call that is not measured, and
  `CALLS` that are, of which the largest counts.
- Small objects that outlive a large block split the hole it leaves, and the next block of that size needs
  new memory: a call of many small steps seems to need all their temporaries at once. So for the measured
  calls blocks of 64 KiB and more get mappings of their own (M_MMAP_THRESHOLD), which slows them. glibc asks
  that threshold only once no hole is large enough: those of this thread's arena are filled (`_no_holes`).
- From Linux 6.2 on each CPU counts pages for itself, and VmHWM, read or set back, knows them in batches only:
  it was up to 250 KiB off, either way. `_settle_counters` has the batches counted before the call, so that
  only those at the peak are missing.
- A transparent huge page counts whole where a block touches but its edge, up to 2 MiB a block, by how the
  block happens to lie: the measured calls have none (PR_SET_THP_DISABLE).
- getrusage's ru_maxrss is inherited from the parent and has no reset: it is not used.

What is left: up to 62 pages a CPU that runs the call are missing (measured on Linux 6.18 with two CPUs), more
where there are over 16 CPUs, since batches grow with them (`unseen`). And other threads' arenas do have
holes, which count while they are resident: on two threads one and the same program of XLA's read 6.0 to 8.3
MiB.

For the timed calls the allocator stands where glibc's own adjustment ends up once large blocks have been
freed (`settle_allocator`): the same in every row, whatever came before it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from mtbench.backend import Kernel
from mtbench.frameworks import PeakMemory

__all__ = ["ResidentPeak", "host_peak", "returning_memory", "settle_allocator", "unseen"]

VMHWM = "VmHWM after clear_refs and malloc_trim, largest of 3 calls"
SAMPLED = "resident set sampled every millisecond (psutil)"

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
PR_SET_THP_DISABLE = 41  # of linux/prctl.h
MEASURING_THRESHOLD = 64 << 10
SETTLED_THRESHOLD = 32 << 20  # the most that glibc's own adjustment goes to, on 64 bits
DEFAULT_TOP_PAD = 128 << 10
LARGEST_HOLE = 64 << 20
CALLS = 3
"""Measured. What is hidden makes a figure too small and has no bound but 64 MiB a thread; what makes one too
large is resident all the same."""
QUIET_S = 1.0
"""The longest that other threads are waited for: one that never sleeps must not stop the row."""


def host_peak(kernel: Kernel) -> PeakMemory:
    """The most resident memory one call added, in bytes: outputs and temporaries, inputs left out."""
    if not (sys.platform == "linux" and _clear_refs()):
        return _sampled(kernel)
    libc = _glibc()
    if libc is None:
        return PeakMemory(bytes=None, method="this C library is not glibc: VmHWM would miss what is reused")
    with returning_memory():
        kernel.wait(kernel())  # its threads free under the new thresholds, and trim their arenas
        most = max(_added(kernel, libc) for _ in range(CALLS))
    return PeakMemory(bytes=most, method=f"{VMHWM}; good to {unseen() >> 10} KiB")


def unseen() -> int:
    """The most bytes that `host_peak` may miss, by what the CPUs that this process may use had not handed in:
    of each a batch that is short where the peak is, and one that was over where the reading began."""
    return 2 * _batch() * mmap.PAGESIZE * len(os.sched_getaffinity(0))


@contextlib.contextmanager
def returning_memory() -> Iterator[None]:
    """Inside, glibc gets every block of 64 KiB and more from the system and gives it back once it is freed,
    so that the resident set follows what is in use. It slows what runs. Nothing where the C library is
    another."""
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_THRESHOLD, MEASURING_THRESHOLD)
    libc.mallopt(M_TRIM_THRESHOLD, MEASURING_THRESHOLD)
    libc.mallopt(M_TOP_PAD, 0)
    libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)
        settle_allocator()


class ResidentPeak:
    """The most resident memory of this process since the creation, beyond what was resident then. Unlike
    `host_peak` it changes nothing in how the process runs: what the allocator keeps counts, and what it
    reuses does not."""

    METHOD = "VmHWM of the process since the model was made, less VmRSS before it"

    def __init__(self) -> None:
        self._able = sys.platform == "linux" and _clear_refs()
        self._before = _status("VmRSS") if self._able else 0

    def read(self) -> PeakMemory:
        """So far."""
        if not self._able:
            return PeakMemory(bytes=None, method="this system keeps no peak that can be set back")
        return PeakMemory(bytes=max(0, _status("VmHWM") - self._before), method=self.METHOD)


def _added(kernel: Kernel, libc: ctypes.CDLL) -> int:
    gc.collect()
    _wait_for_other_threads()
    libc.malloc_trim(0)
    with _no_holes(libc):
        _settle_counters()
        _clear_refs()
        before = _status("VmRSS")
        kernel.wait(kernel())
        return max(0, _status("VmHWM") - before)


def _wait_for_other_threads() -> None:
    """Until all of them sleep, and none has run between two looks."""
    deadline = time.monotonic() + QUIET_S
    seen = _other_threads()
    while time.monotonic() < deadline:
        time.sleep(0.001)  # lets go of the GIL, which one of them may sleep for
        now = _other_threads()
        if now == seen and all(state == "S" for state, *_ in now.values()):
            return
        seen = now


def _other_threads() -> dict[str, tuple[str, str, str]]:
    """The state of each, and how often it has left a CPU: of itself, and because it had to."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) == threading.get_native_id():
            continue
        try:
            text = (task / "status").read_text()
        except OSError:  # it ended meanwhile
            continue
        says = dict(line.split(":", 1) for line in text.splitlines())
        found[task.name] = (
            says["State"].split()[0],
            says["voluntary_ctxt_switches"],
            says["nonvoluntary_ctxt_switches"],
        )
    return found


@contextlib.contextmanager
def _no_holes(libc: ctypes.CDLL) -> Iterator[None]:
    """Holds what the arena of this thread has free in pieces of `MEASURING_THRESHOLD` or more, untouched and
    so not resident."""
    held = []
    size = LARGEST_HOLE
    try:
        while size >= MEASURING_THRESHOLD:
            before = libc.mallinfo()
            block = libc.malloc(size)
            after = libc.mallinfo()
            if block and (before.arena, before.hblks) == (after.arena, after.hblks):
                held.append(block)
            else:  # new memory or none: there is no hole of this size
                libc.free(block)
                size //= 2
        yield
    finally:
        for block in held:
            libc.free(block)


def _batch() -> int:
    """Pages that a CPU counts for itself before it hands them in: percpu_counter_batch of the kernel."""
    return max(32, 2 * (os.cpu_count() or 1))


def _settle_counters() -> None:
    """Has every CPU hand in what it counted for itself, by unmapping more pages at once than a batch has."""
    allowed = os.sched_getaffinity(0)
    pages = 4 * _batch()
    try:
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            with mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
                for at in range(0, len(block), mmap.PAGESIZE):
                    block[at] = 1
    finally:
        os.sched_setaffinity(0, allowed)


def settle_allocator() -> None:
    """Set glibc's thresholds to where they move by themselves as large blocks are freed. Nothing where the C
    library is another."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(M_MMAP_THRESHOLD, SETTLED_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * SETTLED_THRESHOLD)
        libc.mallopt(M_TOP_PAD, DEFAULT_TOP_PAD)


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


class _Mallinfo(ctypes.Structure):
    """Bytes had from the system but for mappings (modulo 4 GiB), mappings, and what is not looked at."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("arena", "ordblks", "smblks", "hblks")),
        ("others", ctypes.c_int * 6),
    )


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    if not (hasattr(library, "malloc_trim") and hasattr(library, "mallopt")):
        return None
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    library.mallinfo.restype = _Mallinfo
    return library


def _sampled(kernel: Kernel) -> PeakMemory:
    gc.collect()
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
