"""The peak of the host's resident memory over one call.

Linux keeps a process's high-water mark (VmHWM), and writing 5 to /proc/self/clear_refs sets it back to what
is resident now. Two things would spoil the difference. Memory that the allocator holds free is resident
already, so a call that reuses it seems to need nothing: glibc's malloc_trim(0) returns every free page of
every arena first, in this process, with the allocator's thresholds left as they are when timing. And
getrusage's ru_maxrss is inherited from the parent and has no reset, so it is not used.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from mtbench.backend import Kernel
from mtbench.frameworks import PeakMemory

__all__ = ["host_peak"]

VMHWM = "VmHWM after clear_refs and malloc_trim"
SAMPLED = "resident set sampled every millisecond (psutil)"


def host_peak(kernel: Kernel) -> PeakMemory:
    """The most resident memory one call added, in bytes: outputs and temporaries, inputs left out."""
    gc.collect()
    if not (sys.platform == "linux" and _clear_refs()):
        return _sampled(kernel)
    trim = _malloc_trim()
    if trim is None:
        return PeakMemory(bytes=None, method="this C library has no malloc_trim, so VmHWM misses reuse")
    trim(0)
    _clear_refs()
    before = _status("VmRSS")
    kernel.wait(kernel())
    return PeakMemory(bytes=max(0, _status("VmHWM") - before), method=VMHWM)


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
def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


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
