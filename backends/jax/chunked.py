"""Linear and momentum attention in chunks of C positions: O(N C d + N d^2) work, no N x N array.

Inside a chunk positions meet through their scores, C x C; with those before it, through a state of three
sums: S and P [head_dim, value_dim] and z [head_dim], in float32. With i and j counting 1..C inside the chunk
and ``u(n) = (1 - beta^n) / (1 - beta^C)``, the weights in units of ``gamma (1 - beta^C) / (1 - beta)``:

- num_i = phi(q_i)^T (S + beta u(i) P) + sum_{j<=i} u(i-j+1) (phi(q_i) . phi(k_j)) v_j
- S <- S + beta u(C) P + sum_j u(C-j+1) phi(k_j) v_j^T;  P <- beta^C P + sum_j beta^(C-j) phi(k_j) v_j^T

On a CPU one `lax.scan` goes from chunk to chunk and keeps what it works on in cache. On a GPU that is a
string of small kernels, so there every chunk is summed at once, an associative scan over the sums makes the
states, and every chunk is finished at once.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtbench.spec import Case

from .arithmetic import (
    exact,
    finish,
    join,
    key_feature,
    key_scale,
    product,
    query_feature,
    recomputed,
    rounded,
    split,
)
from .weights import decay, growth, output_factor, weight

__all__ = ["Schedule", "chunked", "schedule"]


class Schedule(NamedTuple):
    """How the chunks are gone through."""

    chunk: int
    """C, positions a chunk."""
    batched: bool
    """All chunks at once, instead of one after another."""


def schedule(case: Case) -> Schedule:
    """The schedule of a case, by its device and length."""
    if case.device == "cuda":
        return Schedule(chunk=min(128, case.seq_len), batched=True)
    return Schedule(chunk=min(64, case.seq_len), batched=False)


class State(NamedTuple):
    """What is known of the positions before a chunk, or of those in it."""

    P: jax.Array | None
    """[..., head_dim, value_dim]; None where beta is 0."""
    S: jax.Array
    """[..., head_dim, value_dim]"""
    z: jax.Array
    """[..., head_dim]"""


def chunked(
    q: jax.Array, k: jax.Array, v: jax.Array, case: Case, chosen: Schedule | None = None
) -> jax.Array:
    """q, k [batch, heads, seq_len, head_dim], v [..., value_dim] to [batch, heads, seq_len, value_dim].

    Pure in its arrays: jit, vmap and grad apply. Another schedule than the case's own gives the same numbers.
    """
    chosen = chosen or schedule(case)
    if case.spec.causal:
        return (_batched if chosen.batched else _scanned)(q, k, v, case, chosen.chunk)
    return _full(q, k, v, case, chosen)


def _scanned(q: jax.Array, k: jax.Array, v: jax.Array, case: Case, size: int) -> jax.Array:
    (b, h, n, d), e = k.shape, v.shape[3]
    scale = key_scale(k, case)

    @recomputed
    def step(state: State, chunk: tuple[jax.Array, ...]) -> tuple[State, jax.Array]:
        q_c, k_c, v_c = chunk
        phi_k = key_feature(k_c, scale)
        o = _output(query_feature(q_c, scale, case), phi_k, v_c, state, case)
        return _advance(state, _sums(phi_k, v_c, case), size, case), o

    # What fills up the last chunk is after every query.
    chunks = tuple(jnp.moveaxis(split(x, size), 2, 0) for x in (q, k, v))
    zeros = jnp.zeros((b, h, d, e), jnp.float32)
    start = State(zeros if case.spec.beta else None, zeros, jnp.zeros((b, h, d), jnp.float32))
    _, o = lax.scan(step, start, chunks)
    return join(jnp.moveaxis(o, 0, 2), n)


def _batched(q: jax.Array, k: jax.Array, v: jax.Array, case: Case, size: int) -> jax.Array:
    q_c, k_c, v_c = (split(x, size) for x in (q, k, v))
    scale = key_scale(k, case)[..., None]
    phi_k = key_feature(k_c, scale)
    before = _states_before(_sums(phi_k, v_c, case), size, case)
    return join(_output(query_feature(q_c, scale, case), phi_k, v_c, before, case), q.shape[2])


def _full(q: jax.Array, k: jax.Array, v: jax.Array, case: Case, chosen: Schedule) -> jax.Array:
    """Eq 14: weights by absolute position, so one state serves every query."""
    n, beta, size, scale = k.shape[2], case.spec.beta, chosen.chunk, key_scale(k, case)
    left = np.arange(n, -(-n % size), -1).reshape(-1, size, 1)
    weights = jnp.asarray(weight(beta, np.maximum(left, 0), n), jnp.float32)
    real = jnp.asarray(left > 0, jnp.float32)

    def sums(chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        k_c, v_c, w_c, real_c = chunk
        phi_k = key_feature(k_c, scale[..., None] if chosen.batched else scale)
        S = product("...jd,...je->...de", phi_k * w_c, v_c, case)
        return S, jnp.sum(rounded(phi_k, case) * real_c, -2)

    k_c, v_c = split(k, size), split(v, size)
    if chosen.batched:
        S, z = (jnp.sum(x, 2) for x in sums((k_c, v_c, weights, real)))
    else:
        chunks = (jnp.moveaxis(k_c, 2, 0), jnp.moveaxis(v_c, 2, 0), weights, real)
        zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(sums, jax.tree.map(lambda x: x[0], chunks)))
        (S, z), _ = lax.scan(lambda total, c: (jax.tree.map(jnp.add, total, sums(c)), None), zero, chunks)
    phi_q, eps = query_feature(q, scale, case)
    phi_q = rounded(phi_q, case)
    den = exact("bhid,bhd->bhi", phi_q, z) + eps
    return finish(exact("bhid,bhde->bhie", phi_q, S), den, output_factor(beta, case.spec.gamma, n), case)


def _output(
    query: tuple[jax.Array, jax.Array], phi_k: jax.Array, v: jax.Array, before: State, case: Case
) -> jax.Array:
    """The output of a chunk [..., C, value_dim], from its own positions and the state before it."""
    phi_q, eps = query
    beta, size = case.spec.beta, v.shape[-2]
    i, j = np.indices((size, size))
    scores = product("...id,...jd->...ij", phi_q, phi_k, case)
    # Chosen, not multiplied by a weight of 0: what a row does not see may be NaN.
    scores = jnp.where(jnp.asarray(i >= j), scores, 0.0)
    weights = jnp.asarray(weight(beta, np.maximum(i - j + 1, 0), size), jnp.float32)
    phi_q = rounded(phi_q, case)
    num = product("...ij,...je->...ie", scores * weights, v, case)
    num += exact("...id,...de->...ie", phi_q, before.S)
    if before.P is not None:
        reach = jnp.asarray(beta * weight(beta, i[:, :1] + 1, size), jnp.float32)
        num += reach * exact("...id,...de->...ie", phi_q, before.P)
    den = jnp.sum(scores, -1) + exact("...id,...d->...i", phi_q, before.z) + eps
    return finish(num, den, output_factor(beta, case.spec.gamma, size), case)


def _sums(phi_k: jax.Array, v: jax.Array, case: Case) -> State:
    """A chunk's own P, S and z, as they are at its end."""
    beta, size = case.spec.beta, phi_k.shape[-2]
    left = np.arange(size - 1, -1, -1)[:, None]
    u = jnp.asarray(weight(beta, left + 1, size), jnp.float32)
    S = product("...jd,...je->...de", phi_k * u, v, case)
    P = None
    if beta:
        P = product("...jd,...je->...de", phi_k * jnp.asarray(decay(beta, left), jnp.float32), v, case)
    return State(P, S, jnp.sum(rounded(phi_k, case), -2))


