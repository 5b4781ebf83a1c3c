"""The kernels as one function of q, k and v that JAX can differentiate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from . import full, gradients, scan, softmax, softmax_gradients
from .plan import Plan

__all__ = ["attention_of"]

Function = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def attention_of(plan: Plan) -> Function:
    """``o(q, k, v)`` of a case: q, k [batch, heads, seq_len, head_dim] and v [batch, heads, seq_len,
    value_dim] to [batch, heads, seq_len, value_dim], in the case's dtype.

    Its gradients are kernels too; the backward keeps q, k, v, o, a number a row and the states between
    segments: O(N d) memory. It has no second derivative, nor a forward-mode one.

    The kernels see one axis of (batch, head) pairs, and dims that are powers of two (`padded`): others are
    padded with zeros and cut again around them, for a copy of each such array.
    """
    case = plan.case
    head_dim, value_dim = plan.dims
    kernels = _differentiable(plan)

    def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        o = kernels(_flat(q, head_dim), _flat(k, head_dim), _flat(v, value_dim))
        return o[..., : case.value_dim].reshape(*q.shape[:3], case.value_dim)

    return attention


def _differentiable(plan: Plan) -> Any:
    """``o(q, k, v)`` on the kernels' own arrays."""
    kind = plan.case.spec.kind
    module: Any = softmax if kind == "softmax" else scan if plan.causal else full
    back: Any = softmax_gradients if kind == "softmax" else gradients

    @jax.custom_vjp
    def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
        return module.attention(plan, q, k, v)[0]

    def forward(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
        o, *kept = module.attention(plan, q, k, v, keep=True)
        return o, (q, k, v, o, *kept)

    def backward(kept: Any, do: jax.Array) -> Any:
        return back.gradients(plan, *kept, do)

    attention.defvjp(forward, backward)
    return attention


def _flat(x: jax.Array, dim: int) -> jax.Array:
    """[batch, heads, positions, dim] to [pairs, positions, padded dim]."""
    x = x.reshape(-1, *x.shape[2:])
    return x if x.shape[2] == dim else jnp.pad(x, ((0, 0), (0, 0), (0, dim - x.shape[2])))
