"""Linear (eq 8) and momentum (eq 12 to 14) attention in their three forms.

Matrix products take operands of the inputs' dtype and PyTorch accumulates them in float32; states,
normalisers and outputs are float32 until the last rounding. float16 is computed in float32 throughout: the
sums here are not normalised before they are taken, and its range ends at 65,504.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mtbench.spec import Case

from .weights import Keys, carry, decay, factor, u

Function = Callable[..., torch.Tensor]
"""``(q, k, v) -> o``, and of a case with lengths ``(q, k, v, lengths) -> o``."""
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]

State = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""S, P and z."""

CHUNK = {"cpu": 64, "cuda": 128}
SEGMENT = {"cpu": 1, "cuda": 64}
"""Chunks computed side by side: a CPU keeps one in its cache, a GPU needs many to be busy."""


def phi(x: torch.Tensor) -> torch.Tensor:
    """elu(x) + 1, as relu(x) + exp(min(x, 0)): adding 1 to elu would cancel where x is far below 0."""
    return torch.relu(x) + torch.exp(x.clamp(max=0))


def _operand(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype == torch.float16 else x


def _only(fk: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """phi(k) of the real keys and 0 of the others, whatever they hold."""
    return torch.where(real, fk, 0.0)


def parallel(case: Case, wrap: Wrap) -> Function:
    """Scores times a weight mask, as one [batch, heads, seq_len, kv_len] array: O(N^2) time and memory."""
    spec, keys, scale, eps = case.spec, Keys(case), factor(case.spec), case.spec.eps
    mask: torch.Tensor | None = None
    if spec.causal and spec.kind == "momentum":
        n = torch.arange(case.seq_len)
        distance = n[:, None] - n[None, :]
        seen = torch.where(distance >= 0, u(spec, distance.clamp(min=0)), 0.0)
        mask = seen.float().to(case.device)  # [N, M]

    def run(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        fq, fk, values = phi(_operand(q)), phi(_operand(k)), _operand(v)
        real, weight = keys.real(lengths), keys.weight(lengths)
        if real is not None:
            fk = _only(fk, real)
        # The normaliser needs no N x N array: phi(q) times a running sum of phi(k).
        z = fk.float().cumsum(2) if spec.causal else fk.float().sum(2, keepdim=True)
        normaliser = (fq.float() * z).sum(-1, keepdim=True) + eps
        scores = fq @ fk.mT  # [B, H, N, M]
        if mask is not None:
            scores = scores * mask.to(scores.dtype)
        elif weight is not None:
            scores = scores * weight.mT.to(scores.dtype)  # [B, 1, 1, M]
        elif spec.causal:
            # Chosen, not multiplied by 0: what a row does not see may be NaN.
            scores = scores.tril()
        return ((scores @ values).float() * scale / normaliser).to(v.dtype)

    return wrap(run)


def recurrent(case: Case, wrap: Wrap) -> Function:
    """Eq 8 and eq 12 as they stand, one position after another, in float32: O(d^2) state."""
    spec, keys = case.spec, Keys(case)
    momentum = spec.kind == "momentum"

    def take_in(
        k: torch.Tensor, v: torch.Tensor, m: torch.Tensor, s: torch.Tensor, z: torch.Tensor, here: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        fk = phi(k.float())  # [B, H, d]
        if here is not None:
            fk = _only(fk, here[..., 0])
        kv = fk[..., :, None] * v.float()[..., None, :]  # [B, H, d, dv]
        if momentum:
            m = spec.beta * m + kv
            # When not causal the heavy ball stops with the last real key (eq 14's own N); when causal it
            # rolls on under the queries that follow.
            s = s + spec.gamma * (m if here is None or spec.causal else here * m)
        else:
            s = s + kv
        return m, s, z + fk

    def give(q: torch.Tensor, s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        fq = phi(q.float())  # [B, H, n, d]
        return (fq @ s) / ((fq * z[..., None, :]).sum(-1, keepdim=True) + spec.eps)

    def causal_step(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: Any, s: Any, z: Any, here: Any
    ) -> tuple[torch.Tensor, ...]:
        m, s, z = take_in(k, v, m, s, z, here)
        return give(q[..., None, :], s, z), m, s, z

    step, take, read = wrap(causal_step), wrap(take_in), wrap(give)

    def run(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        b, h, _, d = k.shape
        s = m = k.new_zeros((b, h, d, v.shape[3]), dtype=torch.float32)
        z = k.new_zeros((b, h, d), dtype=torch.float32)
        rows = []
        real = keys.real(lengths)
        alive = None if real is None else real[..., None]  # [B, 1, M, 1, 1]
        # unbind makes every position a view at once: slicing in the loop would cost a call each.
        heres = [None] * k.shape[2] if alive is None else alive.unbind(2)
        if spec.causal:
            for qi, ki, vi, here in zip(q.unbind(2), k.unbind(2), v.unbind(2), heres, strict=True):
                row, m, s, z = step(qi, ki, vi, m, s, z, here)
                rows.append(row)
            return torch.cat(rows, 2).to(v.dtype)
        for ki, vi, here in zip(k.unbind(2), v.unbind(2), heres, strict=True):
            m, s, z = take(ki, vi, m, s, z, here)
        return read(q, s, z).to(v.dtype)  # type: ignore[no-any-return]

    return run


def chunked(case: Case, wrap: Wrap) -> Function:
    """Attention within chunks of C and a state between them: O(N C d + N d^2) time, O(N C + d^2) memory.

    Chunks are taken a segment of T at a time. Within a segment all chunks are computed side by side, and the
    states at their starts come from the chunks' own sums by a T x T product; between segments the state is
    handed on. T is bounded, so the cost stays linear in the length.
    """
    if not case.spec.causal:
        return _full(case, wrap)
    size, most = CHUNK[case.device], SEGMENT[case.device]
    device, keys = torch.device(case.device), Keys(case)
    segments = _segments(case.seq_len, size, most)
    sizes = [chunks * length for chunks, length in segments]
    run_segment = {shape: wrap(_Segment(case, *shape, device)) for shape in set(segments)}

    def run(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        b, h, _, d = k.shape
        s = p = k.new_zeros((b, h, d, v.shape[3]), dtype=torch.float32)
        z = k.new_zeros((b, h, d), dtype=torch.float32)
        # split once: a slice taken in the loop would send back a gradient as long as the whole sequence.
        cut = [x.split(sizes, 2) for x in (q, k, v)]
        real = keys.real(lengths)
        heres = [None] * len(sizes) if real is None else real.split(sizes, 2)
        parts = []
        for shape, q_t, k_t, v_t, here in zip(segments, *cut, heres, strict=True):
            o, s, p, z = run_segment[shape](q_t, k_t, v_t, s, p, z, here)
            parts.append(o)
        return torch.cat(parts, 2)

    return run


def _segments(n: int, size: int, most: int) -> list[tuple[int, int]]:
    """(chunks, chunk length): full segments, the full chunks left over, and the tail."""
    found: list[tuple[int, int]] = []
    while n:
        chunks = min(most, n // size)
        found.append((chunks, size) if chunks else (1, n))
        n -= found[-1][0] * found[-1][1]
    return found


class _Segment:
    """T chunks of C positions, from the state before them to the state after them.

    With S, P and z the state at a chunk's start, u, c and beta^n less the common factor gamma / (1 - beta):

    - ``num_i = phi(q_i)^T (S + c(i) P) + sum_{j <= i} u(i-j) (phi(q_i) . phi(k_j)) v_j``
    - over chunks t: ``S_t = S + c(t C) P + sum_{s < t} (A_s + c((t-1-s) C) B_s)`` and
      ``P_t = beta^(t C) P + sum_{s < t} beta^((t-1-s) C) B_s``, with ``A_s = sum_j u(C-j) phi(k_j) v_j^T``
      and ``B_s = sum_j beta^(C-j) phi(k_j) v_j^T`` of chunk s alone.
    """

    def __init__(self, case: Case, chunks: int, length: int, device: torch.device) -> None:
        spec = case.spec
        self.chunks, self.length = chunks, length
        self.momentum = spec.kind == "momentum"
        self.scale, self.eps = factor(spec), spec.eps

        def table(values: torch.Tensor) -> torch.Tensor:
            return values.float().to(device)

        n = torch.arange(length)
        distance = n[:, None] - n[None, :]
        self.weight = table(torch.where(distance >= 0, u(spec, distance.clamp(min=0)), 0.0))  # [C, C]
        self.rolled = table(carry(spec, n + 1))[:, None]  # [C, 1]
        self.to_end = table(u(spec, length - 1 - n))[:, None]  # [C, 1]
        self.decayed = table(decay(spec, length - 1 - n))[:, None]  # [C, 1]
        # Row t of these, t = 0..T, gives the state before chunk t; row T the state after the segment.
        t = torch.arange(chunks + 1)
        gap = t[:, None] - 1 - t[None, :chunks]  # [T+1, T]
        before, steps = gap >= 0, gap.clamp(min=0) * length
        self.sums = table(before)
        self.rolls = table(torch.where(before, carry(spec, steps), 0.0))
        self.decays = table(torch.where(before, decay(spec, steps), 0.0))
        self.roll_in = table(carry(spec, t * length))[:, None, None]  # [T+1, 1, 1]
        self.decay_in = table(decay(spec, t * length))[:, None, None]

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        s: torch.Tensor,
        p: torch.Tensor,
        z: torch.Tensor,
        real: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        fk = phi(_operand(k))
        if real is not None:
            fk = _only(fk, real)
        fq, fk, values = self._chunks(phi(_operand(q))), self._chunks(fk), self._chunks(_operand(v))
        dtype = fk.dtype

        kv = ((fk * self.to_end.to(dtype)).mT @ values).float()  # [B, H, T, d, dv]
        dkv = ((fk * self.decayed.to(dtype)).mT @ values).float() if self.momentum else None
        ks = fk.sum(3, dtype=torch.float32)  # [B, H, T, d]
        (s0, p0, z0), after = self._states(kv, dkv, ks, s, p, z)
        # Chosen, not multiplied by 0: what a row does not see may be NaN.
        scores = (fq @ fk.mT).tril()  # [B, H, T, C, C]
        normaliser = scores.sum(-1, keepdim=True, dtype=torch.float32)
        normaliser = normaliser + (fq.float() @ z0[..., None]) + self.eps
        if self.momentum:
            scores = scores * self.weight.to(dtype)
        num = (scores @ values).float() + (fq @ s0.to(dtype)).float()
        if self.momentum:
            num = num + self.rolled * (fq @ p0.to(dtype)).float()
        o = (num * self.scale / normaliser).to(v.dtype).flatten(2, 3)
        return o, *after

    def _states(
        self,
        kv: torch.Tensor,
        dkv: torch.Tensor | None,
        ks: torch.Tensor,
        s: torch.Tensor,
        p: torch.Tensor,
        z: torch.Tensor,
    ) -> tuple[State, State]:
        """S, P and z before every chunk, [B, H, T, ...], and after the last, from the chunks' own sums."""
        if self.chunks == 1:  # nothing to mix, and a CPU has one chunk a segment
            before = s[:, :, None], p[:, :, None], z[:, :, None]
            s, z = s + kv[:, :, 0], z + ks[:, :, 0]
            if dkv is not None:
                s, p = s + self.roll_in[-1] * p, self.decay_in[-1] * p + dkv[:, :, 0]
            return before, (s, p, z)
        sums, totals = s[:, :, None] + self._mix(self.sums, kv), z[:, :, None] + self.sums @ ks
        momenta = p[:, :, None].expand_as(sums)
        if dkv is not None:
            sums = sums + self._mix(self.rolls, dkv) + self.roll_in * momenta
            momenta = self._mix(self.decays, dkv) + self.decay_in * momenta
        every = (sums, momenta, totals)
        return tuple(x[:, :, :-1] for x in every), tuple(x[:, :, -1] for x in every)  # type: ignore[return-value]

    def _chunks(self, x: torch.Tensor) -> torch.Tensor:
        b, h, _, d = x.shape
        return x.reshape(b, h, self.chunks, self.length, d)

    def _mix(self, matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """[T+1, T] times [B, H, T, d, dv], over T."""
        b, h, _, d, dv = x.shape
        return (matrix @ x.flatten(3)).reshape(b, h, -1, d, dv)


def _full(case: Case, wrap: Wrap) -> Function:
    """Not causal: one state of all keys (eq 14), applied to every query."""
    keys, spec, scale = Keys(case), case.spec, factor(case.spec)

    def run(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        fq, fk, values = phi(_operand(q)), phi(_operand(k)), _operand(v)
        real, weight = keys.real(lengths), keys.weight(lengths)
        if real is not None:
            fk = _only(fk, real)
        weighted = fk if weight is None else fk * weight.to(fk.dtype)
        state = weighted.mT @ values  # [B, H, d, dv]
        normaliser = fq.float() @ fk.sum(2, dtype=torch.float32)[..., None] + spec.eps
        return ((fq @ state).float() * scale / normaliser).to(v.dtype)

    return wrap(run)
