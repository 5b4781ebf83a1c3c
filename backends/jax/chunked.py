"""Linear and momentum attention in chunks of C positions: O(N C d + N d^2) work, no N x N array.

Inside a chunk positions meet through their scores, C x C; with those before it, through a state of three
sums: S and P [head_dim, value_dim] and z [head_dim], in float32. With i and j counting 1..C inside the chunk
and ``u(n) = (1 - beta^n) / (1 - beta^C)``, the weights in units of ``gamma (1 - beta^C) / (1 - beta)``:

- num_i = phi(q_i)^T (S + beta u(i) P) + sum_{j<=i} u(i-j+1) (phi(q_i) . phi(k_j)) v_j
- S <- S + beta u(C) P + sum_j u(C-j+1) phi(k_j) v_j^T;  P <- beta^C P + sum_j beta^(C-j) phi(k_j) v_j^T

S and P lie in one array, m of them: 2, or 1 where beta is 0. So one product makes both, and one reads both.

A `lax.scan` goes from step to step of T chunks, which are computed side by side: a step's intermediates are
meant to stay in cache, which on a CPU holds one chunk of every head, and on a GPU enough of them to be busy.
Each step reads its part of q, k and v where it lies, and writes its part of o into one array. The backward
goes from the last step to the first, from the state that the forward kept for each, and computes the rest of
it again: memory O(N d), a step's own intermediates aside. On a GPU these are bfloat16 where the inputs are,
a chunk's own state among them: what one kernel passes on to the next is most of the time there. States are
held transposed, so that a query meets S and P in one product whose result has both side by side.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from mtbench.spec import Case

from .arithmetic import (
    apart,
    exact,
    filled,
    finish,
    from_state,
    join,
    key_feature,
    key_scale,
    merged,
    mixed,
    passed_back,
    passed_on,
    product,
    query_feature,
    recomputed,
    repeated,
    rounded,
    split,
    weighted,
)
from .schedules import Schedule, schedule
from .weights import Float64, decay, growth, output_factor, weight

__all__ = ["State", "chunked", "walked"]


class State(NamedTuple):
    """What is known of the positions before a chunk, or of those in it."""

    kv: jax.Array
    """S and, where beta is not 0, P, transposed: [..., m, value_dim, head_dim]; where a schedule has them
    inside, they are not: [..., m, head_dim, value_dim]."""
    z: jax.Array
    """[..., head_dim]"""


def chunked(
    q: jax.Array, k: jax.Array, v: jax.Array, case: Case, chosen: Schedule | None = None
) -> jax.Array:
    """q, k [batch, heads, seq_len, head_dim], v [..., value_dim] to [batch, heads, seq_len, value_dim].

    Pure in its arrays: jit, vmap and grad apply. Another schedule than the case's own gives the same numbers.
    """
    chosen = chosen or schedule(case)
    if not case.spec.causal:
        return _full(q, k, v, case, chosen)
    n, length = q.shape[2], chosen.chunk * chosen.chunks
    # What fills up the last step is after every query.
    q, k, v = (filled(x, length) for x in (q, k, v))
    return _causal(q, k, v, case, chosen)[:, :, :n]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _causal(q: jax.Array, k: jax.Array, v: jax.Array, case: Case, chosen: Schedule) -> jax.Array:
    """Causal attention of whole steps."""
    return _walk(q, k, v, case, chosen, keep=False)[0]


Residuals = tuple[jax.Array, jax.Array, jax.Array, "State | None"]


def _walk(
    q: jax.Array, k: jax.Array, v: jax.Array, case: Case, chosen: Schedule, *, keep: bool
) -> tuple[jax.Array, State | None]:
    """The output, and with `keep` the state before every step, [steps, ...]: None for a single one."""
    (b, h, n, d), e = k.shape, v.shape[3]
    length, scale = chosen.chunk * chosen.chunks, key_scale(k, case)
    if n == length:
        return _step(None, q, k, v, scale, case, chosen)[1], None

    def advance(carried: tuple[State, jax.Array], i: jax.Array) -> tuple[Any, State | None]:
        before, o = carried
        q_i, k_i, v_i = (_part(x, i, length) for x in (q, k, v))
        after, o_i = _step(before, q_i, k_i, v_i, scale, case, chosen)
        return (after, _with_part(o, o_i, i, length)), before if keep else None

    states = 2 if case.spec.beta else 1
    sides = (d, e) if chosen.states == "inside" else (e, d)
    start = State(jnp.zeros((b, h, states, *sides), jnp.float32), jnp.zeros((b, h, d), jnp.float32))
    o = jnp.zeros((b, h, n, e), case.dtype)
    (_, o), kept = lax.scan(advance, (start, o), jnp.arange(n // length))
    return o, kept


def _keeping(
    q: jax.Array, k: jax.Array, v: jax.Array, case: Case, chosen: Schedule
) -> tuple[jax.Array, Residuals]:
    o, kept = _walk(q, k, v, case, chosen, keep=True)
    return o, (q, k, v, kept)


def _back(case: Case, chosen: Schedule, residuals: Residuals, do: jax.Array) -> tuple[jax.Array, ...]:
    q, k, v, kept = residuals
    length, scale = chosen.chunk * chosen.chunks, key_scale(k, case)
    step = functools.partial(_step, scale=scale, case=case, chosen=chosen)
    if kept is None:
        _, pull = jax.vjp(lambda *inputs: step(None, *inputs)[1], q, k, v)
        return tuple(pull(do))

    def retreat(carried: tuple[State, Any], at: tuple[jax.Array, State]) -> tuple[Any, None]:
        (after, grads), (i, before) = carried, at
        _, pull = jax.vjp(step, before, *(_part(x, i, length) for x in (q, k, v)))
        state, *own = pull((after, _part(do, i, length)))
        return (state, tuple(_with_part(x, x_i, i, length) for x, x_i in zip(grads, own, strict=True))), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), kept)
    grads = tuple(jnp.zeros_like(x) for x in (q, k, v))
    steps = jnp.arange(q.shape[2] // length)
    (_, grads), _ = lax.scan(retreat, (zeros, grads), (steps, kept), reverse=True)
    return grads


_causal.defvjp(_keeping, _back)


def walked(
    before: State, q: jax.Array, k: jax.Array, v: jax.Array, case: Case, chosen: Schedule
) -> tuple[State, jax.Array]:
    """Causal attention of whole steps that have a state before them: the state after them, and the output
    [batch, heads, seq_len, value_dim]. Its backward computes each step again."""
    length, scale = chosen.chunk * chosen.chunks, key_scale(k, case)
    step = recomputed(functools.partial(_step, scale=scale, case=case, chosen=chosen))

    def advance(state: State, i: jax.Array) -> tuple[State, jax.Array]:
        return step(state, *(_part(x, i, length) for x in (q, k, v)))

    after, parts = lax.scan(advance, before, jnp.arange(k.shape[2] // length))
    return after, jnp.moveaxis(parts, 0, 2).reshape(*q.shape[:3], v.shape[3])


def _part(x: jax.Array, i: jax.Array, length: int) -> jax.Array:
    """The i-th `length` positions."""
    return lax.dynamic_slice_in_dim(x, i * length, length, 2)


def _with_part(x: jax.Array, part: jax.Array, i: jax.Array, length: int) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(x, part, i * length, 2)


def _step(
    before: State | None,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    scale: jax.Array,
    case: Case,
    chosen: Schedule,
) -> tuple[State, jax.Array]:
    """The state after T chunks and their output [batch, heads, T C, value_dim]; `before` None is 0."""
    q_c, k_c, v_c = (split(x, chosen.chunk) for x in (q, k, v))
    scale = scale[..., None]
    phi_k = key_feature(k_c, scale)
    own = _sums(phi_k, v_c, case, chosen)
    each = _states(before, own, case, chosen)
    o = _output(query_feature(q_c, scale, case), phi_k, v_c, each, case, chosen)
    last, own = (State(x.kv[:, :, -1], x.z[:, :, -1]) for x in (each, own))
    return _advanced(last, own, case, chosen.chunk), join(o, q.shape[2])


def _full(q: jax.Array, k: jax.Array, v: jax.Array, case: Case, chosen: Schedule) -> jax.Array:
    """Eq 14: weights by absolute position, so one state serves every query."""
    n, beta, size, scale = k.shape[2], case.spec.beta, chosen.chunk, key_scale(k, case)
    batched = chosen.chunks > 1  # all chunks at once, instead of one after another
    left = np.arange(n, -(-n % size), -1).reshape(-1, size, 1)
    weights = jnp.asarray(weight(beta, np.maximum(left, 0), n), jnp.float32)
    real = jnp.asarray(left > 0, jnp.float32)

    def sums(chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        k_c, v_c, w_c, real_c = chunk
        phi_k = key_feature(k_c, scale[..., None] if batched else scale)
        S = product("...jd,...je->...de", phi_k * w_c, v_c, case)
        return S, jnp.sum(rounded(phi_k, case) * real_c, -2)

    k_c, v_c = split(k, size), split(v, size)
    if batched:
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
    query: tuple[jax.Array, jax.Array],
    phi_k: jax.Array,
    v: jax.Array,
    before: State,
    case: Case,
    chosen: Schedule,
) -> jax.Array:
    """The output of a chunk [..., C, value_dim], from its own positions and the state before it."""
    phi_q, eps = query
    beta, size = case.spec.beta, v.shape[-2]
    i, j = np.indices((size, size))
    scores = passed_on(product("...id,...jd->...ij", phi_q, phi_k, case), case)
    # Chosen, not multiplied by a weight of 0: what a row does not see may be NaN.
    seen = jnp.where(jnp.asarray(i >= j), scores, 0.0)
    weights = weight(beta, np.maximum(i - j + 1, 0), size) * (i >= j)
    inside = chosen.weights != "apart"
    num = weighted(scores if inside else seen, weights, v, case, chosen.weights)
    phi_q = rounded(phi_q, case)
    den = jnp.sum(seen, -1) + exact("...id,...d->...i", phi_q, before.z) + eps
    factor = output_factor(beta, case.spec.gamma, size)
    state = passed_back(before.kv.reshape(*before.kv.shape[:-3], -1, before.kv.shape[-1]), case)
    reach = beta * weight(beta, i[:, :1] + 1, size)
    if chosen.states == "inside":
        reach = np.concatenate([np.ones_like(reach), reach], 1)[:, : before.kv.shape[-3]]
        each = merged("...ix,...xe->...ie", repeated(apart(phi_q, case), reach), rounded(state, case))
        # Each product's kernel divides, and the last one's adds the other's result: where both are bfloat16,
        # and in the product's own shape, without which XLA stops before the division.
        over = lax.optimization_barrier(factor / den).reshape(-1, size, 1)
        own, each = ((x.reshape(-1, *x.shape[-2:]) * over).astype(case.dtype) for x in (num, each))
        return (own + lax.optimization_barrier(each)).reshape(num.shape)
    each = passed_on(from_state("...id,...xd->...ix", apart(phi_q, case), state, case), case)
    if beta:
        from_S, from_P = (each[..., at : at + v.shape[-1]] for at in (0, v.shape[-1]))
        each = from_S + jnp.asarray(reach, jnp.float32) * from_P
    return finish(passed_on(num, case) + each, den, factor, case)


def _sums(phi_k: jax.Array, v: jax.Array, case: Case, chosen: Schedule) -> State:
    """A chunk's own state, as it is at its end."""
    beta, size = case.spec.beta, phi_k.shape[-2]
    left = np.arange(size - 1, -1, -1)[:, None]
    weights = weight(beta, left + 1, size)
    if beta:
        weights = np.concatenate([weights, decay(beta, left)], 1)
    z = jnp.sum(rounded(phi_k, case), -2)
    if chosen.states == "inside":
        kv = merged("...jx,...je->...xe", repeated(apart(phi_k, case), weights), apart(v, case))
        sides = (phi_k.shape[-1], v.shape[-1])
        return State(passed_on(kv, case).reshape(*kv.shape[:-2], weights.shape[1], *sides), z)
    # Each value times each weight is one axis, since XLA writes an operand that has two anew, transposed.
    values = apart(v, case)[..., None, :] * jnp.asarray(weights, jnp.float32)[:, :, None]
    values = passed_back(values.reshape(*v.shape[:-1], -1), case)
    kv = passed_on(product("...jx,...jd->...xd", values, apart(phi_k, case), case), case)
    kv = kv.reshape(*kv.shape[:-2], weights.shape[1], v.shape[-1], phi_k.shape[-1])
    return State(kv, z)


