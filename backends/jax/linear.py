"""Linear (eq 8) and momentum (eq 12 to 14) attention, parallel and recurrent. Linear is beta = 0, gamma = 1.

Every function here takes q, k [batch, heads, seq_len, head_dim] and v [batch, heads, seq_len, value_dim] in
the case's dtype and returns [batch, heads, seq_len, value_dim] in it. They are pure functions of arrays: jit,
vmap and grad apply.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtbench.spec import Case

from .arithmetic import exact, finish, key_feature, key_scale, product, query_feature, recomputed, rounded
from .weights import output_factor, weight

__all__ = ["TOKENS", "parallel", "recurrent"]

TOKENS = 64
"""The backward of the recurrent form keeps one state in so many tokens, and computes those between again."""

Tokens = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
State = tuple[jax.Array | None, jax.Array, jax.Array]


def parallel(q: jax.Array, k: jax.Array, v: jax.Array, case: Case) -> jax.Array:
    """Eq 13 (causal) or 14 (not): the scores phi(q) phi(k)^T [N, N] times a weight mask, times v."""
    spec, n = case.spec, k.shape[2]
    scale = key_scale(k, case)
    phi_q, eps = query_feature(q, scale, case)
    scores = product("bhid,bhjd->bhij", phi_q, key_feature(k, scale), case)
    if spec.causal:
        distance = jnp.arange(n)[:, None] - jnp.arange(n)[None, :]
        scores = jnp.where(distance >= 0, scores, 0.0)
    den = jnp.sum(scores, -1) + eps
    if spec.beta and spec.causal:
        # A row of N numbers, spread along the diagonals: the N x N mask is never a constant.
        by_distance = jnp.asarray(weight(spec.beta, np.arange(1, n + 1), n), jnp.float32)
        scores *= jnp.take(by_distance, jnp.maximum(distance, 0), mode="clip")
    elif spec.beta:
        scores *= jnp.asarray(weight(spec.beta, np.arange(n, 0, -1), n), jnp.float32)
    num = product("bhij,bhje->bhie", scores, v, case)
    return finish(num, den, output_factor(spec.beta, spec.gamma, n), case)


def recurrent(q: jax.Array, k: jax.Array, v: jax.Array, case: Case) -> jax.Array:
    """Eq 12, one token at a time, with the state P, S [value_dim, head_dim] and z [head_dim] in float32.

    Not causal, the scan leaves the last state, whose S has eq 14's weights, and every query reads that one.
    The steps go by `TOKENS`, `recomputed`: autodiff keeps N / TOKENS states and not N.
    """
    spec, (b, h, n, d), e = case.spec, k.shape, v.shape[3]
    scale = key_scale(k, case)
    phi_q, eps = query_feature(q, scale, case)
    phi_q, phi_k = rounded(phi_q, case), rounded(key_feature(k, scale), case)

    def step(state: State, token: Tokens) -> tuple[State, jax.Array | None]:
        (P, S, z), (q_i, eps_i, k_i, v_i) = state, token
        kv = exact("bhe,bhd->bhed", v_i, k_i)  # not a broadcast product: its gradients sum along rows, slowly
        # Not beta * P: float32 has the small 1 - beta more exactly, and the error adds up over 1/(1 - beta).
        P = kv if P is None else P + (kv - (1.0 - spec.beta) * P)
        S, z = S + P, z + k_i
        state = (P if spec.beta else None, S, z)
        if not spec.causal:
            return state, None
        den = jnp.sum(q_i * z, -1) + eps_i
        return state, finish(exact("bhed,bhd->bhe", S, q_i), den, spec.gamma, case)

    @recomputed
    def steps(state: State, tokens: Tokens) -> tuple[State, jax.Array | None]:
        return lax.scan(step, state, tokens)

    zeros = jnp.zeros((b, h, e, d), jnp.float32)
    state: State = (zeros if spec.beta else None, zeros, jnp.zeros((b, h, d), jnp.float32))
    size = min(TOKENS, n)
    # Tokens of 0 before the first leave the state at 0; after the last, P would go on adding itself to S.
    tokens = tuple(
        _by_token(x, size, fill) for x, fill in ((phi_q, 0), (eps, 1), (phi_k, 0), (v.astype(jnp.float32), 0))
    )
    (_, S, z), o = lax.scan(steps, state, tokens)
    if o is None:
        den = exact("bhid,bhd->bhi", phi_q, z) + eps
        return finish(exact("bhid,bhed->bhie", phi_q, S), den, spec.gamma, case)
    return jnp.moveaxis(o.reshape(-1, b, h, e)[-n:], 0, 2)


def _by_token(x: jax.Array, size: int, fill: float) -> jax.Array:
    """[batch, heads, positions, ...] to [blocks, size, batch, heads, ...], filled up in front."""
    x = jnp.moveaxis(x, 2, 0)
    x = jnp.pad(x, ((-x.shape[0] % size, 0), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
    return x.reshape(-1, size, *x.shape[1:])
