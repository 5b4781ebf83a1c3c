"""The gradients of the attentions, in float64, from the closed forms.

With ``den_i = phi(q_i)^T z_i + eps``, ``g_i = do_i / den_i`` and ``delta_i = (do_i . o_i) / den_i``:

- ``dphi(q_i) = sum_j [w_ij (g_i . v_j) - delta_i] phi(k_j)``
- ``dphi(k_j) = sum_i [w_ij (g_i . v_j) - delta_i] phi(q_i)``
- ``dv_j = sum_i w_ij (phi(q_i) . phi(k_j)) g_i``

over the pairs where i sees j, and ``phi'(x)`` is 1 above 0 and exp(x) below. Only rows whose ``do`` is not
zero take part, so with ``do`` zero but on a sample of rows the whole dk and dv need those rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtbench.inputs import Array, Inputs
from mtbench.oracle.closed_form import BLOCK, phi, row_weights, rows_of_pair, visible
from mtbench.oracle.rows import Rows
from mtbench.spec import Case

__all__ = ["Gradients", "gradients"]

Float64 = NDArray[np.float64]
Pair = tuple[Float64, Float64]
"""The two sums whose difference is a gradient."""


@dataclass(frozen=True)
class Gradients:
    """What a loss whose gradient at the output is ``do`` sends back, on the (batch, head) pairs of `rows`."""

    rows: Rows
    dq: Float64
    """[rows, head_dim], at the chosen rows alone, as `Rows.take` gives them."""
    dk: Float64
    """[pairs, kv_len, head_dim], whole."""
    dv: Float64
    """[pairs, kv_len, value_dim], whole."""
    terms: dict[str, float]
    """dq and dk are a difference of two sums; this is the norm of the two, which may be far above the norm
    of the difference (for one position the difference is about 0), and which rounding is a fraction of."""

    def take(self, name: str, array: Array) -> Float64:
        """The part of a backend's dq, dk or dv, [batch, heads, positions, dim], that is here."""
        if name == "dq":
            return self.rows.take(array)
        return np.stack([array[b, h].astype(np.float64) for b, h, _ in self.rows])


def gradients(case: Case, inputs: Inputs, rows: Rows | None = None) -> Gradients:
    """dq, dk and dv for ``inputs.do``, which must be zero outside `rows` (by default: all rows).

    Raises:
        ValueError: there is no ``do``, or the case has grouped heads.
    """
    if inputs.do is None or case.kv_heads != case.heads:
        raise ValueError("gradients need do, and kv_heads equal to heads")
    chosen = Rows.all(case) if rows is None else rows
    dq, dk, dv = [], [], []
    squares = {"dq": 0.0, "dk": 0.0}
    for b, h, positions in chosen:
        q, k, v = rows_of_pair(case, inputs, b, h, positions)
        do = inputs.do[b, h][positions].astype(np.float64)
        dk.append(np.zeros((case.kv_len, case.head_dim)))
        dv.append(np.zeros((case.kv_len, case.value_dim)))
        step = max(1, BLOCK // len(k))
        for at in range(0, len(positions), step):
            part = slice(at, at + step)
            back = _softmax if case.spec.kind == "softmax" else _kernelised
            (dq_a, dq_b), (dk_a, dk_b), dv_part = back(case, q[part], k, v, do[part], positions[part])
            dq.append(dq_a - dq_b)
            dk[-1][: len(k)] += dk_a - dk_b
            dv[-1][: len(k)] += dv_part
            squares["dq"] += float((dq_a**2).sum() + (dq_b**2).sum())
            squares["dk"] += float((dk_a**2).sum() + (dk_b**2).sum())
    terms = {name: square**0.5 for name, square in squares.items()}
    return Gradients(chosen, np.concatenate(dq), np.stack(dk), np.stack(dv), terms)


def _kernelised(
    case: Case, q: Float64, k: Float64, v: Float64, do: Float64, positions: NDArray[np.intp]
) -> tuple[Pair, Pair, Float64]:
    spec = case.spec
    sees = visible(spec, positions, len(k))
    weight = np.where(sees, row_weights(spec, positions, len(k)), 0.0)
    scores = np.where(sees, phi(q) @ phi(k).T, 0.0)
    den = scores.sum(axis=1, keepdims=True) + spec.eps
    o = (scores * weight) @ v / den
    g = do / den
    delta = (g * o).sum(axis=1, keepdims=True)
    pull, push = np.where(sees, weight * (g @ v.T), 0.0), np.where(sees, delta, 0.0)
    slope_q, slope_k = _phi_slope(q), _phi_slope(k)
    return (
        (slope_q * (pull @ phi(k)), slope_q * (push @ phi(k))),
        (slope_k * (pull.T @ phi(q)), slope_k * (push.T @ phi(q))),
        (scores * weight).T @ g,
    )


def _softmax(
    case: Case, q: Float64, k: Float64, v: Float64, do: Float64, positions: NDArray[np.intp]
) -> tuple[Pair, Pair, Float64]:
    scores = np.where(visible(case.spec, positions, len(k)), case.softmax_scale * (q @ k.T), -np.inf)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    pull = case.softmax_scale * p * (do @ v.T)
    push = case.softmax_scale * p * (do * (p @ v)).sum(axis=1, keepdims=True)
    return (pull @ k, push @ k), (pull.T @ q, push.T @ q), p.T @ do


def _phi_slope(x: Float64) -> Float64:
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))