def _advance(before: State, own: State, size: int, case: Case) -> State:
    """The state after a chunk of `size` positions."""
    beta, z = case.spec.beta, before.z + own.z
    if before.P is None or own.P is None:
        return State(None, before.S + own.S, z)
    gone = float(growth(beta, size))
    # Not beta^C * P: float32 has the small 1 - beta^C more exactly, and the error adds up over the chunks.
    return State(before.P + (own.P - gone * before.P), before.S + beta * before.P + own.S, z)


def _states_before(own: State, size: int, case: Case) -> State:
    """Every chunk's state before it, from every chunk's own sums [batch, heads, chunks, ...].

    Two runs of chunks combine associatively, each with the ``gone = 1 - beta^L`` of its length L.
    """
    beta = case.spec.beta
    unit = float(growth(beta, size))

    Run = tuple[State, jax.Array]

    def combine(first: Run, second: Run) -> Run:
        (one, gone1), (two, gone2) = first, second
        z, gone = one.z + two.z, gone1 + (1.0 - gone1) * gone2
        if one.P is None or two.P is None:
            return State(None, one.S + two.S, z), gone
        S = one.S + (beta / unit) * gone2 * one.P + two.S
        return State(one.P + (two.P - gone2 * one.P), S, z), gone

    lengths = jnp.full((1, 1, own.z.shape[2], 1, 1), unit, jnp.float32)
    after, _ = lax.associative_scan(combine, (own, lengths), axis=2)
    return jax.tree.map(lambda x: jnp.concatenate([jnp.zeros_like(x[:, :, :1]), x[:, :, :-1]], 2), after)
