"""What a GPU reaches, by CUDA events: for a process that goes on to work, which a profiler would slow.

A sweep's workers measure the same by the profiler's clock (`mtbench.measure.ceilings`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["rates"]

COPIED_BYTES = 1 << 29
"""Ten times a large L2."""
MATMUL_SIZE = 8192
"""n of a product of two [n, n] matrices."""
ROUNDS, EACH = 5, 8
"""The fastest of so many rounds, of so many calls each."""


def rates(dtypes: tuple[str, ...]) -> Mapping[str, Any]:
    """``copy_bytes_per_s``, reads and writes counted, and ``matmul_flop_per_s`` by dtype, of the GPU."""
    found = {
        "copy_bytes_per_s": 2 * COPIED_BYTES / _copy_s(),
        "matmul_flop_per_s": {dtype: 2 * MATMUL_SIZE**3 / _product_s(dtype) for dtype in dtypes},
    }
    torch.cuda.empty_cache()
    return found


def _copy_s() -> float:
    source, target = (torch.ones(COPIED_BYTES // 4, device="cuda") for _ in range(2))
    return _fastest_s(lambda: target.copy_(source))


def _product_s(dtype: str) -> float:
    size = (MATMUL_SIZE, MATMUL_SIZE)
    a, b = (torch.randn(size, device="cuda").to(getattr(torch, dtype)) for _ in range(2))
    return _fastest_s(lambda: a @ b)


def _fastest_s(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    call()
    found: list[float] = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(EACH):
            call()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1000 / EACH)
    return min(found)
