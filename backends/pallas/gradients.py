"""The backward of linear and momentum attention.

With ``g_i = gamma / (1 - beta) do_i / den_i``, ``delta_i = do_i . o_i / den_i`` and u(n) the weight of a key
n positions back (1 without momentum; without a causal mask all sums run over the whole sequence, and u
belongs to the key alone)::

    dphi(q_i) = sum_{j<=i} [u(i-j) (g_i . v_j) - delta_i] phi(k_j)
    dphi(k_j) = sum_{i>=j} [u(i-j) (g_i . v_j) - delta_i] phi(q_i)
    dv_j      = sum_{i>=j}  u(i-j) (phi(q_i) . phi(k_j)) g_i

and phi'(x) = 1 above 0, exp(x) below. The first runs forward in time with the forward's own states, the other
two back in time with ``R = sum_i u phi(q_i) g_i^T`` and ``y = sum_i delta_i phi(q_i)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .launch import Tile, launch, shared, whole
from .plan import Plan
from .scan import WEIGHTS, advanced, chunk_count, chunk_weights, lagged, segment_start
from .states import States, end_weights, gradient_states, state_inputs
from .sums import groups_sum, in_head
from .tiles import Tiles, key_value_tiles, query_tiles

__all__ = ["gradients"]


def gradients(
    plan: Plan,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    o: jax.Array,
    den: jax.Array,
    before: States,
    do: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """dq, dk and dv, shaped as q, k [pairs, seq_len, head_dim] and v [pairs, seq_len, value_dim], of what the
    forward took and kept and of do, shaped as v."""
    arrays = {"q": q, "k": k, "v": v, "o": o, "do": do, "den": den}
    found = _query_gradients(plan, query_tiles(plan.case), arrays, before)
    after = gradient_states(plan, q, do, den, found["delta"])
    arrays = {"q": q, "k": k, "v": v, "do": do, "den": den, "delta": found["delta"]}
    for tiles, keys, values in key_value_tiles(plan.case):
        found |= _key_value_gradients(plan, tiles, arrays, after, keys=keys, values=values)
    return found["dq"], found["dk"], found["dv"]


def _query_gradients(
    plan: Plan, tiles: Tiles, arrays: Mapping[str, jax.Array], before: States
) -> dict[str, jax.Array]:
    """dq, and delta [pairs, seq_len] for what comes after it. With S, P, z where a chunk starts, c(i) as in
    the forward::

        dphi(q_i) = (S + c(i) P) g_i - delta_i z + sum_{j<=i} [u(i-j) (g_i . v_j) - delta_i] phi(k_j)

    Not causal, only the first two terms are left, with the S and z of the whole sequence.

    Tiling: one program a block of head_dim, (batch, head) and segment, over chunks of `rows` positions; S and
    P, transposed, [value_dim, block], z in groups [groups, block] and u(i-j) [rows, rows] stay in float32
    registers. Every program has all columns of v and do, since g_i . v_j runs over them.
    Traffic: q, k and dq once, v, o and do once a block: n (3 head_dim + 3 value_dim blocks) itemsize bytes a
    (batch, head), not causal n (2 head_dim + 2 value_dim blocks); den and delta, 8 n bytes.
    """
    numbers, n, rows, causal = plan.numbers, plan.case.seq_len, tiles.rows, plan.causal

    def query_gradients(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        first = pl.program_id(2) * plan.segment
        owner = None if tiles.blocks == 1 else pl.program_id(0) == 0  # of what the blocks share
        start = segment_start(plan, tiles, x)
        i = lax.broadcasted_iota(jnp.int32, (rows, rows), 0)
        j = lax.broadcasted_iota(jnp.int32, (rows, rows), 1)
        weights = {name: x[name][...] for name in WEIGHTS if name in x}

        def chunk(index: Any, state: Any) -> Any:
            S, P, Z = state
            tile = Tile(first + index * rows, rows, None if n % rows == 0 else n)
            pull = tile.load(x["do"]).astype(jnp.float32)  # [rows, value_dim]
            share = 1.0 / tile.load(x["den"], other=1.0)  # [rows]
            own = jnp.sum(pull * tile.load(x["o"]).astype(jnp.float32), 1) * share  # [rows], delta
            tile.store(out["delta"], own, only=owner)
            g = numbers.operand(pull * (plan.gain * share)[:, None])
            grad = jnp.zeros((rows, tiles.head_dim), jnp.float32)
            if P is not None:
                grad = numbers.product(g, numbers.operand(P)) * weights["carry"][:, None]
            grad += numbers.product(g, numbers.operand(S))
            # - delta z, with a column of delta for each of the sums that z is in.
            lost = jnp.broadcast_to(-own[:, None], (rows, tiles.groups))
            grad += numbers.product(numbers.operand(lost), numbers.operand(Z))
            if causal:
                values = tile.load(x["v"])
                scores = numbers.product(g, numbers.operand(values), "abT")
                if P is not None:
                    scores = lagged(plan, rows, scores, weights)
                scores = jnp.where(i >= j, scores - own[:, None], 0.0)
                phi_k = numbers.feature(tile.load(x["k"]))  # past the end: seen by no real query
                Z += groups_sum(phi_k, tiles.groups)
                phi_k = numbers.operand(phi_k)
                grad += numbers.product(numbers.operand(scores), phi_k)
                S, P = advanced(plan, rows, S, P, values, phi_k, weights)
            tile.store(out["dq"], grad * numbers.slope(tile.load(x["q"])))
            return S, P, Z

        lax.fori_loop(0, chunk_count(plan, first, rows), chunk, start)

    q, v = arrays["q"], arrays["v"]
    inputs = {
        name: whole(arrays[name]) for name in (("v", "o", "do", "den") if causal else ("o", "do", "den"))
    }
    inputs |= {name: shared(arrays[name], tiles.head_dim) for name in ("qk" if causal else "q")}
    return launch(
        query_gradients,
        (tiles.blocks, plan.pairs, plan.segments),
        inputs | state_inputs(before, tiles.head_dim, 3) | (chunk_weights(plan, rows) if causal else {}),
        {
            "dq": shared(jax.ShapeDtypeStruct(q.shape, q.dtype), tiles.head_dim),
            "delta": whole(jax.ShapeDtypeStruct(v.shape[:2], jnp.float32)),
        },
        tiles,
        compiled=numbers.compiled,
    )


def _key_value_gradients(
    plan: Plan,
    tiles: Tiles,
    arrays: Mapping[str, jax.Array],
    after: States,
    *,
    keys: bool,
    values: bool,
) -> dict[str, jax.Array]:
    """The gradients dk (`keys`), dv (`values`) or both, from the last chunk to the first. With R, its
    momentum Q and y of all queries after a chunk of C, j = 1..C inside it::

        dphi(k_j) = (R + c(C+1-j) Q) v_j - y + sum_{i>=j} [u(i-j) (g_i . v_j) - delta_i] phi(q_i)
        dv_j = (R + c(C+1-j) Q)^T phi(k_j) + sum_{i>=j} u(i-j) (phi(q_i) . phi(k_j)) g_i
        R <- R + c(C) Q + sum_i u(i-1) phi(q_i) g_i^T;  Q <- beta^C Q + sum_i beta^(i-1) phi(q_i) g_i^T

    Where a chunk forgets, R and Q are what S and P are in the forward, back in time. Not causal, the sums
    within the chunk go, R and y are the whole sequence's, and with momentum both R terms
    get the key's own weight u(N-j) (eq 14).

    Tiling: one program a block, (batch, head) and segment, over chunks of `rows` positions; R and Q,
    transposed, [value_dim, head_dim], y in groups [groups, head_dim] and u(i-j) [rows, rows] stay in float32
    registers. Where the states of all columns would not fit, dk and dv have a launch each: dk in blocks of
    head_dim with all of v, dv in blocks of value_dim with all of k.
    Traffic: q, k, v and do once a block, what is asked of dk and dv once; den and delta, 8 n bytes a block.
    """
    numbers, n, rows, causal = plan.numbers, plan.case.seq_len, tiles.rows, plan.causal
    by_head = keys and not values

    def key_value_gradients(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        first = pl.program_id(2) * plan.segment
        R, Q, Y = segment_start(plan, tiles, x)
        chunks = chunk_count(plan, first, rows)
        j = lax.broadcasted_iota(jnp.int32, (rows, rows), 0)
        i = lax.broadcasted_iota(jnp.int32, (rows, rows), 1)
        weights = {name: x[name][...] for name in WEIGHTS if name in x}

        def chunk(index: Any, state: Any) -> Any:
            R, Q, Y = state
            tile = Tile(first + (chunks - 1 - index) * rows, rows, None if n % rows == 0 else n)
            k = tile.load(x["k"])
            # Padding meets zeros in all that phi(k) is multiplied by.
            phi_k = numbers.operand(numbers.feature(k))  # [rows, head_dim]
            v = numbers.operand(tile.load(x["v"]))  # [rows, value_dim]
            grad_k = jnp.zeros((rows, tiles.head_dim), jnp.float32)
            grad_v = jnp.zeros((rows, tiles.value_dim), jnp.float32)
            if Q is not None:
                carry = weights["carry"][:, None]
                if keys:
                    grad_k = numbers.product(v, numbers.operand(Q)) * carry
                if values:
                    grad_v = numbers.product(phi_k, numbers.operand(Q), "abT") * carry
            if keys:
                grad_k += numbers.product(v, numbers.operand(R))
            if values:
                grad_v += numbers.product(phi_k, numbers.operand(R), "abT")
            if plan.momentum and not causal:
                weight = tile.load(x["ends"])[:, None]
                grad_k, grad_v = grad_k * weight, grad_v * weight
            if keys:  # - y, with a column of -1 for each of the sums that it is in
                ones = jnp.full((rows, tiles.groups), -1.0, v.dtype)
                grad_k += numbers.product(ones, numbers.operand(Y))
            if causal:
                phi_q = numbers.feature(tile.load(x["q"]))
                if values:  # which sums over its columns
                    phi_q = in_head(phi_q, plan.case.head_dim)
                scaled = tile.load(x["do"]) * (plan.gain / tile.load(x["den"], other=1.0))[:, None]
                g = numbers.operand(scaled)  # [rows, value_dim]; 0 past the end, as delta is
                own = tile.load(x["delta"])  # [rows]
                fresh = None if Y is None else groups_sum(phi_q * own[:, None], tiles.groups)
                phi_q = numbers.operand(phi_q)
                if keys:
                    scores = numbers.product(v, g, "abT")
                    if Q is not None:
                        scores *= weights["lag"]
                    scores = jnp.where(i >= j, scores - own[None, :], 0.0)
                    grad_k += numbers.product(numbers.operand(scores), phi_q)
                if values:
                    scores = numbers.product(phi_k, phi_q, "abT")
                    # u is 0 where i < j; chosen by a mask beside it, 180 bytes more are spilled.
                    scores = jnp.where(i >= j, scores, 0.0) if Q is None else scores * weights["lag"]
                    grad_v += numbers.product(numbers.operand(scores), g)
                Y = None if Y is None else Y + fresh
                R, Q = advanced(plan, rows, R, Q, scaled, phi_q, weights)
            if keys:
                tile.store(out["dk"], grad_k * numbers.slope(k))
            if values:
                tile.store(out["dv"], grad_v)
            return R, Q, Y

        lax.fori_loop(0, chunks, chunk, (R, Q, Y if keys else None))

    by_value = values and not keys
    inputs = {
        name: (shared(arrays[name], tiles.head_dim) if by_head else whole(arrays[name])) for name in "qk"
    }
    inputs |= {
        name: (shared(arrays[name], tiles.value_dim) if by_value else whole(arrays[name]))
        for name in ("v", "do")
    }
    inputs |= {name: whole(arrays[name]) for name in ("den", "delta")}
    inputs |= state_inputs(after, *((tiles.value_dim, 2) if by_value else (tiles.head_dim, 3)))
    k, v = (jax.ShapeDtypeStruct(arrays[name].shape, arrays[name].dtype) for name in "kv")
    outputs = {"dk": shared(k, tiles.head_dim)} if keys else {}
    if values:
        outputs["dv"] = shared(v, tiles.value_dim)
    return launch(
        key_value_gradients,
        (tiles.blocks, plan.pairs, plan.segments),
        inputs | (chunk_weights(plan, rows, back=True) if causal else end_weights(plan, rows)),
        outputs,
        tiles,
        compiled=numbers.compiled,
    )
