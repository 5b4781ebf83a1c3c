"""Non-causal linear and momentum attention: one state for all queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .launch import Tile, launch, shared, whole
from .plan import Plan
from .scan import chunk_count
from .states import States, key_value_states, state_inputs
from .sums import first_row

__all__ = ["attention"]

LEAST_COLUMNS = 16
"""Of a product."""


def attention(
    plan: Plan, q: jax.Array, k: jax.Array, v: jax.Array, *, keep: bool = False
) -> tuple[jax.Array, jax.Array | None, States]:
    """``o_i = gamma / (1 - beta) phi(q_i)^T S / (phi(q_i)^T z + eps)``: eq 8 and 14, S and z being the state
    of the whole sequence, in which each key has its weight by position already.

    Tiling: one program a block of value_dim, (batch, head) and segment; it holds the state, transposed,
    [block, head_dim], over chunks of `rows` queries.
    Traffic: q and o once, n (head_dim blocks + value_dim) itemsize bytes a (batch, head); the state, 4
    head_dim value_dim bytes, once a segment and mostly from the L2; `keep`, 4 n bytes.

    Args:
        plan: of the case.
        q: [pairs, seq_len, head_dim], padded as `plan.dims` says, as all are.
        k: as q.
        v: [pairs, seq_len, value_dim].
        keep: whether to store what the backward wants.

    Returns:
        ``o`` [pairs, seq_len, value_dim]; with `keep` the normaliser, eps included, [pairs, seq_len] float32;
        and the states.
    """
    tiles, numbers, n, rows = plan.tiles, plan.numbers, plan.case.seq_len, plan.tiles.rows
    held = key_value_states(plan, k, v)

    def apply(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        first = pl.program_id(2) * plan.segment
        owner = None if tiles.blocks == 1 else pl.program_id(0) == 0  # of what the blocks share
        S = numbers.operand(x["s"][...])  # [block, head_dim]
        Z = numbers.operand(first_row(x["z"][...], LEAST_COLUMNS))

        def chunk(index: Any, nothing: Any) -> Any:
            tile = Tile(first + index * rows, rows, None if n % rows == 0 else n)
            phi = numbers.operand(
                numbers.feature(tile.load(x["q"]))
            )  # [rows, head_dim]; S and z have no padding
            num = numbers.product(phi, S, "abT")
            total = jnp.sum(numbers.product(phi, Z, "abT"), 1) + plan.case.spec.eps  # [rows]
            if keep:
                tile.store(out["den"], total, only=owner)
            tile.store(out["o"], num * (plan.gain / total)[:, None])
            return nothing

        lax.fori_loop(0, chunk_count(plan, first, rows), chunk, 0)

    outputs = {"o": shared(jax.ShapeDtypeStruct(v.shape, v.dtype), tiles.value_dim)}
    if keep:
        outputs["den"] = whole(jax.ShapeDtypeStruct(v.shape[:2], jnp.float32))
    results = launch(
        apply,
        (tiles.blocks, plan.pairs, plan.segments),
        {"q": whole(q)} | state_inputs(held, tiles.value_dim, 2),
        outputs,
        tiles,
        compiled=numbers.compiled,
    )
    return results["o"], results.get("den"), held
