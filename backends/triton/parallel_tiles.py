"""Which cases the parallel form takes, and its block sizes: these were chosen by counting instructions and
registers in the compiled kernels, the border by timing both forms (docs/triton-notebook.md, section 10)."""

from __future__ import annotations

from dataclasses import replace

from mtbench.spec import Case

from .tiles import Tiles, fast, padded

__all__ = ["MOST_KEYS", "fits", "parallel_gradient_tiles", "parallel_tiles"]

MOST_KEYS = {True: 64, False: 128}
"""Keys of a sequence at the most, by whether the products are wgmma on bfloat16 (`fast`): past one chunk its
kernels of states have fewer instructions. Rows that no thread loads whole have 2 warps there and blocks of 16
columns, each of which computes all scores anew; float32 and float16 have chunks of 16 or 32."""

SCORES = 64 * 64
"""Elements of a program's tile of scores at the most. The backward holds two such tiles."""

MOST_ROWS = 128
"""Queries of a program at the most."""

WARP_GROUP = 64
"""Rows of a wgmma."""


def fits(case: Case) -> bool:
    """Whether a program takes all keys of a sequence."""
    return case.spec.kind != "softmax" and case.kv_len <= MOST_KEYS[fast(case)]


def parallel_tiles(case: Case, *, tf32: bool = False) -> Tiles:
    """Those of the forward: `head_dim` and `value_dim` are the columns that are taken at a time."""
    keys = padded(case.kv_len)
    return _tiles(case, _beside(keys, case.seq_len), keys, tf32)


def parallel_gradient_tiles(case: Case, *, tf32: bool = False) -> tuple[Tiles, ...]:
    """Those of the backward: of one launch for all three gradients; where two tiles of scores would not fit
    the registers, of one launch by queries and one by keys."""
    keys = padded(case.kv_len)
    by_queries = parallel_tiles(case, tf32=tf32)
    if keys * keys <= SCORES:
        return (by_queries,)
    # No product of these has WARP_GROUP rows, which with 4 warps would be a wgmma.
    by_queries = replace(by_queries, warps=max(4, by_queries.warps))
    rows = min(padded(case.seq_len), MOST_ROWS)
    return by_queries, _tiles(case, rows, min(_beside(rows, case.kv_len), WARP_GROUP), tf32)


def _beside(others: int, length: int) -> int:
    """Rows, or keys, of a tile with that many of the others, for that many positions."""
    return min(padded(length), MOST_ROWS, SCORES // others)


def _tiles(case: Case, rows: int, keys: int, tf32: bool) -> Tiles:
    """Few columns at a time, as a thread has an address for each element of a ragged row, and on the ordinary
    cores an operand's whole summed dimension.

    With 2 warps every product is an mma, whose operands lie in registers: see `ragged` in tiles.py. A wgmma's
    operand has 64 columns, as all of its kernels have, be they more than the head's: with 32, dk was wrong
    on a Hopper (docs/triton-notebook.md, section 10).
    """
    least = 1
    if case.dtype == "float32" and not tf32:
        columns, warps = 16, 4 if rows * keys <= 32 * 32 else 8
    elif not fast(case):
        columns, warps = 16, 2
    elif min(rows, keys) < WARP_GROUP:
        columns, warps = 32, 2
    else:
        columns, warps, least = 64, 4, 64
    return Tiles(
        rows=rows, keys=keys, head_dim=max(least, min(columns, padded(case.head_dim))),
        value_dim=max(least, min(columns, padded(case.value_dim))), value_blocks=1, warps=warps, stages=1,
    )  # fmt: skip
