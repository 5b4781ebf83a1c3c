"""The attentions from their closed forms, in float64: eq 1, eq 13 and eq 14.

Row i costs O(i d), whatever the other rows are, so a sample of rows can be judged at any length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtbench.inputs import Array, Inputs
from mtbench.oracle.rows import Rows
from mtbench.spec import AttentionSpec, Case

__all__ = ["attention", "momentum_weight", "phi", "row_weights", "rows_of_pair", "visible"]

Float64 = NDArray[np.float64]

BLOCK = 1 << 23
"""Scores held at once, so that whole outputs of long sequences need no N x N array."""


def attention(case: Case, inputs: Inputs, rows: Rows | None = None) -> Float64:
    """The chosen rows of the output, one under the other as `Rows.take` gives them: [rows, value_dim].

    Without `rows` it is the whole output, [batch, heads, seq_len, value_dim].
    """
    chosen = Rows.all(case) if rows is None else rows
    parts = []
    for b, h, positions in chosen:
        q, k, v = rows_of_pair(case, inputs, b, h, positions)
        step = max(1, BLOCK // len(k))
        parts += [
            _outputs(case, q[at : at + step], k, v, positions[at : at + step])
            for at in range(0, len(positions), step)
        ]
    flat = np.concatenate(parts)
    if rows is not None:
        return flat
    return flat.reshape(case.batch, case.heads, case.seq_len, case.value_dim)


def rows_of_pair(
    case: Case, inputs: Inputs, b: int, h: int, positions: NDArray[np.intp]
) -> tuple[Float64, Float64, Float64]:
    """The chosen rows of q [rows, head_dim] and the real keys and values of one pair, in float64."""
    g, length = h // (case.heads // case.kv_heads), case.key_lengths[b]

    def wide(array: Array) -> Float64:
        return array.astype(np.float64)

    return wide(inputs.q[b, h][positions]), wide(inputs.k[b, g, :length]), wide(inputs.v[b, g, :length])


def _outputs(case: Case, q: Float64, k: Float64, v: Float64, positions: NDArray[np.intp]) -> Float64:
    spec = case.spec
    sees = visible(spec, positions, len(k))
    if spec.kind == "softmax":
        scores = np.where(sees, case.softmax_scale * (q @ k.T), -np.inf)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        return p @ v / p.sum(axis=1, keepdims=True)
    scores = np.where(sees, phi(q) @ phi(k).T, 0.0)
    normaliser = scores.sum(axis=1, keepdims=True) + spec.eps
    return (scores * row_weights(spec, positions, len(k))) @ v / normaliser


def visible(spec: AttentionSpec, positions: NDArray[np.intp], keys: int) -> NDArray[np.bool_]:
    """[rows, keys]: which keys a row sees."""
    if spec.causal:
        return positions[:, None] >= np.arange(keys)[None, :]
    return np.ones((len(positions), keys), bool)


def row_weights(spec: AttentionSpec, positions: NDArray[np.intp], keys: int) -> Float64:
    """[rows, keys]: the weight of each key at each row, by distance (eq 13) or, when not causal, by the
    key's distance from the last one (eq 14). Where a row does not see a key it is of no meaning."""
    if spec.kind == "linear":
        return np.ones((len(positions), keys))
    j = np.arange(keys)[None, :]
    distance = positions[:, None] - j if spec.causal else keys - 1 - j
    return momentum_weight(spec, np.maximum(distance, 0))


def momentum_weight(spec: AttentionSpec, distance: NDArray[np.integer]) -> Float64:
    """``w(n) = gamma (1 - beta^(n+1)) / (1 - beta)`` (eq 13).

    By expm1: written as it stands it would lose its digits as beta nears 1.

    >>> momentum_weight(AttentionSpec(beta=0.5), np.arange(3)).tolist()
    [1.0, 1.5, 1.75]
    """
    if spec.beta == 0:
        return np.full(distance.shape, spec.gamma)
    return -spec.gamma * np.expm1((distance + 1) * np.log(spec.beta)) / (1 - spec.beta)


def phi(x: Float64) -> Float64:
    """elu(x) + 1: the identity plus one above 0, the exponential below."""
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
