"""The backward of softmax attention: two kernels.

With ``p_ij = exp2(factor q_i . k_j - lse_i)`` recomputed from what the forward kept, 0 where i may not see j,
and ``delta_i = do_i . o_i``::

    ds_ij = p_ij (do_i . v_j - delta_i)
    dq_i = scale sum_j ds_ij k_j;  dk_j = scale sum_i ds_ij q_i;  dv_j = sum_i p_ij do_i
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .launch import Tile, launch, whole
from .plan import Plan
from .softmax import block_of_queries, factor
from .states import States
from .tiles import softmax_gradient_tiles

__all__ = ["gradients"]


def gradients(
    plan: Plan,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    o: jax.Array,
    lse: jax.Array,
    before: States,
    do: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """dq, dk and dv, shaped as q, k [pairs, seq_len, head_dim] and v [pairs, seq_len, value_dim], of what the
    forward took and kept and of do, shaped as v. Softmax has no states `before`."""
    arrays = {"q": q, "k": k, "v": v, "o": o, "do": do, "lse": lse}
    dq, delta = _query_gradients(plan, arrays)
    del arrays["o"]
    return dq, *_key_value_gradients(plan, arrays | {"delta": delta})


def _query_gradients(plan: Plan, arrays: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Computes delta and dq.

    Tiling: one program takes `rows` queries of one (batch, head) over blocks of `keys` keys; dq [rows,
    head_dim] stays in float32 registers. When causal, blocks above the diagonal are skipped, and only those
    on it are masked.
    Traffic: q, o, do and dq once, k and v once a block of queries, most of it from the L2; 8 bytes a query.
    """
    numbers, n = plan.numbers, plan.case.seq_len
    tiles = softmax_gradient_tiles(plan.case, by_keys=False)
    rows, keys = tiles.rows, tiles.keys

    def softmax_query_gradients(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        first = block_of_queries(plan, rows)
        mine = Tile(first, rows, None if n % rows == 0 else n)
        queries, pull, logs = mine.load(x["q"]), mine.load(x["do"]), mine.load(x["lse"])
        own = jnp.sum(mine.load(x["o"]).astype(jnp.float32) * pull.astype(jnp.float32), 1)  # [rows]
        mine.store(out["delta"], own)

        def block(index: Any, grad: Any, *, diagonal: bool) -> Any:
            within = n % keys == 0 or (plan.causal and not diagonal)
            tile = Tile(index * keys, keys, None if within else n)
            k = tile.load(x["k"])
            scores = numbers.half_product(queries, k, "abT") * factor(plan) - logs[:, None]  # [rows, keys]
            if diagonal:  # past the end are keys that no query sees
                scores = jnp.where(mine.rows[:, None] >= tile.rows[None, :], scores, -jnp.inf)
            elif tile.real is not None:
                scores = jnp.where(tile.real[None, :], scores, -jnp.inf)
            p = numbers.exp2(scores)
            ds = p * (numbers.half_product(pull, tile.load(x["v"]), "abT") - own[:, None])
            return grad + numbers.half_product(ds.astype(k.dtype), k)

        free: Any = -(-n // keys)  # so many blocks every query sees
        stop: Any = free
        if plan.causal:
            free = lax.div(first, jnp.int32(keys))
            stop = lax.min(jnp.int32(stop), lax.div(first + rows + keys - 1, jnp.int32(keys)))
        grad = jnp.zeros((rows, tiles.head_dim), jnp.float32)
        grad = lax.fori_loop(0, free, functools.partial(block, diagonal=False), grad)
        if plan.causal:
            grad = lax.fori_loop(free, stop, functools.partial(block, diagonal=True), grad)
        mine.store(out["dq"], grad * plan.case.softmax_scale)

    q, lse = arrays["q"], arrays["lse"]
    found = launch(
        softmax_query_gradients,
        (1, plan.pairs, -(-n // rows)),
        {name: whole(x) for name, x in arrays.items()},
        {
            "dq": whole(jax.ShapeDtypeStruct(q.shape, q.dtype)),
            "delta": whole(jax.ShapeDtypeStruct(lse.shape, lse.dtype)),
        },
        tiles,
        compiled=numbers.compiled,
    )
    return found["dq"], found["delta"]


def _key_value_gradients(plan: Plan, arrays: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Computes dk and dv.

    Tiling: one program takes `keys` keys of one (batch, head) over blocks of `rows` queries, those that may
    see a key of its own; dk [keys, head_dim] and dv [keys, value_dim] stay in float32 registers. Scores have
    a row a key, so that they are multiplied from registers. When causal, only the blocks on the diagonal are
    masked.
    Traffic: k, v, dk and dv once, q and do once a block of keys, most of it from the L2; 8 bytes a query and
    block.
    """
    numbers, n = plan.numbers, plan.case.seq_len
    tiles = softmax_gradient_tiles(plan.case, by_keys=True)
    rows, keys = tiles.rows, tiles.keys

    def softmax_key_value_gradients(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        first = pl.program_id(2) * keys
        mine = Tile(first, keys, None if n % keys == 0 else n)
        k, v = mine.load(x["k"]), mine.load(x["v"])

        def block(index: Any, grads: Any, *, diagonal: bool) -> Any:
            dk, dv = grads
            tile = Tile(index * rows, rows, None if n % rows == 0 else n)
            queries, pull = tile.load(x["q"]), tile.load(x["do"])
            logs = tile.load(x["lse"], other=jnp.inf)  # what is no query has no weight
            scores = numbers.half_product(k, queries, "abT") * factor(plan) - logs[None, :]  # [keys, rows]
            if diagonal:
                scores = jnp.where(tile.rows[None, :] >= mine.rows[:, None], scores, -jnp.inf)
            p = numbers.exp2(scores)
            dv += numbers.half_product(p.astype(pull.dtype), pull)
            ds = p * (numbers.half_product(v, pull, "abT") - tile.load(x["delta"])[None, :])
            return dk + numbers.half_product(ds.astype(queries.dtype), queries), dv

        grads: Any = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
        stop = -(-n // rows)
        free: Any = 0  # from there on every query sees every key
        if plan.causal:
            free = lax.min(jnp.int32(stop), lax.div(first + keys + rows - 1, jnp.int32(rows)))
            start = lax.div(first, jnp.int32(rows))
            grads = lax.fori_loop(start, free, functools.partial(block, diagonal=True), grads)
        dk, dv = lax.fori_loop(free, stop, functools.partial(block, diagonal=False), grads)
        mine.store(out["dk"], dk * plan.case.softmax_scale)
        mine.store(out["dv"], dv)

    k, v = (jax.ShapeDtypeStruct(arrays[name].shape, arrays[name].dtype) for name in "kv")
    found = launch(
        softmax_key_value_gradients,
        (1, plan.pairs, -(-n // keys)),
        {name: whole(x) for name, x in arrays.items()},
        {"dk": whole(k), "dv": whole(v)},
        tiles,
        compiled=numbers.compiled,
    )
    return found["dk"], found["dv"]
