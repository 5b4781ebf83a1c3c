"""NumPy arrays, for a backend that is plain Python or C behind NumPy."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mtbench.backend import Kernel
from mtbench.frameworks import PeakMemory
from mtbench.frameworks.layout import from_bhnd, to_bhnd
from mtbench.inputs import Array, Inputs
from mtbench.measure.memory import host_peak
from mtbench.spec import Case


class NumpyKernel:
    """A function over NumPy arrays; forward only."""

    def __init__(
        self,
        function: Callable[[Any, Any, Any], Any],
        layout: str,
        untimed: str | None,
        config: Mapping[str, Any],
    ) -> None:
        self.layout = layout
        self.untimed = untimed
        self.config = config
        self._function = function
        self._arguments: tuple[Array, ...] = ()

    def load(self, inputs: Inputs) -> None:
        """See `Kernel.load`."""
        self._arguments = tuple(
            np.array(from_bhnd(a, self.layout), order="C") for a in (inputs.q, inputs.k, inputs.v)
        )

    def __call__(self) -> Any:
        return self._function(*self._arguments)

    def wait(self, result: Any) -> None:
        """NumPy has computed by the time it returns."""

    def outputs(self, result: Any) -> dict[str, Array]:
        """See `Kernel.outputs`."""
        return {"o": to_bhnd(np.asarray(result), self.layout)}


def kernel(
    function: Callable[[Any, Any, Any], Any],
    case: Case,
    *,
    layout: str = "bhnd",
    untimed: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Kernel:
    """See `Framework.kernel`."""
    return NumpyKernel(function, layout, untimed, dict(config or {}))


_started_with: int | None = None


def start(device: str, threads: int) -> None:
    """NumPy's BLAS reads its thread count from the environment, which the runner sets; a backend that has
    threads of its own asks for `threads`."""
    global _started_with
    _started_with = threads


def threads() -> int:
    """The threads that a call may use: as `start` was told, else the CPUs this process may use."""
    if _started_with is not None:
        return _started_with
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_problem(device: str) -> str | None:
    """See `Framework.device_problem`."""
    return None if device == "cpu" else "NumPy runs on the CPU"


def environment(device: str) -> dict[str, Any]:
    """See `Framework.environment`."""
    return {"numpy": np.__version__, "python": platform.python_version(), "threads": threads()}


def flush_cache(device: str) -> None:
    """A CPU's cache is left warm."""


def peak_memory(kernel: Kernel, device: str) -> PeakMemory:
    """See `Framework.peak_memory`."""
    return host_peak(kernel)


def static_memory(kernel: Kernel) -> int | None:
    """See `Framework.static_memory`."""
    return None


def compilations() -> Mapping[str, int]:
    """See `Framework.compilations`."""
    return {}


def is_out_of_memory(error: BaseException) -> bool:
    """See `Framework.is_out_of_memory`."""
    return isinstance(error, MemoryError)


def release() -> None:
    """Nothing is kept."""