def _advanced(before: State, own: State, case: Case, size: int) -> State:
    """The state after a chunk: S + beta u(C) P and beta^C P of the one before it, and its own."""
    beta = case.spec.beta
    kv = before.kv + own.kv
    if beta:
        P = before.kv[..., 1:, :, :]
        # Not beta^C * P: float32 has the small 1 - beta^C more exactly, and errors add up over chunks.
        change = (beta * weight(beta, size, size), -growth(beta, size))
        kv += jnp.asarray(change, jnp.float32)[:, None, None] * P
    return State(kv, before.z + own.z)


def _states(before: State | None, own: State, case: Case, chosen: Schedule) -> State:
    """Every chunk's state before it, [batch, heads, T, ...], from all chunks' own and the one before all.

    ``S_t = S + c(t C) P + sum_{s<t} (S_s + c((t-1-s) C) P_s)`` and ``P_t = beta^(t C) P + sum_{s<t}
    beta^((t-1-s) C) P_s``, with ``c(n) = beta u(n)``: a product with the weights of T m by T m.
    """
    beta, size, count = case.spec.beta, chosen.chunk, chosen.chunks
    if count == 1 and before is not None:
        return State(before.kv[:, :, None], before.z[:, :, None])
    b, h, _, m, e, d = own.kv.shape
    t = np.arange(count)[:, None]
    gap = t - 1 - t.T
    earlier = gap >= 0

    def carried(positions: NDArray[Any]) -> Float64:
        """[..., m, m]: what each of S and P gets of each, so many positions later."""
        ones = np.ones(positions.shape)
        if not beta:
            return ones[..., None, None]
        over = [[ones, beta * weight(beta, positions, size)], [0 * ones, decay(beta, positions)]]
        return np.moveaxis(np.array(over), (0, 1), (-2, -1))

    # [T, m, T, m]; with a batch and heads of its own the product needs no other layout of the states.
    apart = np.swapaxes(carried(np.maximum(gap, 0) * size) * earlier[..., None, None], 1, 2)
    square = jnp.asarray(apart.reshape(count * m, count * m), jnp.float32)
    weights = jnp.broadcast_to(square, (b, h, *square.shape))
    kv = mixed("bhts,bhsx->bhtx", weights, own.kv.reshape(b, h, count * m, e * d), case)
    kv = kv.reshape(b, h, count, m, e, d)
    z = exact("ts,bhsd->bhtd", jnp.asarray(earlier, jnp.float32), own.z)
    if before is not None:
        over = jnp.asarray(carried(t[:, 0] * size), jnp.float32)
        # Written out: as a product, XLA would write an array of its own before it adds it.
        kv += sum(over[:, :, n, None, None] * before.kv[:, :, None, None, n] for n in range(m))
        z += before.z[:, :, None]
    return State(kv, z)
