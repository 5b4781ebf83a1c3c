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
    """``copy_bytes_per_s``, reads and writes counted, and ``matmul_flop_per_s`` by dtype, of the first GPU."""
    source, target = (torch.ones(COPIED_BYTES // 4, device="cuda") for _ in range(2))
    copied = 2 * COPIED_BYTES / _fastest_s(lambda: target.copy_(source))
    del source, target
    products = {}
    n = MATMUL_SIZE
    for dtype in dtypes:
        a, b = (torch.randn(n, n, device="cuda").to(getattr(torch, dtype)) for _ in range(2))
        products[dtype] = 2 * n**3 / _fastest_s(lambda a=a, b=b: a @ b)
        del a, b
    torch.cuda.empty_cache()
    return {"copy_bytes_per_s": copied, "matmul_flop_per_s": products}


def _fastest_s(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    call()
    found = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(EACH):
            call()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1000 / EACH)
    return min(found)
