"""What a framework's own profiler and compiler can tell of a kernel: a module of this package a framework,
named by `PROFILERS`. Importing this one imports no framework."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, cast

from mtbench.backend import Kernel

__all__ = ["CALL", "IDLE_S", "Profiler", "bracketed", "load_profiler"]

CALL = "mtbench call"
"""The annotation around every traced call."""
IDLE_S = 0.0002
"""Before and after it nothing runs for so long."""
PROFILERS = {"torch": "torch_profiler", "jax": "jax_profiler"}


class Profiler(Protocol):
    """Each is asked in a process that does nothing else, after the kernel has run."""

    def trace(self, kernel: Kernel, device: str, calls: int, flush: Callable[[], None], file: Path) -> None:
        """Write what so many calls did as a Chrome trace, gzipped, each bracketed by `CALL`."""

    def memory(self, kernel: Kernel, device: str, folder: Path) -> Mapping[str, Any] | None:
        """The memory of one call over time, as `mtbench.profile.memory` reads it, with what else there is to
        say written to files in the folder. None where the framework records nothing of it."""

    def work(self, kernel: Kernel) -> Mapping[str, float]:
        """``flop`` and ``bytes`` that the operators of a call, or its program, say they need; what is not
        known is left out."""

    def programs(self, kernel: Kernel) -> Mapping[str, str]:
        """The compiler's last text of the program, by a file's name."""


def load_profiler(framework: str) -> Profiler | None:
    """That of a framework, which is imported already; None where it has none."""
    name = PROFILERS.get(framework)
    return None if name is None else cast(Profiler, importlib.import_module(f"mtbench.frameworks.{name}"))


def bracketed(
    kernel: Kernel,
    calls: int,
    flush: Callable[[], None],
    annotate: Callable[[str], AbstractContextManager[Any]],
) -> Iterator[None]:
    """So many calls, each annotated, waited for, and alone on its device; yields after each."""
    for _ in range(calls):
        flush()
        time.sleep(IDLE_S)
        with annotate(CALL):
            kernel.wait(kernel())
        time.sleep(IDLE_S)
        yield
