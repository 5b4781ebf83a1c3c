"""One file a framework: how its arrays are made and waited for, differentiated, and its memory read.

A backend says whose arrays it uses; everything that differs between frameworks and not between kernels is
here, so that every backend of a framework is measured alike. Importing this package imports no framework.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from mtbench.backend import Kernel
from mtbench.errors import BadInput, nearest
from mtbench.spec import Case

__all__ = ["FRAMEWORKS", "MEMORY_WORKERS", "Framework", "MemoryWorker", "PeakMemory", "load_framework"]

FRAMEWORKS = ("torch", "jax", "numpy")


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """The most memory one call held, beyond what was in use before it."""

    bytes: int | None
    method: str
    """How it was read; with bytes None, why it could not be."""


@dataclass(frozen=True, kw_only=True)
class MemoryWorker:
    """A process of its own in which peak memory is read."""

    environment: Mapping[str, str]
    """What must be in its environment."""
    compiled_in: str
    """The variable that names a folder of compiled programs, which the timing worker fills for it."""


MEMORY_WORKERS: Mapping[tuple[str, str], MemoryWorker] = {
    # XLA's own allocator keeps one peak a process, which compiling raises. CUDA's pool has a peak that can
    # be reset, but allocates so slowly that the clocks would show it.
    ("jax", "cuda"): MemoryWorker(
        environment={"XLA_PYTHON_CLIENT_ALLOCATOR": "cuda_async"},
        compiled_in="JAX_COMPILATION_CACHE_DIR",
    ),
}
"""The (framework, device) whose peak memory is not read where the clocks run."""


class Framework(Protocol):
    """What the measuring needs of a framework. Each module of this package is one."""

    def kernel(
        self,
        function: Callable[[Any, Any, Any], Any],
        case: Case,
        *,
        layout: str = "bhnd",
        untimed: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Kernel:
        """A kernel that calls `function(q, k, v)` on this framework's arrays in the given layout, and, in
        mode forward_backward, differentiates it by this framework's autodiff."""

    def start(self, device: str, threads: int) -> None:
        """Once a process, before any array: thread counts and the meaning of float32."""

    def device_problem(self, device: str) -> str | None:
        """Why this build of the framework cannot use the device, or None."""

    def environment(self, device: str) -> dict[str, Any]:
        """Versions, threads and the device, for the run's record."""

    def flush_cache(self, device: str) -> None:
        """Evict a GPU's L2 by reading a buffer larger than it, and wait. Nothing on a CPU."""

    def peak_memory(self, kernel: Kernel, device: str) -> PeakMemory:
        """The peak of one call of a kernel that has run before."""

    def static_memory(self, kernel: Kernel) -> int | None:
        """Bytes that the compiler says a call needs beyond its arguments; None where it says nothing."""

    def compilations(self) -> Mapping[str, int]:
        """Programs this process has compiled so far: those it had to (``anew``) and those a cache on disk had
        (``from_cache``). Empty where nothing is compiled, or nothing counts it."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception of this framework says that memory ran out."""

    def release(self) -> None:
        """Forget compiled programs and cached memory, between two cases."""


def load_framework(name: str) -> Framework:
    """The adapter of a framework, which imports it.

    Raises:
        BadInput: no adapter of that name.
        ImportError: the framework is not installed.
    """
    if name not in FRAMEWORKS:
        raise BadInput(f"unknown framework {name!r}: {nearest(name, FRAMEWORKS)}")
    return cast(Framework, importlib.import_module(f"mtbench.frameworks.{name}"))
