"""What the machine did while a clock ran, and whether that may have moved the figures.

A CPU tells the time its other processes took, its load average and its frequency; a GPU (NVML) its clocks,
power and temperature, and what held its clocks down. Nothing here is subtracted from a sample: a row that
was disturbed is flagged ``noisy`` and says why.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Sequence
from typing import Any

import psutil

from mtbench.measure.environment import cpus

__all__ = ["OTHERS_CPU", "SLOWED_CPU", "SLOWED_GPU", "Watch", "gpu_state", "noise_reasons"]

OTHERS_CPU = 0.15
"""Part of the CPUs this process may use that others (and the hypervisor) may take before a row is noisy."""
SLOWED_CPU = 0.8
"""Part of its highest frequency under which a CPU counts as slowed down."""
SLOWED_GPU = 0.9
"""Part of the SM clock at the first reading under which a GPU counts as slowed down at the second."""

THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""NVML's bits for what holds clocks down, less those of idleness and of settings someone chose."""


class Watch:
    """From its creation to `state`, which is asked once, when the clocks have run.

    Args:
        device: that the clocks are of.
        processes: the ids of those that work for this one meanwhile, as the ranks of a case over several
            devices: they are no others.
    """

    def __init__(self, device: str, processes: Sequence[int] = ()) -> None:
        self._processes = processes
        self._gpu = gpu_state() if device == "cuda" else None
        self._device = device
        self._busy = _busy_s()
        self._own = self._own_s()
        self._began = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """Readings of the whole interval, and of its two ends, for the row."""
        elapsed = time.perf_counter() - self._began
        found: dict[str, Any] = {"seconds": elapsed, "load_average": os.getloadavg()[0]}
        if self._busy is not None and (busy := _busy_s()) is not None and elapsed > 0:
            others = busy - self._busy - (self._own_s() - self._own)
            found["others_cpu"] = max(0.0, others / elapsed) / cpus()
        if frequency := _frequency():
            found["cpu_mhz"], found["cpu_max_mhz"] = frequency
        if self._device == "cuda":
            found["gpu"] = {"before": self._gpu, "after": gpu_state()}
        return found

    def _own_s(self) -> float:
        """CPU seconds that this process has spent, and those that work for it; one that has ended has none,
        as its row is lost all the same."""
        spent = float(sum(os.times()[:4]))
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                spent += sum(psutil.Process(process).cpu_times()[:2])
        return spent


def noise_reasons(state: dict[str, Any]) -> list[str]:
    """Why the figures taken meanwhile may be off; empty where nothing says so."""
    reasons = []
    gpu = state.get("gpu")
    if gpu is None:
        # What other processes did matters where the CPU itself is measured.
        others = state.get("others_cpu", 0.0)
        # A counter of 10 ms ticks says nothing about a few of them.
        if others > OTHERS_CPU and state["seconds"] > 0.1:
            reasons.append(f"other processes took {others:.0%} of the CPUs")
        maximum = state.get("cpu_max_mhz") or 0.0
        if maximum and state["cpu_mhz"] < SLOWED_CPU * maximum:
            reasons.append(f"the CPU ran at {state['cpu_mhz']:.0f} of {maximum:.0f} MHz")
        return reasons
    before, after = gpu["before"] or {}, gpu["after"] or {}
    held = dict.fromkeys([*before.get("throttle", ()), *after.get("throttle", ())])
    if held:
        reasons.append(f"the GPU's clocks were held down: {', '.join(held)}")
    at_first, at_last = before.get("sm_mhz"), after.get("sm_mhz")
    if at_first is not None and at_last is not None and at_last < SLOWED_GPU * at_first:
        reasons.append(f"the GPU's clock fell from {at_first} to {at_last} MHz")
    return reasons


def _busy_s() -> float | None:
    """CPU seconds that this machine has spent on anything, stolen ones included."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    times = psutil.cpu_times(percpu=True)
    mine = [times[index] for index in os.sched_getaffinity(0) if index < len(times)]
    return sum(sum(t[:3]) + sum(t[5:8]) for t in mine)  # user, nice, system; irq, softirq, steal


def _frequency() -> tuple[float, float] | None:
    """MHz of the fastest of the CPUs that this process may use, and its highest: others are slow as they are
    idle, and a mean of all says nothing of the one that works."""
    with contextlib.suppress(OSError, NotImplementedError, AttributeError):
        every = psutil.cpu_freq(percpu=True)
        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(every))
        found = max((every[at] for at in mine if at < len(every)), key=lambda cpu: cpu.current, default=None)
        if found is not None and found.current:
            return float(found.current), float(found.max or 0.0)
    return None


@functools.cache
def _nvml() -> Any:
    """NVML and its handle of the first visible GPU; None where there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"
        by_name = visible.startswith(("GPU-", "MIG-"))
        handle = (
            pynvml.nvmlDeviceGetHandleByUUID(visible)
            if by_name
            else pynvml.nvmlDeviceGetHandleByIndex(int(visible))
        )
    except Exception:  # noqa: BLE001  (no library, no driver, no permission: each another error)
        return None
    return pynvml, handle


def gpu_state() -> dict[str, Any] | None:
    """Clocks in MHz, power in W, temperature in degrees C and what holds the clocks down; None without
    NVML. What this GPU does not tell is left out."""
    if (found := _nvml()) is None:
        return None
    nvml, handle = found
    state: dict[str, Any] = {}
    with contextlib.suppress(nvml.NVMLError):
        state["sm_mhz"] = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
    with contextlib.suppress(nvml.NVMLError):
        state["memory_mhz"] = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
    with contextlib.suppress(nvml.NVMLError):
        state["power_w"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
    with contextlib.suppress(nvml.NVMLError):
        state["temperature_c"] = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
    with contextlib.suppress(nvml.NVMLError):
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        state["throttle"] = [name for bit, name in THROTTLES.items() if bits & bit]
    return state
