"""Softmax attention (eq 1) by online softmax, flash style."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .launch import Tile, launch, whole
from .plan import Plan

__all__ = ["attention", "block_of_queries", "factor"]


def factor(plan: Plan) -> float:
    """What scores are multiplied by, the scale times log2(e): exp2 is what the hardware has."""
    return plan.case.softmax_scale * math.log2(math.e)


def block_of_queries(plan: Plan, rows: int) -> Any:
    """The first query of a program, whose blocks are the grid's parts; causal, those with the most keys start
    first."""
    blocks = -(-plan.case.seq_len // rows)
    part = pl.program_id(2)
    return (blocks - 1 - part if plan.causal else part) * rows


def attention(
    plan: Plan, q: jax.Array, k: jax.Array, v: jax.Array, *, keep: bool = False
) -> tuple[jax.Array, jax.Array | None, dict[str, jax.Array]]:
    """``o_i = sum_j softmax_j(scale q_i . k_j) v_j`` (eq 1).

    Tiling: one program takes `rows` queries of one (batch, head) over blocks of `keys` keys, and keeps the
    row maximum and sum [rows] and the output [rows, value_dim] in float32. Causal, blocks above the diagonal
    are skipped, and only those on it are masked.
    Traffic: q and o once, (head_dim + value_dim) itemsize bytes a query; k and v once a block of queries,
    most of it from the L2. `keep`, 4 bytes a query; nothing else is written.

    Args:
        plan: of the case.
        q: [pairs, seq_len, head_dim], padded as `plan.dims` says, as all are.
        k: as q.
        v: [pairs, seq_len, value_dim].
        keep: whether to store what the backward wants.

    Returns:
        ``o`` [pairs, seq_len, value_dim]; with `keep` the logarithm of each row's sum, to base 2, [pairs,
        seq_len] float32; and no states.
    """
    tiles, numbers, n, causal = plan.tiles, plan.numbers, plan.case.seq_len, plan.causal
    rows, keys = tiles.rows, tiles.keys

    def softmax(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        first = block_of_queries(plan, rows)
        mine = Tile(first, rows, None if n % rows == 0 else n)
        queries = mine.load(x["q"])  # [rows, head_dim]

        def block(index: Any, so_far: Any, *, masked: bool) -> Any:
            best, total, acc = so_far
            tile = Tile(index * keys, keys, n if masked and n % keys else None)
            scores = numbers.half_product(queries, tile.load(x["k"]), "abT") * factor(plan)  # [rows, keys]
            if masked and causal:
                scores = jnp.where(mine.rows[:, None] >= tile.rows[None, :], scores, -jnp.inf)
            elif tile.real is not None:
                scores = jnp.where(tile.real[None, :], scores, -jnp.inf)
            # Finite from the first block on: every query sees key 0.
            higher = jnp.maximum(best, jnp.max(scores, 1))  # [rows]
            p = numbers.exp2(scores - higher[:, None])  # [rows, keys]
            shrink = numbers.exp2(best - higher)
            values = tile.load(x["v"])
            acc = acc * shrink[:, None] + numbers.half_product(p.astype(values.dtype), values)
            return higher, total * shrink + jnp.sum(p, 1), acc

        # So many blocks of keys are seen whole by every query of the program.
        free: Any = n // keys
        stop: Any = -(-n // keys)
        if causal:
            free = lax.div(first, jnp.int32(keys))
            stop = lax.min(jnp.int32(stop), lax.div(first + rows + keys - 1, jnp.int32(keys)))
        so_far: Any = (
            jnp.full((rows,), -jnp.inf, jnp.float32),
            jnp.zeros((rows,), jnp.float32),
            jnp.zeros((rows, tiles.value_dim), jnp.float32),
        )
        so_far = lax.fori_loop(0, free, functools.partial(block, masked=False), so_far)
        if causal or n % keys:
            so_far = lax.fori_loop(free, stop, functools.partial(block, masked=True), so_far)
        best, total, acc = so_far
        if keep:
            mine.store(out["lse"], best + jnp.log2(total))
        mine.store(out["o"], acc / total[:, None])

    outputs = {"o": whole(jax.ShapeDtypeStruct(v.shape, v.dtype))}
    if keep:
        outputs["lse"] = whole(jax.ShapeDtypeStruct(v.shape[:2], jnp.float32))
    results = launch(
        softmax,
        (1, plan.pairs, -(-n // rows)),
        {"q": whole(q), "k": whole(k), "v": whole(v)},
        outputs,
        tiles,
        compiled=numbers.compiled,
    )
    return results["o"], results.get("lse"), {}
