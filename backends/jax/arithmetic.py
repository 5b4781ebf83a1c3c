"""How the numbers are rounded, in one place: products, the feature map, and blocks of positions.

Matrix products take operands in the case's dtype and accumulate in float32. States, normalisers and running
sums are float32, and so is what multiplies them. The precision is given with every product, because a user's
own process need not have set ``jax_default_matmul_precision``: without it, float32 means TF32 on a GPU.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from mtbench.spec import Case

__all__ = [
    "Weights",
    "apart",
    "exact",
    "feature",
    "filled",
    "finish",
    "from_state",
    "fused",
    "join",
    "key_feature",
    "key_scale",
    "merged",
    "mixed",
    "passed_back",
    "passed_on",
    "product",
    "query_feature",
    "recomputed",
    "repeated",
    "rounded",
    "split",
    "weighted",
]

SMALLEST_SIZE = 2.0**-50
"""Below this phi is nothing beside eps; the square of its inverse still is a float32."""

recomputed = functools.partial(jax.checkpoint, prevent_cse=False)
"""For the body of a scan: autodiff keeps what goes in and computes the rest again when it comes back. Inside
a scan the two computations cannot be merged by the compiler, so nothing need prevent that."""


def product(equation: str, a: jax.Array, b: jax.Array, case: Case) -> jax.Array:
    """An einsum of two operands rounded to the case's dtype, accumulated and returned in float32.

    So are its gradients, unrounded: one may be a term of a sum that nearly cancels. What comes back is
    rounded to bfloat16 before it is multiplied. float16 keeps it in float32: gradients shrink as 1/seq_len,
    below float16's range, and where eps is most of a normaliser they are up to 1/eps times as large as its
    output's, above it.
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    if case.dtype == "float32":
        return exact(equation, a, b)
    return _half_product(equation, case.dtype, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _half_product(equation: str, dtype: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """float32 operands rounded to `dtype`, float32 sums and result.

    Its gradients are written out because autodiff would give an operand's in the operand's own dtype.
    """
    return _half_forward(equation, dtype, a, b)[0]


Operands = tuple[jax.Array, jax.Array]


def _half_forward(equation: str, dtype: str, a: jax.Array, b: jax.Array) -> tuple[jax.Array, Operands]:
    a, b = a.astype(dtype), b.astype(dtype)
    precision = lax.DotAlgorithmPreset.BF16_BF16_F32 if dtype == "bfloat16" else lax.Precision.HIGHEST
    result = jnp.einsum(equation, a, b, precision=precision, preferred_element_type=jnp.float32)
    return result, (a, b)


def _half_backward(equation: str, dtype: str, operands: Operands, cotangent: jax.Array) -> Operands:
    a, b = operands
    inputs, result = equation.split("->")
    left, right = inputs.split(",")

    def multiply(equation: str, other: jax.Array) -> jax.Array:
        if dtype == "bfloat16":
            return _half_forward(equation, dtype, cotangent, other)[0]
        return exact(equation, cotangent, other)

    return multiply(f"{result},{right}->{left}", b), multiply(f"{result},{left}->{right}", a)


_half_product.defvjp(_half_forward, _half_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def merged(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A `product` in bfloat16 whose operands its own kernel rounds: rounded before, what makes them from
    other arrays would be a kernel of its own, which writes them."""
    return jnp.einsum(
        equation, a, b, precision=lax.DotAlgorithmPreset.BF16_BF16_F32, preferred_element_type=jnp.float32
    )


def _merged_forward(equation: str, a: jax.Array, b: jax.Array) -> tuple[jax.Array, Operands]:
    return merged(equation, a, b), (a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))


def _merged_backward(equation: str, operands: Operands, cotangent: jax.Array) -> Operands:
    return _half_backward(equation, "bfloat16", operands, cotangent)


merged.defvjp(_merged_forward, _merged_backward)


def repeated(x: jax.Array, weights: NDArray[Any]) -> jax.Array:
    """Of x [..., C, d], each of the weights [C, m] times it, side by side: [..., C, m d], in float32."""
    times = weights.shape[1]
    x = jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], times, x.shape[-1]))
    # Written out, as XLA merges an array into a product, and not a number a row.
    return x.reshape(*x.shape[:-2], -1) * jnp.asarray(np.repeat(weights, x.shape[-1], 1), jnp.float32)


Weights = Literal["apart", "inside", "rounded"]


def weighted(scores: jax.Array, weights: NDArray[Any], v: jax.Array, case: Case, where: Weights) -> jax.Array:
    """``(scores * weights) v``, float32: scores [..., C, C] by weights [C, C], 0 where a row does not see.

    - apart: as any `product`, rounded before it. On a GPU that is one more array of scores, written and read.
    - inside: for bfloat16. XLA multiplies by a constant, and rounds, in the product's own kernel. It cannot
      choose there, so a score that is not finite reaches rows that do not see it.
    - rounded: inside, and the weights themselves are bfloat16: a kernel reads half as much of them.
    """
    by, v = jnp.asarray(weights, jnp.float32), v.astype(jnp.float32)
    if where == "apart":
        return product("...ij,...je->...ie", scores * by, v, case)
    return _inside("float32" if where == "inside" else "bfloat16", scores, by, v)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _inside(dtype: str, scores: jax.Array, weights: jax.Array, v: jax.Array) -> jax.Array:
    """(scores * weights) v with the weights multiplied in `dtype`, bfloat16 operands and float32 sums."""
    return _inside_forward(dtype, scores, weights, v)[0]


def _inside_forward(
    dtype: str, scores: jax.Array, weights: jax.Array, v: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    v = v.astype(jnp.bfloat16)
    return _by_weights("...ij,...je->...ie", dtype, scores, weights, v), (scores, weights, v)


def _inside_backward(
    dtype: str, operands: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, ...]:
    scores, weights, v = operands
    of_scores = weights * _half_forward("...ie,...je->...ij", "bfloat16", cotangent, v)[0]
    of_v = _by_weights("...ij,...ie->...je", dtype, scores, weights, cotangent.astype(jnp.bfloat16))
    return of_scores, jnp.zeros_like(weights), of_v


_inside.defvjp(_inside_forward, _inside_backward)


def _by_weights(
    equation: str, dtype: str, scores: jax.Array, weights: jax.Array, other: jax.Array
) -> jax.Array:
    left = scores.astype(dtype) * weights.astype(dtype)
    # Rounded here, a float32 operand would be an array of its own: the product's algorithm rounds it.
    return jnp.einsum(
        equation,
        left,
        other.astype(dtype),
        precision=lax.DotAlgorithmPreset.BF16_BF16_F32,
        preferred_element_type=jnp.float32,
    )


def fused(case: Case) -> bool:
    """Whether what one kernel passes on to the next decides the form: in bfloat16 on a GPU."""
    return case.dtype == "bfloat16" and case.device == "cuda"


def exact(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum in float32 throughout: for states, which would lose their long sums in a half dtype."""
    return jnp.einsum(
        equation,
        a.astype(jnp.float32),
        b.astype(jnp.float32),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def from_state(equation: str, phi_q: jax.Array, state: jax.Array, case: Case) -> jax.Array:
    """An einsum of queries and a state, in float32. In bfloat16 the state is rounded to be multiplied, as
    keys and values are; it is not in float16, past whose range it may be."""
    if case.dtype == "float16":
        return exact(equation, phi_q, state)
    return product(equation, phi_q, state, case)


def mixed(equation: str, weights: jax.Array, states: jax.Array, case: Case) -> jax.Array:
    """An einsum of weights and states, in float32. On a GPU it is TF32's where the inputs are bfloat16: three
    bits more than the states have left where they meet a query."""
    if fused(case):
        return jnp.einsum(equation, weights, states, precision=lax.DotAlgorithmPreset.TF32_TF32_F32)
    return exact(equation, weights, states)


def passed_on(x: jax.Array, case: Case) -> jax.Array:
    """What one kernel of a GPU passes on to the next: in bfloat16 where the inputs are. Its gradient is not
    rounded, as that of `rounded`; float16 may have no room for it."""
    return rounded(x, case) if fused(case) else x


def apart(x: jax.Array, case: Case) -> jax.Array:
    """x, `rounded`, which XLA takes for another array than x on a GPU: of two products that share an operand
    it would make one where they are small (below 32 MB), in float32, and write the parts once more."""
    x = x.astype(jnp.float32)
    return _apart(x, case.dtype) if case.device == "cuda" else x


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _apart(x: jax.Array, dtype: str) -> jax.Array:
    return lax.optimization_barrier(x.astype(dtype)).astype(jnp.float32)


@_apart.defjvp
def _pass_on_apart(
    dtype: str, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return _apart(*primals, dtype), tangents[0]


def passed_back(x: jax.Array, case: Case) -> jax.Array:
    """x, whose gradient is what one kernel of a GPU passes on to the next: in bfloat16 where the inputs are.
    For a gradient that no other term of a sum nearly cancels."""
    return _passed_back(x) if fused(case) else x


@jax.custom_vjp
def _passed_back(x: jax.Array) -> jax.Array:
    return x


def _keep_nothing(x: jax.Array) -> tuple[jax.Array, None]:
    return x, None


def _round_back(_: None, cotangent: jax.Array) -> tuple[jax.Array]:
    return (cotangent.astype(jnp.bfloat16).astype(jnp.float32),)


_passed_back.defvjp(_keep_nothing, _round_back)


def rounded(x: jax.Array, case: Case) -> jax.Array:
    """float32 values that the case's dtype can hold: what `product` would multiply.

    Its gradient is not rounded: in float16 it may be out of range.
    """
    return _rounded(x, case.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _rounded(x: jax.Array, dtype: str) -> jax.Array:
    return x.astype(dtype).astype(jnp.float32)


@_rounded.defjvp
def _pass_on(
    dtype: str, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return _rounded(*primals, dtype), tangents[0]


@jax.custom_jvp
def feature(x: jax.Array) -> jax.Array:
    """``phi(x) = elu(x) + 1``, in float32: ``x + 1`` above 0, ``exp(x)`` below.

    Its derivative, ``exp(min(x, 0))``, is given. A choice by `where` would have XLA write down which elements
    are above 0, for every kernel that asks again.
    """
    x = x.astype(jnp.float32)
    return jnp.maximum(x, 0.0) + jnp.exp(jnp.minimum(x, 0.0))


@feature.defjvp
def _slope(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (change,) = primals, tangents
    slope = jnp.exp(jnp.minimum(x.astype(jnp.float32), 0.0))
    return feature(x), slope * change.astype(jnp.float32)


def key_scale(k: jax.Array, case: Case) -> jax.Array:
    """What phi(k) is divided by, [batch, heads, 1, 1] or all 1: in float16, the size of its largest value.

    Numerator and normaliser are linear in phi(q_i) and in all phi(k_j) at once, so neither division changes
    the output once eps is divided too. In float16 it keeps phi inside the dtype's range: a product of large
    ones cannot overflow, and the phi of large negative inputs, below 6e-8 from -17 on, keeps its digits.
    A power of two, it changes no other bit, so that a later key still changes no earlier output.
    """
    if case.dtype != "float16":
        return jnp.ones((1, 1, 1, 1), jnp.float32)
    return _size_of_feature(k, (2, 3))


def key_feature(k: jax.Array, scale: jax.Array) -> jax.Array:
    """phi(k) over its scale, [..., positions, head_dim] in float32."""
    return feature(k) / scale


def query_feature(q: jax.Array, scale: jax.Array, case: Case) -> tuple[jax.Array, jax.Array]:
    """phi(q) [..., positions, head_dim] in float32, and eps to add to the normaliser [..., positions].

    In float16 phi(q_i) is divided by the size of its largest value, as the keys are by `scale`.
    """
    phi = feature(q)
    if case.dtype != "float16":
        return phi, jnp.full(phi.shape[:-1], case.spec.eps, jnp.float32)
    size = _size_of_feature(q, (-1,))
    return phi / size, (case.spec.eps / (size * scale))[..., 0]


def _size_of_feature(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The power of two nearest the largest phi(x): no bits of the mantissa are left."""
    largest = feature(lax.stop_gradient(jnp.max(x, axes, keepdims=True)))
    return lax.reduce_precision(jnp.maximum(largest, SMALLEST_SIZE), exponent_bits=8, mantissa_bits=0)


def finish(num: jax.Array, den: jax.Array, factor: float, case: Case) -> jax.Array:
    """``factor * num / den`` in the case's dtype: num [..., value_dim] and den [...], both float32."""
    return (num / den[..., None] * factor).astype(case.dtype)


def filled(x: jax.Array, size: int) -> jax.Array:
    """[batch, heads, positions, dim], the last position repeated up to a multiple of `size`: unlike 0, that
    is in the range of the rest. No output depends on what was filled in: no gradient goes back through it.

    Not `jnp.pad`, whose gradient passes parts of batch and heads around the devices that share them.
    """
    tail = -x.shape[2] % size
    if not tail:
        return x
    last = lax.stop_gradient(x[:, :, -1:])
    return jnp.concatenate([x, jnp.broadcast_to(last, (*x.shape[:2], tail, x.shape[3]))], 2)


def split(x: jax.Array, size: int) -> jax.Array:
    """[batch, heads, positions, dim] to [batch, heads, blocks, size, dim], `filled`."""
    x = filled(x, size)
    return x.reshape(*x.shape[:2], x.shape[2] // size, size, x.shape[3])


def join(x: jax.Array, positions: int) -> jax.Array:
    """The inverse of `split`: what filled up the last block goes."""
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], x.shape[4])[:, :, :positions]
