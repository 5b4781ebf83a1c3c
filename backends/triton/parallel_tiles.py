"""Which cases the parallel form takes, and its block sizes."""

from __future__ import annotations

from mtbench.spec import Case

from .tiles import Tiles, fast, padded, ragged

__all__ = ["MOST_KEYS", "fits", "parallel_gradient_tiles", "parallel_tiles"]

MOST_KEYS = 128
"""Keys of a sequence at the most: more have their states made, by the chunked kernels."""

SCORES = 64 * 64
"""Elements of a program's tile of scores at the most. The backward holds two such tiles, and makes all three
gradients in one launch where all keys fit one; else it has a launch by queries and one by keys."""

MOST_ROWS = 128
"""Queries of a program at the most."""


def fits(case: Case) -> bool:
    """Whether a program takes all keys of a sequence."""
    return case.spec.kind != "softmax" and case.kv_len <= MOST_KEYS


def parallel_tiles(case: Case) -> Tiles:
    """Those of the forward: `head_dim` and `value_dim` are the columns that are taken at a time."""
    keys = padded(case.kv_len)
    return _tiles(case, _rows(case.seq_len, keys), keys)


def parallel_gradient_tiles(case: Case) -> tuple[Tiles, ...]:
    """Those of the backward: of one launch, or of that by queries and that by keys."""
    keys = padded(case.kv_len)
    if keys * keys <= SCORES:
        return (_tiles(case, _rows(case.seq_len, keys), keys),)
    rows = min(padded(case.seq_len), MOST_ROWS)
    return _tiles(case, _rows(case.seq_len, keys), keys), _tiles(case, rows, _rows(case.kv_len, rows))


def _rows(length: int, others: int) -> int:
    """Of a tile with that many rows of the others."""
    return min(padded(length), MOST_ROWS, SCORES // others)


def _tiles(case: Case, rows: int, keys: int) -> Tiles:
    return Tiles(
        rows=rows, keys=keys, head_dim=min(64, padded(case.head_dim)), value_dim=min(64, padded(case.value_dim)),
        value_blocks=1, warps=2, stages=1,
    )  # fmt: skip
