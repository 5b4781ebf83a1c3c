"""How rows are measured, beside what they are; the same wherever they are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from mtbench.measure.clocks import Sampling

__all__ = ["Settings"]

FREE_PART = 0.9
"""Of the memory that is free, what a worker may take where nobody says."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """As they were asked for. What is None each machine decides for itself."""

    sampling: Sampling
    threads: int | None
    """CPU threads of every backend; None: all CPUs of the machine, on a GPU of several its share of them."""
    timeout_s: float
    memory_limit_bytes: int | None
    """Resident memory at which a worker is ended, before the kernel's killer picks a victim; None: nine
    tenths of what is free."""
    launches: int = 1
    """Times that every row is measured, in a fresh process each time."""
    interleaved: bool = True
    seed: int = 0
    """Of the order; each launch has another."""

    @property
    def order(self) -> dict[str, Any]:
        """What `mtbench.sweep.plan.orders` wants to know."""
        return {"seed": self.seed, "interleaved": self.interleaved, "launches": self.launches}

    @property
    def memory_limit_here(self) -> int:
        """The limit on this machine, now."""
        return self.memory_limit_bytes or int(FREE_PART * psutil.virtual_memory().available)
