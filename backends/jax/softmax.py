"""Softmax attention (eq 1): parallel, chunked with an online softmax, and jax.nn's own two.

The last two take and return [batch, seq_len, heads, head_dim], jax.nn's layout; the others [batch, heads,
seq_len, head_dim].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from mtbench.spec import Case

from .arithmetic import join, product, recomputed, split

__all__ = ["block_size", "chunked", "cudnn", "parallel", "xla"]

LOWEST = -3e38
"""A maximum so far that every score beats. Not -inf: the difference of two of those is NaN."""


def parallel(q: jax.Array, k: jax.Array, v: jax.Array, case: Case) -> jax.Array:
    """Eq 1 as it is written: scores [N, N] in float32, q, k, v [batch, heads, seq_len, dim]."""
    scores = product("bhid,bhjd->bhij", q, k, case) * case.softmax_scale
    if case.spec.causal:
        i = jnp.arange(q.shape[2])
        scores = jnp.where(i[:, None] >= i[None, :], scores, -jnp.inf)
    # A constant to autodiff: the softmax does not depend on what is taken off every score.
    highest = lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
    weights = jnp.exp(scores - highest)
    # Divided afterwards: a row of many small weights would lose its digits in float16.
    o = product("bhij,bhje->bhie", weights, v, case) / jnp.sum(weights, -1, keepdims=True)
    return o.astype(case.dtype)


def block_size(case: Case) -> int:
    """Queries, and keys, a block."""
    return min(512 if case.device == "cuda" else 256, case.seq_len)


def chunked(q: jax.Array, k: jax.Array, v: jax.Array, case: Case, size: int | None = None) -> jax.Array:
    """Eq 1 by blocks of C queries against blocks of C keys, with a running maximum and sum (online softmax).

    Causal, the blocks wholly in the future are skipped. Memory O(N d + C^2), the backward's too: by
    `recomputed`, twice, autodiff keeps no scores but computes a block of them again when it gets there,
    which also turned out faster than reading them back.
    """
    n, e = q.shape[2], v.shape[3]
    size = size or block_size(case)
    within = jnp.arange(size)
    q_blocks, k_blocks, v_blocks = (jnp.moveaxis(split(x, size), 2, 0) for x in (q, k, v))
    numbers = jnp.arange(q_blocks.shape[0])

    @recomputed
    def one_block(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        i, q_i = block

        @recomputed
        def see(so_far: Running, keys: Keys) -> Running:
            (o, highest, total), (j, k_j, v_j) = so_far, keys
            scores = product("bhid,bhjd->bhij", q_i, k_j, case) * case.softmax_scale
            row, column = i * size + within[:, None], j * size + within[None, :]
            scores = jnp.where(row >= column if case.spec.causal else column < n, scores, -jnp.inf)
            higher = jnp.maximum(highest, lax.stop_gradient(jnp.max(scores, -1)))
            weights = jnp.exp(scores - higher[..., None])
            shrink = jnp.exp(highest - higher)
            o = o * shrink[..., None] + product("bhij,bhje->bhie", weights, v_j, case)
            return o, higher, total * shrink + jnp.sum(weights, -1)

        def step(so_far: Running, keys: Keys) -> tuple[Running, None]:
            if not case.spec.causal:
                return see(so_far, keys), None
            return lax.cond(keys[0] <= i, see, lambda so_far, keys: so_far, so_far, keys), None

        rows = q_i.shape[:3]
        start = (
            jnp.zeros((*rows, e), jnp.float32),
            jnp.full(rows, LOWEST, jnp.float32),
            jnp.zeros(rows, jnp.float32),
        )
        (o, _, total), _ = lax.scan(step, start, (numbers, k_blocks, v_blocks))
        return (o / total[..., None]).astype(case.dtype)

    return join(jnp.moveaxis(lax.map(one_block, (numbers, q_blocks)), 0, 2), n)


Running = tuple[jax.Array, jax.Array, jax.Array]
Keys = tuple[jax.Array, jax.Array, jax.Array]


def xla(q: jax.Array, k: jax.Array, v: jax.Array, case: Case) -> jax.Array:
    """jax.nn.dot_product_attention as XLA compiles it; q, k, v [batch, seq_len, heads, head_dim]."""
    # It takes no precision of its own, and float32 would be TF32 on a GPU.
    with jax.default_matmul_precision("highest"):
        return jax.nn.dot_product_attention(
            q, k, v, scale=case.softmax_scale, is_causal=case.spec.causal, implementation="xla"
        )


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array, case: Case) -> jax.Array:
    """jax.nn.dot_product_attention by cuDNN's fused kernel; q, k, v [batch, seq_len, heads, head_dim]."""
    return jax.nn.dot_product_attention(
        q, k, v, scale=case.softmax_scale, is_causal=case.spec.causal, implementation="cudnn"
    )
