"""Causal linear and momentum attention: the chunked scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from . import tables
from .launch import Blocked, Tile, launch, shared, states, table, whole
from .plan import Plan
from .sums import first_row, groups_sum, in_head
from .tiles import Tiles

__all__ = ["Kept", "attention", "chunk_tables"]


def chunk_tables(plan: Plan, tiles: Tiles, *, back: bool = False) -> dict[str, Blocked]:
    """What the kernels weight a chunk of C positions with, i = 0 .. C-1: u(i-j) [C, C] (u(j-i) where `back`),
    u and beta^n [C] of the positions left after i, and c(i+1) [C] of those before. Empty without momentum.

    `back` turns time round: what is left are the positions before i.
    """
    if not plan.momentum:
        return {}
    beta, i = plan.case.spec.beta, np.arange(tiles.rows)
    left, gone = (i, tiles.rows - i) if back else (tiles.rows - 1 - i, i + 1)
    lag = i[:, None] - i[None, :]
    found = {
        "lag": tables.u(beta, -lag if back else lag),
        "u": tables.u(beta, left),
        "b": tables.keep(beta, left),
        "carry": tables.carry(beta, gone),
    }
    return {name: table(jnp.asarray(x)) for name, x in found.items()}


class Kept(NamedTuple):
    """What the backward wants of the forward."""

    den: jax.Array
    """[pairs, seq_len] float32: the normaliser, eps included."""
    before: Mapping[str, jax.Array]
    """The states before each segment; empty where there is one."""


def attention(
    plan: Plan, q: jax.Array, k: jax.Array, v: jax.Array, *, keep: bool = False
) -> tuple[jax.Array, Kept | None]:
    """Eq 8 and, with momentum, eq 13, chunk by chunk. With P the momentum state and S the sum where a chunk of
    C starts, i = 1..C inside it, ``u(n) = 1 - beta^(n+1)`` and ``c(n) = beta (1 - beta^n)``::

        num_i = phi(q_i)^T (S + c(i) P) + sum_{j<=i} u(i-j) (phi(q_i) . phi(k_j)) v_j
        den_i = phi(q_i)^T z + sum_{j<=i} phi(q_i) . phi(k_j) + eps
        o_i = gamma / (1 - beta) num_i / den_i
        S <- S + c(C) P + sum_j u(C-j) phi(k_j) v_j^T;  P <- beta^C P + sum_j beta^(C-j) phi(k_j) v_j^T

    Linear attention is the same with u = 1 and no P, and pays for neither.

    Tiling: one program a block of value_dim, (batch, head) and segment, over chunks of `rows` positions; S and
    P, transposed, [block, head_dim], z in groups [groups, head_dim] and u(i-j) [rows, rows] stay in float32
    registers.
    Traffic: q, k, v and o once, n (2 head_dim blocks + 2 value_dim) itemsize bytes a (batch, head); in
    segments the state before each, 4 head_dim value_dim bytes (with momentum twice that); `keep`, 4 n bytes.

    Args:
        plan: of the case.
        q, k: [pairs, seq_len, padded head_dim].
        v: [pairs, seq_len, padded value_dim].
        keep: whether to store what the backward wants.

    Returns:
        ``o`` [pairs, seq_len, padded value_dim], and what was kept.
    """
    spec, tiles, numbers, n = plan.case.spec, plan.tiles, plan.numbers, plan.case.seq_len
    rows, momentum, segmented = tiles.rows, plan.momentum, plan.segments > 1
    beta = spec.beta

    def scan(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        first = pl.program_id(2) * plan.segment
        S = jnp.zeros((tiles.value_dim, tiles.head_dim), jnp.float32)
        Z = jnp.zeros((tiles.groups, tiles.head_dim), jnp.float32)
        P = S if momentum else None
        if segmented:
            S, Z = x["s"][...], first_row(x["z"][...], tiles.groups)
            P = x["p"][...] if momentum else None
        i = lax.broadcasted_iota(jnp.int32, (rows, rows), 0)
        j = lax.broadcasted_iota(jnp.int32, (rows, rows), 1)
        weights = {name: x[name][...] for name in ("lag", "u", "b", "carry") if name in x}

        def chunk(index: Any, before: Any) -> Any:
            S, P, Z = before
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
                scores *= weights["lag"]
            values = tile.load(x["v"])
            num += numbers.product(numbers.operand(scores), numbers.operand(values))
            tile.store(out["o"], num * (plan.gain / total)[:, None])
            if keep:
                tile.store(out["den"], total, only=None if tiles.blocks == 1 else pl.program_id(0) == 0)
            if P is None:
                return S + numbers.product(numbers.operand(values), phi_k, "aTb"), None, Z
            weighted = numbers.operand(values * weights["u"][:, None])
            S = S + float(tables.carry(beta, rows)) * P + numbers.product(weighted, phi_k, "aTb")
            weighted = numbers.operand(values * weights["b"][:, None])
            P = float(tables.keep(beta, rows)) * P + numbers.product(weighted, phi_k, "aTb")
            return S, P, Z

        stop: Any = plan.segment // rows
        if n % plan.segment:
            stop = lax.min(jnp.int32(stop), lax.div(n - first + rows - 1, jnp.int32(rows)))
        lax.fori_loop(0, stop, chunk, (S, P, Z))

    before: dict[str, jax.Array] = {}
    inputs = {"q": whole(q), "k": whole(k), "v": shared(v, tiles.value_dim)}
    if segmented:
        inputs |= {
            name: states(x, *((tiles.value_dim, 2) if name != "z" else (tiles.head_dim, 9)))
            for name, x in before.items()
        }
    outputs = {"o": shared(jax.ShapeDtypeStruct(v.shape, v.dtype), tiles.value_dim)}
    if keep:
        outputs["den"] = whole(jax.ShapeDtypeStruct(v.shape[:2], jnp.float32))
    results = launch(
        scan,
        (tiles.blocks, plan.pairs, plan.segments),
        inputs | chunk_tables(plan, tiles),
        outputs,
        tiles,
        compiled=numbers.compiled,
    )
    return results["o"], Kept(results["den"], before) if keep else None
