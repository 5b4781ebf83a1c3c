"""The least time that memory allows a call: its tensors read and written once, at the rate of a copy."""

from __future__ import annotations

from mtbench.spec import Case

__all__ = ["floor_bytes", "floor_ms"]

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def floor_bytes(case: Case) -> int:
    """The bytes that a call must move at the least.

    Forward q, k and v are read and o is written. With the backward three times as much: it reads q, k, v, o
    and do, and writes dq, dk and dv.

    >>> floor_bytes(Case(batch=8, heads=16, seq_len=4096, head_dim=64, dtype="bfloat16")) == 1 << 28
    True
    """
    queries = case.batch * case.heads * case.seq_len * (case.head_dim + case.value_dim)
    keys = case.batch * case.kv_heads * case.kv_len * (case.head_dim + case.value_dim)
    return (3 if case.mode == "forward_backward" else 1) * (queries + keys) * ITEM_BYTES[case.dtype]


def floor_ms(case: Case, copy_bytes_per_s: float | None) -> float | None:
    """`floor_bytes` at that rate, in ms; None where no rate was measured."""
    return floor_bytes(case) / copy_bytes_per_s * 1e3 if copy_bytes_per_s else None
