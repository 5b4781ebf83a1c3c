"""A process that is profiled: one kernel, built and warm, and what is asked of it part by part.

Run as ``python -P -m mtbench.profile.worker FD BACKEND DEVICE THREADS``; `mtbench.profile.parts` starts it.
Every answer is ``{"done": {...}}``, or ``{"done": {"failed": why}}``: a part that fails costs that part.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from mtbench.backend import Backend, Kernel
from mtbench.errors import BackendFailure
from mtbench.frameworks import Framework, load_framework
from mtbench.frameworks.profiling import load_profiler
from mtbench.inputs import make_inputs
from mtbench.measure.memory import settle_allocator
from mtbench.profile import counters, flame, machine, made, memory
from mtbench.registry import load_backend
from mtbench.spec import Case, Device
from mtbench.sweep.channel import Channel
from mtbench.sweep.child import die_with_parent

__all__ = ["Profiled", "main", "processor_times"]

WARM_S = 0.3
BUSY_S = 0.5
NO_PROFILER = "{} has no profiler: the flame graph shows where its time goes"


def processor_times(kernel: Kernel, seconds: float = BUSY_S) -> tuple[float, float]:
    """Milliseconds a call of the wall clock, and of the processor's time in this process, on all threads.

    While a neighbour has the processor that a thread would run on, that thread does not wait for the host:
    such time counts as worked.
    """
    calls, began, worked = 0, time.perf_counter(), time.process_time() + _held_up()
    while True:
        kernel.wait(kernel())
        calls += 1
        elapsed = time.perf_counter() - began
        if elapsed >= seconds:
            return elapsed / calls * 1e3, (time.process_time() + _held_up() - worked) / calls * 1e3


def _held_up() -> float:
    """Seconds that the threads of this process could have run and did not; 0 where Linux does not say."""
    total = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # a thread may have ended meanwhile
            total += int(file.read_text().split()[1])
    return total / 1e9


class Profiled:
    """One kernel, and the parts of a profile that are made in the process that runs it."""

    def __init__(self, backend: Backend, framework: Framework, device: Device) -> None:
        self._backend, self._framework, self._device = backend, framework, device
        self._profiler = load_profiler(backend.framework)
        self._built: Kernel | None = None

    def do(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """One part, by the name of a method here."""
        parts: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "machine": self.machine,
            "build": self.build,
            "trace": self.trace,
            "work": self.work,
            "memory": self.memory,
            "made": self.made,
            "busy": self.busy,
            "resident": self.resident,
            "counters": self.counters,
            "flame": self.flame,
        }
        try:
            return parts[task["want"]](task)
        except Exception as error:  # noqa: BLE001  (whatever a profiler raises is why its part is missing)
            traceback.print_exc()
            return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]}

    @property
    def _kernel(self) -> Kernel:
        if self._built is None:
            raise RuntimeError("nothing was built")
        return self._built

    def _call(self) -> None:
        self._kernel.wait(self._kernel())

    def machine(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """What the machine reaches."""
        return asdict(machine.measured(self._framework, self._device, task["dtype"]))

    def build(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The kernel, loaded and warm."""
        case = Case.from_dict(task["case"])
        self._built = self._backend.build(case, task["form"])
        self._kernel.load(make_inputs(case))
        began = time.perf_counter()
        self._call()
        while time.perf_counter() - began < WARM_S:
            self._call()
        return {}

    def trace(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Calls under the framework's profiler, into a file."""
        if self._profiler is None:
            return {"failed": NO_PROFILER.format(self._backend.framework)}
        self._profiler.trace(
            self._kernel,
            self._device,
            task["calls"],
            lambda: self._framework.flush_cache(self._device),
            Path(task["file"]),
        )
        return {}

    def work(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """What its operators or its program say they need."""
        return {} if self._profiler is None else dict(self._profiler.work(self._kernel))

    def memory(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The memory of a call over time."""
        if self._profiler is None:
            return {"failed": f"{self._backend.framework} keeps no record of what it allocates"}
        told = self._profiler.memory(self._kernel, self._device, Path(task["folder"]))
        course = None if told is None else memory.course(told)
        if course is None:
            return {"failed": "no allocation was recorded"}
        return {"course": asdict(course)}

    def made(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """What the compiler made."""
        programs = {} if self._profiler is None else self._profiler.programs(self._kernel)
        cache = Path(task["cache"])
        found = made.gather(cache, programs, Path(task["folder"]))
        stacks = [[name, registers, stack] for (name, registers), stack in made.spills(cache).items()]
        plan = memory.planned(made.memory_report(cache))
        return {"made": asdict(found), "stacks": stacks, "plan": None if plan is None else asdict(plan)}

    def busy(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Wall and processor time."""
        wall, worked = processor_times(self._kernel)
        return {"wall_ms": wall, "worked_ms": worked}

    def resident(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The resident set over time."""
        course = memory.resident_course(self._kernel)
        return {"failed": "this system does not say"} if course is None else {"course": asdict(course)}

    def counters(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Perf's."""
        found, why = counters.count(self._call, task["calls"])
        return {"counters": found, "why": why}

    def flame(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """py-spy's."""
        tree, why = flame.record_flame(self._call, Path(task["folder"]))
        return {"failed": why} if tree is None else {"flame": asdict(tree)}


def main(handle: int, name: str, device: Device, threads: int) -> None:
    """Say hello, then do what is asked for until the other end hangs up."""
    faulthandler.enable()
    die_with_parent()
    settle_allocator()
    channel = Channel(handle)
    try:
        backend = load_backend(name)
        framework = load_framework(backend.framework)
        framework.start(device, threads)
        profiled = Profiled(backend, framework, device)
    except (ImportError, OSError, BackendFailure) as error:
        traceback.print_exc()
        channel.send({"done": {"failed": f"{type(error).__name__}: {error}"}})
        return
    channel.send({"done": {}})
    while True:
        try:
            task = channel.receive()
        except (EOFError, OSError):
            return
        channel.send({"done": profiled.do(task)})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], cast(Device, sys.argv[3]), int(sys.argv[4]))
