"""What one device of the mesh does of its part of the sequence, [batch, heads, n, dim]. JAX differentiates
it: the transpose of a gather is a sum over devices, and of a pass around the ring one the other way."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtbench.spec import Case

from ..jax.arithmetic import exact, feature, finish, product, recomputed, rounded
from ..jax.chunked import State, walked
from ..jax.schedules import Schedule, schedule
from ..jax.weights import decay, growth, output_factor, weight

__all__ = ["AXIS", "spread"]

AXIS = "sequence"
"""Of the mesh."""
LOWEST = -3e38
"""A maximum so far that every score beats."""
Function = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def spread(case: Case) -> Function:
    """The function of one device, for a case over `case.world_size` of them."""
    if case.spec.kind == "softmax":
        return functools.partial(_ring, case)
    return functools.partial(_causal if case.spec.causal else _full, case)


def _part(case: Case) -> tuple[Case, Schedule]:
    """One device's own case, and chunks that divide it."""
    own = case.replace(seq_len=case.seq_len // case.world_size, world_size=1)
    wanted = schedule(own)
    chunk = _divisor(own.seq_len, wanted.chunk)
    return own, Schedule(chunk, _divisor(own.seq_len // chunk, wanted.chunks), wanted.weights)


def _divisor(number: int, most: int) -> int:
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)


def _causal(case: Case, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The state of this part first, those of all gathered, then the output from what they leave here."""
    own, chosen = _part(case)
    b, h, _, d = k.shape
    states = 2 if case.spec.beta else 1
    nothing = State(jnp.zeros((b, h, states, v.shape[3], d), jnp.float32), jnp.zeros((b, h, d), jnp.float32))
    # XLA leaves out the output, which nobody looks at here.
    mine, _ = walked(nothing, k, k, v, own, chosen)
    before = _before(case, own.seq_len, chosen.chunk, lax.all_gather(mine, AXIS))
    return walked(before, q, k, v, own, chosen)[1]


def _before(case: Case, length: int, chunk: int, every: State) -> State:
    """What all earlier parts leave at this one's start: ``S = sum_r S_r + c(n_r) P_r`` and ``P = sum_r
    beta^(n_r) P_r``, n_r positions from the end of part r to here."""
    me, ranks, beta = lax.axis_index(AXIS), case.world_size, case.spec.beta
    gaps = np.maximum(np.arange(ranks)[:, None] - 1 - np.arange(ranks)[None, :], 0) * length
    earlier = jnp.arange(ranks) < me

    def of_earlier(x: jax.Array) -> jax.Array:
        # Chosen, not multiplied by 0: what a later part holds may be NaN.
        return jnp.where(earlier.reshape(-1, *(1,) * (x.ndim - 1)), x, 0.0)

    kv, z = of_earlier(every.kv), of_earlier(every.z)
    ones = np.ones(gaps.shape)
    over = np.array([[ones]])
    if beta:
        over = np.array([[ones, beta * weight(beta, gaps, chunk)], [0 * ones, decay(beta, gaps)]])
    table = jnp.asarray(np.moveaxis(over, 2, 0), jnp.float32)[me]  # [m, m, ranks]
    return State(exact("mnr,rbhned->bhmed", table, kv), jnp.sum(z, 0))


def _full(case: Case, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Eq 14: a sum over all devices of states that are weighted to the end of the whole sequence."""
    n, beta, length = case.seq_len, case.spec.beta, k.shape[2]
    phi_k, phi_q = feature(k), rounded(feature(q), case)
    left = n - lax.axis_index(AXIS) * length - jnp.arange(length)
    weights = jnp.ones(length, jnp.float32)
    if beta:
        weights = -jnp.expm1(left.astype(jnp.float32) * np.log(beta)) / growth(beta, n)
    own = State(
        product("bhje,bhjd->bhed", v, phi_k * weights[:, None].astype(jnp.float32), case),
        jnp.sum(rounded(phi_k, case), 2),
    )
    of_all = lax.psum(own, AXIS)
    den = exact("bhid,bhd->bhi", phi_q, of_all.z) + case.spec.eps
    num = exact("bhid,bhed->bhie", phi_q, of_all.kv)
    return finish(num, den, output_factor(beta, case.spec.gamma, n), case)


def _ring(case: Case, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Softmax, online (eq 1): keys and values go from device to device. Parts are in order, so that with a
    causal mask the last device has the most to do."""
    ranks, me, length = case.world_size, lax.axis_index(AXIS), q.shape[2]
    size = _divisor(length, 512 if case.device == "cuda" else 256)
    onward = [(rank, (rank + 1) % ranks) for rank in range(ranks)]
    blocks = jnp.moveaxis(q.reshape(*q.shape[:2], -1, size, q.shape[3]), 2, 0)
    rows = jnp.arange(length).reshape(-1, size)

    @recomputed
    def meet(
        so_far: tuple[jax.Array, ...],
        q_i: jax.Array,
        row: jax.Array,
        k: jax.Array,
        v: jax.Array,
        ahead: jax.Array,
    ) -> tuple[jax.Array, ...]:
        o, highest, total = so_far
        scores = product("bhid,bhjd->bhij", q_i, k, case) * case.softmax_scale
        if case.spec.causal:
            seen = row[:, None] + ahead * length >= jnp.arange(length)[None, :]
            scores = jnp.where(seen, scores, -jnp.inf)
        higher = jnp.maximum(highest, lax.stop_gradient(jnp.max(scores, -1)))
        weights, shrink = jnp.exp(scores - higher[..., None]), jnp.exp(highest - higher)
        o = o * shrink[..., None] + product("bhij,bhje->bhie", weights, v, case)
        return o, higher, total * shrink + jnp.sum(weights, -1)

    lead = (*blocks.shape[:3], size)
    state: tuple[jax.Array, ...] = (
        jnp.zeros((*lead, v.shape[3]), jnp.float32),
        jnp.full(lead, LOWEST, jnp.float32),
        jnp.zeros(lead, jnp.float32),
    )

    def over(
        k: jax.Array, v: jax.Array, ahead: jax.Array, state: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, ...]:
        def one(block: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            o, highest, total, q_i, row = block
            met: tuple[jax.Array, ...] = meet((o, highest, total), q_i, row, k, v, ahead)
            return met

        o, highest, total = lax.map(one, (*state, blocks, rows))
        return o, highest, total

    for step in range(ranks):
        ahead = me - (me - step) % ranks  # parts that the queries are ahead of these keys
        seen = functools.partial(over, k, v, ahead)
        if step < ranks - 1:  # under way while the scores are made
            k, v = (lax.ppermute(x, AXIS, onward) for x in (k, v))
        hidden = case.spec.causal and step
        state = lax.cond(ahead >= 0, seen, lambda state: state, state) if hidden else seen(state)
    o, _, total = state
    o = (o / total[..., None]).astype(case.dtype)
    return jnp.moveaxis(o, 0, 2).reshape(*q.shape[:3], v.shape[3])
