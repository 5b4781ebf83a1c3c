"""The attentions a position at a time, in float64: eq 8, eq 12, and softmax's running form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtbench.inputs import Array, Inputs
from mtbench.spec import AttentionSpec, Case

__all__ = ["attention_by_recurrence"]

Float64 = NDArray[np.float64]


def attention_by_recurrence(case: Case, inputs: Inputs) -> Float64:
    """The whole output, [batch, heads, seq_len, value_dim].

    Linear and momentum hold ``m``, ``s`` and ``z`` of eq 8 and eq 12; softmax (eq 1) keeps for every query
    the largest score so far, the sum of exponentials and the weighted sum of values, and takes in one key
    at a time.
    """
    o = np.empty((case.batch, case.heads, case.seq_len, case.value_dim))
    group = case.heads // case.kv_heads
    for b, length in enumerate(case.key_lengths):
        for h in range(case.heads):
            q, k, v = _pair(inputs.q, b, h), _pair(inputs.k, b, h // group), _pair(inputs.v, b, h // group)
            k, v = k[:length], v[:length]
            if case.spec.kind == "softmax":
                o[b, h] = _softmax(q, k, v, case.softmax_scale, case.spec.causal)
            else:
                o[b, h] = _heavy_ball(q, k, v, case.spec)
    return o


def _pair(array: Array, b: int, h: int) -> Float64:
    return array[b, h].astype(np.float64)


def _heavy_ball(q: Float64, k: Float64, v: Float64, spec: AttentionSpec) -> Float64:
    """Eq 12; with beta 0 and gamma 1 it is eq 8."""
    m = np.zeros((k.shape[1], v.shape[1]))
    s = np.zeros_like(m)
    z = np.zeros(k.shape[1])
    o = np.empty((len(q), v.shape[1]))

    def take_in(j: int) -> None:
        nonlocal m, s, z
        phi = _elu_plus_one(k[j])
        m = spec.beta * m + np.outer(phi, v[j])
        s = s + spec.gamma * m
        z = z + phi

    def rest() -> None:
        # After the last real key nothing is taken in, and the heavy ball still rolls.
        nonlocal m, s
        m = spec.beta * m
        s = s + spec.gamma * m

    def give(i: int) -> None:
        phi = _elu_plus_one(q[i])
        o[i] = phi @ s / (phi @ z + spec.eps)

    if spec.causal:
        for i in range(len(q)):
            if i < len(k):
                take_in(i)
            else:
                rest()
            give(i)
    else:
        for j in range(len(k)):
            take_in(j)
        for i in range(len(q)):
            give(i)
    return o


def _softmax(q: Float64, k: Float64, v: Float64, scale: float, causal: bool) -> Float64:
    top = np.full(len(q), -np.inf)
    total = np.zeros(len(q))
    o = np.zeros((len(q), v.shape[1]))
    for j in range(len(k)):
        sees = np.arange(len(q)) >= j if causal else np.ones(len(q), bool)
        score = scale * (q[sees] @ k[j])
        new_top = np.maximum(top[sees], score)
        shrink, weight = np.exp(top[sees] - new_top), np.exp(score - new_top)
        total[sees] = shrink * total[sees] + weight
        o[sees] = shrink[:, None] * o[sees] + weight[:, None] * v[j]
        top[sees] = new_top
    return o / total[:, None]


def _elu_plus_one(x: Float64) -> Float64:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0))) + 1
