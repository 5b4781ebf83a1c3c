"""The least time that memory allows a call: its tensors read and written once, at the rate of a copy; and
what a run has measured its machine to reach."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mtbench.spec import DEVICES, Case, Dtype

__all__ = ["NOT_MEASURED", "NOWHERE_MEASURED", "Ceilings", "floor_bytes", "floor_ms", "read_ceilings"]

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SAME_UNITS: Mapping[Dtype, Dtype] = {"float16": "bfloat16"}
"""A dtype's products run at the rate of another's, which was measured."""


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """The best rates that the workers of a run measured on one device (`mtbench.measure.ceilings`)."""

    copy_bytes_per_s: float | None = None
    """Of a copy, reads and writes counted; None: not measured."""
    matmul_flop_per_s: Mapping[str, float] = field(default_factory=dict)
    """Of the product of two matrices, by dtype."""

    def matmul(self, dtype: Dtype) -> float | None:
        """Of products in that dtype; None where they were not measured."""
        return self.matmul_flop_per_s.get(SAME_UNITS.get(dtype, dtype))


NOT_MEASURED: Mapping[str, Ceilings] = {}
"""The ceilings by device, where none is known."""
NOWHERE_MEASURED: Mapping[str, Mapping[str, Ceilings]] = {}
"""The same by kind of machine, as a run has them (`mtbench.results.Run.ceilings`)."""


def read_ceilings(workers: object) -> dict[str, Ceilings]:
    """By device, from run.json's ``workers``, whose names end in ``on DEVICE``. A run of an older mtbench has
    the copy on a GPU, or nothing; whatever is no rate is left out."""
    by_device: dict[str, list[Mapping[str, Any]]] = {device: [] for device in DEVICES}
    for name, environment in workers.items() if isinstance(workers, Mapping) else ():
        device = str(name).rpartition(" on ")[2]
        if device in by_device and isinstance(environment, Mapping):
            by_device[device].append(environment)
    found = {}
    for device, environments in by_device.items():
        products = [e.get("matmul_flop_per_s") for e in environments]
        tables = [table for table in products if isinstance(table, Mapping)]
        rates = {dtype: _best(t.get(dtype) for t in tables) for dtype in ITEM_BYTES}
        found[device] = Ceilings(
            copy_bytes_per_s=_best(e.get("copy_bytes_per_s") for e in environments),
            matmul_flop_per_s={dtype: rate for dtype, rate in rates.items() if rate is not None},
        )
    return found


def _best(rates: Iterable[object]) -> float | None:
    return max((r for r in rates if isinstance(r, float) and 0 < r < math.inf), default=None)


def floor_bytes(case: Case) -> int:
    """The bytes that a call must move at the least.

    Forward q, k and v are read and o is written. With the backward three times as much: it reads q, k, v, o
    and do, and writes dq, dk and dv. Keys and values that are padding need not be read; their gradients are
    written, as zeros.

    >>> floor_bytes(Case(batch=8, heads=16, seq_len=4096, head_dim=64, dtype="bfloat16")) == 1 << 28
    True
    """
    dims = case.head_dim + case.value_dim
    queries = case.batch * case.heads * case.seq_len * dims
    keys, real = (case.kv_heads * n * dims for n in (case.batch * case.kv_len, sum(case.key_lengths)))
    moved = 3 * queries + 2 * real + keys if case.mode == "forward_backward" else queries + real
    return moved * ITEM_BYTES[case.dtype]


def floor_ms(case: Case, ceilings: Mapping[str, Ceilings]) -> float | None:
    """`floor_bytes` at the rate of a copy on the case's devices together, in ms; None where none was
    measured."""
    rate = ceilings[case.device].copy_bytes_per_s if case.device in ceilings else None
    return floor_bytes(case) / rate / case.world_size * 1e3 if rate else None
