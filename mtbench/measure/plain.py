"""The plain evaluation: what an honest implementation of a form loses in a dtype.

A kernel is not asked to be better than arithmetic allows, nor forgiven for being worse. This evaluates the
same form in NumPy, as a careful but plain kernel would: operands of a matrix product in the case's dtype,
sums in float32, results rounded to the dtype. It runs on the rows the oracle judges, so that it exists at any
length and without a framework.

Everything linear and momentum attention need, forward and backward, is one sum,
``y_i = sum_{j <= i} w(i-j) (a_i . b_j) c_j``, with other arrays in the parts of a, b and c, taken forward or
backward in time. It is evaluated a chunk at a time: a chunk of 1 is the recurrent form, one of seq_len the
parallel form, and anything between the chunked form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mtbench.backend import TF32
from mtbench.inputs import NUMPY_DTYPES, Array, Inputs
from mtbench.oracle import Rows
from mtbench.spec import AttentionSpec, Case

__all__ = ["PlainResult", "plain_evaluation"]

Float32 = NDArray[np.float32]
Round = Callable[[Array], Float32]

CHUNK = 64


@dataclass(frozen=True)
class PlainResult:
    """Shaped as the oracle gives them: o and dq [rows, dim], dk and dv [pairs, kv_len, dim]."""

    o: Float32
    dq: Float32 | None = None
    dk: Float32 | None = None
    dv: Float32 | None = None


@dataclass
class _Parts:
    o: list[Float32] = field(default_factory=list)
    dq: list[Float32] = field(default_factory=list)
    dk: list[Float32] = field(default_factory=list)
    dv: list[Float32] = field(default_factory=list)


def plain_evaluation(case: Case, form: str, inputs: Inputs, rows: Rows) -> PlainResult:
    """Evaluate the chosen rows plainly, and the gradients in mode forward_backward.

    ``inputs.do`` must be zero outside the rows, as for `mtbench.oracle.gradients`.
    """
    dtype = NUMPY_DTYPES[case.dtype]

    def rounded(x: Array) -> Float32:
        held = x.astype(dtype).astype(np.float32)
        return _tf32(held) if form.endswith(TF32) else held

    backward = case.mode == "forward_backward"
    evaluate = _softmax if case.spec.kind == "softmax" else _kernelised
    chunk = {"parallel": case.kv_len, "recurrent": 1}.get(form, CHUNK)
    parts = _Parts()
    for b, h, positions in rows:
        g, length = h // (case.heads // case.kv_heads), case.key_lengths[b]
        arrays = [inputs.q[b, h], inputs.k[b, g, :length], inputs.v[b, g, :length]]
        q, k, v = (x.astype(np.float32) for x in arrays)
        do = inputs.do[b, h].astype(np.float32) if backward and inputs.do is not None else None
        evaluate(parts, case, chunk, q, k, v, do, positions, rounded)
    return PlainResult(
        o=np.concatenate(parts.o),
        dq=np.concatenate(parts.dq) if backward else None,
        dk=np.stack(parts.dk) if backward else None,
        dv=np.stack(parts.dv) if backward else None,
    )


def _tf32(x: Float32) -> Float32:
    """Ten bits of mantissa."""
    return ((x.view(np.int32) + 0x1000) & -0x2000).view(np.float32)


def _kernelised(
    parts: _Parts,
    case: Case,
    chunk: int,
    q: Float32,
    k: Float32,
    v: Float32,
    do: Float32 | None,
    positions: NDArray[np.intp],
    rounded: Round,
) -> None:
    spec, n = case.spec, len(q)
    fq, fk = rounded(_phi(q)), rounded(_phi(k))
    ones = np.ones((len(k), 1), np.float32)
    if spec.causal and len(k) < n:  # padding: keys that add nothing
        pad = ((0, n - len(k)), (0, 0))
        fk, v, ones = np.pad(fk, pad), np.pad(v, pad), np.pad(ones, pad)
    scan = _Sum(spec, len(fk), chunk, rounded)
    den = scan.weightless(fq, fk, ones, positions) + np.float32(spec.eps)
    num = scan.weighted(fq, fk, v, positions)
    parts.o.append(rounded(num / den))
    if do is None:
        return
    o = parts.o[-1]
    g, delta = np.zeros((n, v.shape[1]), np.float32), np.zeros((n, 1), np.float32)
    g[positions] = rounded(do[positions] / den)
    delta[positions] = (do[positions] * o).sum(axis=1, keepdims=True) / den
    dfq = scan.weighted(g, v, fk, positions) - scan.weightless(delta, ones, fk, positions)
    dfk = scan.weighted_back(v, g, fq) - scan.weightless_back(ones, delta, fq)
    dv = scan.weighted_back(fk, fq, g)
    parts.dq.append(rounded(_phi_slope(q[positions]) * dfq))
    parts.dk.append(_padded(rounded(_phi_slope(k) * dfk[: len(k)]), case.kv_len))
    parts.dv.append(_padded(rounded(dv[: len(k)]), case.kv_len))


class _Sum:
    """``sum w (a_i . b_j) c_j`` over the pairs where i sees j, in float32."""

    def __init__(self, spec: AttentionSpec, keys: int, chunk: int, rounded: Round) -> None:
        self.causal, self.chunk, self.rounded = spec.causal, chunk, rounded
        self.beta = spec.beta
        log_beta = np.log(spec.beta) if spec.beta else -np.inf
        steps = np.arange(1, keys + 2) * log_beta
        # 1 - beta^(n+1), which every weight is a multiple of, for n = 0..keys
        self.u = (-np.expm1(steps)).astype(np.float32)
        self.decay = np.concatenate([[1.0], np.exp(steps)]).astype(np.float32)  # beta^n
        self.unit = np.ones(keys + 1, np.float32)
        self.factor = np.float32(spec.gamma / (1 - spec.beta))
        self.full = self.u[:keys][::-1]  # eq 14, by key

    def weighted(self, a: Float32, b: Float32, c: Float32, rows: NDArray[np.intp]) -> Float32:
        if self.causal:
            return self.factor * self._scan(a, b, c, rows, self.u, self.beta)
        return self.factor * self._all(a[rows], b, self.full[:, None] * c)

    def weightless(self, a: Float32, b: Float32, c: Float32, rows: NDArray[np.intp]) -> Float32:
        if self.causal:
            return self._scan(a, b, c, rows, self.unit, 0.0)
        return self._all(a[rows], b, c)

    def weighted_back(self, a: Float32, b: Float32, c: Float32) -> Float32:
        """The sum over the rows that see a key: the same scan, backward in time."""
        if self.causal:
            every = np.arange(len(a))
            return self.factor * self._scan(a[::-1], b[::-1], c[::-1], every, self.u, self.beta)[::-1]
        return self.factor * self.full[:, None] * self._all(a, b, c)

    def weightless_back(self, a: Float32, b: Float32, c: Float32) -> Float32:
        if self.causal:
            every = np.arange(len(a))
            return self._scan(a[::-1], b[::-1], c[::-1], every, self.unit, 0.0)[::-1]
        return self._all(a, b, c)

    def _all(self, a: Float32, b: Float32, c: Float32) -> Float32:
        state: Float32 = np.zeros((b.shape[1], c.shape[1]), np.float32)
        step = max(self.chunk, CHUNK)
        for at in range(0, len(b), step):
            state += b[at : at + step].T @ self.rounded(c[at : at + step])
        result: Float32 = a @ state
        return result

    def _scan(
        self, a: Float32, b: Float32, c: Float32, rows: NDArray[np.intp], w: Float32, beta: float
    ) -> Float32:
        size = min(self.chunk, len(b))
        y = np.empty((len(rows), c.shape[1]), np.float32)
        total = np.zeros((b.shape[1], c.shape[1]), np.float32)
        momentum = np.zeros_like(total)
        carry = np.float32(beta) * (w if beta else np.zeros_like(w))  # c(n) = beta (1 - beta^n), n >= 1
        first = 0
        for at in range(0, len(b), size):
            bc, cc = b[at : at + size], c[at : at + size]
            last = first + int(np.searchsorted(rows[first:], at + len(bc)))
            if last > first:
                i = rows[first:last] - at
                distance = i[:, None] - np.arange(len(bc))[None, :]
                weight = np.where(distance >= 0, w[np.maximum(distance, 0)], np.float32(0))
                ac = a[rows[first:last]]
                y[first:last] = (
                    ac @ total + carry[i][:, None] * (ac @ momentum) + self.rounded(weight * (ac @ bc.T)) @ cc
                )
            reach = np.arange(len(bc))[::-1]
            total = total + carry[len(bc) - 1] * momentum + (w[reach][:, None] * bc).T @ cc
            if beta:
                momentum = self.decay[len(bc)] * momentum + (self.decay[reach][:, None] * bc).T @ cc
            first = last
        return y


def _softmax(
    parts: _Parts,
    case: Case,
    chunk: int,
    q: Float32,
    k: Float32,
    v: Float32,
    do: Float32 | None,
    positions: NDArray[np.intp],
    rounded: Round,
) -> None:
    scores = np.float32(case.softmax_scale) * (q[positions] @ k.T)
    if case.spec.causal:
        scores[positions[:, None] < np.arange(len(k))[None, :]] = -np.inf
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    o = rounded(rounded(p) @ v)
    parts.o.append(o)
    if do is None:
        return
    g = do[positions]
    slope = rounded(p * (g @ v.T - (g * o).sum(axis=1, keepdims=True)))
    scale = np.float32(case.softmax_scale)
    parts.dq.append(rounded(scale * (slope @ k)))
    parts.dk.append(_padded(rounded(scale * (slope.T @ q[positions])), case.kv_len))
    parts.dv.append(_padded(rounded(rounded(p).T @ g), case.kv_len))


def _padded(x: Float32, keys: int) -> Float32:
    return np.pad(x, ((0, keys - len(x)), (0, 0)))


def _phi(x: Float32) -> Float32:
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def _phi_slope(x: Float32) -> Float32:
    return np.where(x > 0, np.float32(1), np.exp(np.minimum(x, 0)))
