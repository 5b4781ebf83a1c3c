"""A worker process of a sweep, as the runner holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtbench.sweep.child import ChildProcess, Ended

__all__ = ["Ended", "WorkerProcess"]


class WorkerProcess(ChildProcess):
    """One worker: one backend on one device."""

    def __init__(
        self,
        backend: str,
        device: str,
        *,
        threads: int,
        log: Path,
        memory_limit: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            "mtbench.sweep.worker",
            [backend, device, str(threads)],
            device=device,
            threads=threads,
            log=log,
            memory_limit=memory_limit,
            environment=environment,
        )

    def hello(self, timeout_s: float) -> dict[str, Any]:
        """What it says when its framework is imported: ``problem`` and ``environment``."""
        return self.wait_for("hello", timeout_s)

    def ceilings(self, timeout_s: float) -> dict[str, Any]:
        """``copy_bytes_per_s`` and ``matmul_flop_per_s`` of its device (`mtbench.measure.ceilings`)."""
        self.stage = "ceilings"
        return self.ask({"want": "ceilings"}, "ceilings", timeout_s)

    def measure(
        self, task: dict[str, Any], timeout_s: float, on_stage: Callable[[str], None]
    ) -> dict[str, Any]:
        """The row of one task."""
        return self.ask({"want": "row", **task}, "row", timeout_s, on_stage)

    def peak_memory(self, task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """``bytes`` and ``method`` of one task's peak memory."""
        self.stage = "memory"
        return self.ask({"want": "peak", **task}, "peak", timeout_s)
