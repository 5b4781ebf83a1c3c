"""The kernels as one function of q, k and v."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from . import scan
from .plan import Plan

__all__ = ["attention_of"]

Function = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def attention_of(plan: Plan) -> Function:
    """``o(q, k, v)`` of a case: [batch, heads, positions, dim] in and out, in the case's dtype.

    The kernels see one axis of (batch, head) pairs, and dims that are powers of two (`padded`): others are
    padded with zeros and cut again around them, for a copy of each such array.
    """
    case = plan.case
    head_dim, value_dim = plan.dims

    def forward(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        o, *_ = scan.attention(plan, _flat(q, head_dim), _flat(k, head_dim), _flat(v, value_dim))
        return o[..., : case.value_dim].reshape(*q.shape[:3], case.value_dim)

    return forward


def _flat(x: jax.Array, dim: int) -> jax.Array:
    """[batch, heads, positions, dim] to [pairs, positions, padded dim]."""
    x = x.reshape(-1, *x.shape[2:])
    return x if x.shape[2] == dim else jnp.pad(x, ((0, 0), (0, 0), (0, dim - x.shape[2])))
