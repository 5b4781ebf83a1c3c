"""Attention in PyTorch, in whatever dtype its operands have: float64, which no backend takes, for one.

It is the whole [seq_len, kv_len] array of scores times a mask of weights, and has no further aim than to be
right. Layouts here are a model's: q, k and v are [batch, positions, heads, dim].
"""

from __future__ import annotations

import math

import torch

from mtbench.spec import AttentionSpec

__all__ = ["denominator", "key_weight", "phi", "plain_attention", "real_keys"]


def phi(x: torch.Tensor) -> torch.Tensor:
    """elu(x) + 1, without adding 1 to what is far below 0."""
    return torch.relu(x) + torch.exp(x.clamp(max=0))


def key_weight(spec: AttentionSpec, distance: torch.Tensor) -> torch.Tensor:
    """``gamma (1 - beta^(n+1)) / (1 - beta)`` of distances n >= 0 (eq 13), in float64, and 0 where n < 0."""
    n = distance.to(torch.float64)
    powers = (n + 1) * math.log(spec.beta) if spec.beta > 0 else torch.full_like(n, -math.inf)
    weight = spec.gamma / (1 - spec.beta) * -torch.expm1(powers)
    return torch.where(n >= 0, weight, 0.0)


def real_keys(lengths: torch.Tensor | None, kv_len: int) -> torch.Tensor | None:
    """[batch, kv_len], true where a key is no padding; None where all are real."""
    if lengths is None:
        return None
    return torch.arange(kv_len, device=lengths.device) < lengths[:, None]


def denominator(
    spec: AttentionSpec, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor | None
) -> torch.Tensor:
    """What linear and momentum attention divide by, ``phi(q_i) . z_i + eps``, over sqrt(N): so much times
    them is attention without normaliser of maps that are scaled by N^-1/4 each.

    N is each sequence's own length, so that padding changes nothing; the released code, which has a fixed
    length of padded sequences, takes that. In float32 at the least: [batch, seq_len, heads, 1] of q [batch,
    seq_len, heads, head_dim] and k [batch, kv_len, heads, head_dim].
    """
    wide = q.dtype if q.dtype == torch.float64 else torch.float32
    fq, fk = phi(q.to(wide)), phi(k.to(wide))
    real = real_keys(lengths, k.shape[1])
    if real is not None:
        fk = torch.where(real[:, :, None, None], fk, 0.0)
    z = fk.cumsum(1) if spec.causal else fk.sum(1, keepdim=True)
    total = (fq * z).sum(-1, keepdim=True) + spec.eps
    if lengths is None:
        return total * math.sqrt(1 / k.shape[1])
    return total * lengths.to(wide).rsqrt()[:, None, None, None]


def plain_attention(
    spec: AttentionSpec,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """Eq 1, 8, 13 or 14.

    Args:
        spec: which.
        q: [batch, seq_len, heads, head_dim].
        k: [batch, kv_len, heads, head_dim].
        v: [batch, kv_len, heads, value_dim].
        lengths: the real keys of each batch entry, [batch] integers; None is all of them.

    Returns:
        [batch, seq_len, heads, value_dim], in the dtype of v.
    """
    n, m = q.shape[1], k.shape[1]
    positions = torch.arange(m, device=q.device)
    seen = torch.ones(1, 1, m, dtype=torch.bool, device=q.device)
    if spec.causal:
        seen = (torch.arange(n, device=q.device)[:, None] >= positions)[None]
    real = real_keys(lengths, m)
    if real is not None:
        seen = seen & real[:, None, :]
    if spec.kind == "softmax":
        scale = spec.scale if spec.scale is not None else q.shape[3] ** -0.5
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * scale
        share = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
        return torch.einsum("bhij,bjhe->bihe", share, v)
    scores = torch.einsum("bihd,bjhd->bhij", phi(q), phi(k)).masked_fill(~seen[:, None], 0.0)
    total = scores.sum(-1) + spec.eps  # [batch, heads, seq_len]
    if spec.causal:
        distance = torch.arange(n, device=q.device)[:, None] - positions  # eq 13
    else:
        last = torch.full((1,), m, device=q.device) if real is None else real.sum(-1)
        distance = (last[:, None] - 1 - positions)[:, None, :]  # eq 14, N each sequence's own
    weight = key_weight(spec, distance).to(scores.dtype)
    if not spec.causal:
        weight = weight[:, None]  # [batch, 1, 1, kv_len]
    o = torch.einsum("bhij,bjhe->bihe", scores * weight, v)
    return o / total.mT[..., None]
