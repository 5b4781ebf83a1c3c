"""Causal linear and momentum attention: the chunked scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from .. import by_distance
from .launch import Blocked, Tile, launch, shared, table, whole
from .plan import Plan
from .states import States, key_value_states, state_inputs
from .sums import first_row, groups_sum, in_head
from .tiles import Tiles

__all__ = ["WEIGHTS", "advanced", "attention", "chunk_count", "chunk_weights", "lagged", "segment_start"]

WEIGHTS = ("lag", "u", "b", "carry")
"""The names in `chunk_weights`."""


def chunk_weights(plan: Plan, rows: int, *, back: bool = False) -> dict[str, Blocked]:
    """What the kernels weight a chunk of C = `rows` positions with, i and j = 0 .. C-1: ``lag`` u(i-j) [C,
    C], ``u`` u(C-1-i) and ``b`` beta^(C-1-i) [C], a key's weights at the chunk's end, and ``carry`` c(i+1)
    [C]. Empty without momentum. Where the chunk forgets, ``carry`` is -beta^(i+2), and there is no ``u``,
    which is 1. Where the plan says that u(i-j) is `factored`, there is no ``lag``.

    `back` turns time round: u(j-i), u(i), beta^i and c(C-i), or -beta^(C-i+1), and keeps ``lag``.
    """
    if not plan.momentum:
        return {}
    beta, i = plan.case.spec.beta, np.arange(rows)
    left, gone = (i, rows - i) if back else (rows - 1 - i, i + 1)
    lag = i[:, None] - i[None, :]
    found = {"b": by_distance.keep(beta, left)}
    if back or not plan.factored(rows):
        found["lag"] = by_distance.u(beta, -lag if back else lag)
    if plan.forgets(rows):
        found["carry"] = -beta * by_distance.keep(beta, gone)
    else:
        found |= {"u": by_distance.u(beta, left), "carry": by_distance.carry(beta, gone)}
    return {name: table(jnp.asarray(x)) for name, x in found.items()}


def lagged(plan: Plan, rows: int, scores: jax.Array, weights: Mapping[str, jax.Array]) -> jax.Array:
    """Scores [C, C], a row a query, by u(i-j), from the `chunk_weights`: by the table ``lag``, or without one
    by 1 + carry_i b_j beta^-C, of two vectors that the kernel has already, for the registers of [C, C]. What
    is above the diagonal is 0 or not defined."""
    if "lag" in weights:
        return scores * weights["lag"]
    # By one factor after the other: their product would be made before the loop, and take as many registers.
    column = weights["b"] * -(plan.case.spec.beta ** -float(rows))
    return scores - scores * weights["carry"][:, None] * column[None, :]


def chunk_count(plan: Plan, first: Any, rows: int) -> Any:
    """Chunks of the segment that starts at `first`: an int, or traced where the last segment has fewer."""
    n, chunks = plan.case.seq_len, plan.segment // rows
    if n % plan.segment == 0:
        return chunks
    return lax.min(jnp.int32(chunks), lax.div(n - first + rows - 1, jnp.int32(rows)))


def segment_start(
    plan: Plan, tiles: Tiles, x: Mapping[str, Any]
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """S and P [value_dim, head_dim] and z [groups, head_dim] where a program's segment starts, as its chunks
    take them: from the `state_inputs` in x, or 0. P is None where only its sum is asked for."""
    swings = plan.momentum and plan.causal
    if "s" in x:
        S, P, z = x["s"][...], x["p"][...] if swings else None, first_row(x["z"][...], tiles.groups)
    else:
        S = jnp.zeros((tiles.value_dim, tiles.head_dim), jnp.float32)
        P, z = S if swings else None, jnp.zeros((tiles.groups, tiles.head_dim), jnp.float32)
    if P is not None and plan.forgets(tiles.rows):
        S, P = S + plan.case.spec.beta * P, plan.numbers.operand(P)
    return S, P, z


def advanced(
    plan: Plan,
    rows: int,
    S: jax.Array,
    P: jax.Array | None,
    y: jax.Array,
    phi: jax.Array,
    weights: Mapping[str, jax.Array],
) -> tuple[jax.Array, jax.Array | None]:
    """S and P [value_dim, head_dim] with a chunk of y [rows, value_dim] and phi [rows, head_dim] added, by
    the `chunk_weights`."""
    numbers, beta = plan.numbers, plan.case.spec.beta
    if P is None:
        return S + numbers.product(numbers.operand(y), phi, "aTb"), None
    late = numbers.product(numbers.operand(y * weights["b"][:, None]), phi, "aTb")
    if plan.forgets(rows):
        return S + numbers.product(numbers.operand(y), phi, "aTb"), numbers.operand(late)
    weighted = numbers.operand(y * weights["u"][:, None])
    S = S + float(by_distance.carry(beta, rows)) * P + numbers.product(weighted, phi, "aTb")
    return S, float(by_distance.keep(beta, rows)) * P + late


def attention(
    plan: Plan, q: jax.Array, k: jax.Array, v: jax.Array, *, keep: bool = False
) -> tuple[jax.Array, jax.Array | None, States]:
    """Eq 8 and, with momentum, eq 13, chunk by chunk. With P the momentum state and S the sum where a chunk
    of C starts, i = 1..C inside it, ``u(n) = 1 - beta^(n+1)`` and ``c(n) = beta (1 - beta^n)``::

        num_i = phi(q_i)^T (S + c(i) P) + sum_{j<=i} u(i-j) (phi(q_i) . phi(k_j)) v_j
        den_i = phi(q_i)^T z + sum_{j<=i} phi(q_i) . phi(k_j) + eps
        o_i = gamma / (1 - beta) num_i / den_i
        S <- S + c(C) P + sum_j u(C-j) phi(k_j) v_j^T;  P <- beta^C P + sum_j beta^(C-j) phi(k_j) v_j^T

    Linear attention is the same with u = 1 and no P, and pays for neither. Where a chunk forgets what came
    before the last one, P is of the last chunk alone, in the operands' dtype, and S has every key at weight
    1::

        num_i = phi(q_i)^T (S - beta^(i+1) P) + sum_{j<=i} u(i-j) (phi(q_i) . phi(k_j)) v_j

    Tiling: one program a block of value_dim, (batch, head) and segment, over chunks of `rows` positions; S
    and P, transposed, [block, head_dim], z in groups [groups, head_dim] and u(i-j) [rows, rows] stay in
    float32 registers.
    Traffic: q, k, v and o once, n (2 head_dim blocks + 2 value_dim) itemsize bytes a (batch, head); in
    segments k and v twice, and the state before each, 4 head_dim value_dim bytes (with momentum twice that);
    `keep`, 4 n bytes.

    Args:
        plan: of the case.
        q: [pairs, seq_len, head_dim], padded as `plan.dims` says, as all are.
        k: as q.
        v: [pairs, seq_len, value_dim].
        keep: whether to store what the backward wants.

    Returns:
        ``o`` [pairs, seq_len, value_dim]; with `keep` the normaliser, eps included, [pairs, seq_len] float32;
        and the states before each segment.
    """
    spec, tiles, numbers, n = plan.case.spec, plan.tiles, plan.numbers, plan.case.seq_len
    rows = tiles.rows
    before = key_value_states(plan, k, v)

    def scan(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        first = pl.program_id(2) * plan.segment
        owner = None if tiles.blocks == 1 else pl.program_id(0) == 0  # of what the blocks share
        start = segment_start(plan, tiles, x)
        i = lax.broadcasted_iota(jnp.int32, (rows, rows), 0)
        j = lax.broadcasted_iota(jnp.int32, (rows, rows), 1)
        weights = {name: x[name][...] for name in WEIGHTS if name in x}

        def chunk(index: Any, state: Any) -> Any:
            S, P, Z = state
            tile = Tile(first + index * rows, rows, None if n % rows == 0 else n)
            phi_q = numbers.operand(numbers.feature(tile.load(x["q"])))  # [rows, head_dim]
            total = jnp.sum(numbers.product(phi_q, numbers.operand(Z), "abT"), 1)  # [rows]
            # P first: Triton makes a product that is added to something go on from that thing's registers.
            num = jnp.zeros((rows, tiles.value_dim), jnp.float32)
            if P is not None:
                num = numbers.product(phi_q, numbers.operand(P), "abT") * weights["carry"][:, None]
            num += numbers.product(phi_q, numbers.operand(S), "abT")
            # phi(0) = 1, so padded columns are cut out after the map; a row past the end no real query sees.
            phi_k = in_head(numbers.feature(tile.load(x["k"])), plan.case.head_dim)
            Z += groups_sum(phi_k, tiles.groups)
            phi_k = numbers.operand(phi_k)
            scores = jnp.where(i >= j, numbers.product(phi_q, phi_k, "abT"), 0.0)
            total += jnp.sum(scores, 1) + spec.eps
            if P is not None:
                scores = lagged(plan, rows, scores, weights)
            values = tile.load(x["v"])
            num += numbers.product(numbers.operand(scores), numbers.operand(values))
            tile.store(out["o"], num * (plan.gain / total)[:, None])
            if keep:
                tile.store(out["den"], total, only=owner)
            return *advanced(plan, rows, S, P, values, phi_k, weights), Z

        lax.fori_loop(0, chunk_count(plan, first, rows), chunk, start)

    inputs = {"q": whole(q), "k": whole(k), "v": shared(v, tiles.value_dim)}
    outputs = {"o": shared(jax.ShapeDtypeStruct(v.shape, v.dtype), tiles.value_dim)}
    if keep:
        outputs["den"] = whole(jax.ShapeDtypeStruct(v.shape[:2], jnp.float32))
    results = launch(
        scan,
        (tiles.blocks, plan.pairs, plan.segments),
        inputs | state_inputs(before, tiles.value_dim, 2) | chunk_weights(plan, rows),
        outputs,
        tiles,
        compiled=numbers.compiled,
    )
    return results["o"], results.get("den"), before
