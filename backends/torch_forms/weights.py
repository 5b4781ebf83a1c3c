"""The weights of momentum attention, and which keys are real.

Every weight of eq 13 and 14 is ``gamma / (1 - beta)`` times ``u(n) = 1 - beta^(n+1)``, in [0, 1]. The forms
sum with u and multiply by that factor once, in float32. u is computed in float64 by expm1, since for beta
near 1 a difference of powers in float32 would lose its digits.
"""

from __future__ import annotations

import math

import torch

from mtbench.spec import AttentionSpec, Case

__all__ = ["carry", "decay", "factor", "key_is_real", "key_weight", "u"]


def _powers(beta: float, exponents: torch.Tensor) -> torch.Tensor:
    """The logarithm of ``beta^n``."""
    if beta == 0:
        return torch.full(exponents.shape, -math.inf, dtype=torch.float64)
    return exponents.to(torch.float64) * math.log(beta)


def u(spec: AttentionSpec, distance: torch.Tensor) -> torch.Tensor:
    """``1 - beta^(n+1)`` for distances n >= 0, in float64."""
    return -torch.expm1(_powers(spec.beta, distance + 1))


def decay(spec: AttentionSpec, steps: torch.Tensor) -> torch.Tensor:
    """``beta^n`` for n >= 0, in float64 (0^0 is 1)."""
    return torch.where(steps == 0, 1.0, torch.exp(_powers(spec.beta, steps)))


def carry(spec: AttentionSpec, steps: torch.Tensor) -> torch.Tensor:
    """``beta (1 - beta^n)`` for n >= 0: how far n steps roll a momentum into the sum, in float64."""
    rolled = spec.beta * -torch.expm1(_powers(spec.beta, steps))
    return torch.where(steps == 0, 0.0, rolled)


def factor(spec: AttentionSpec) -> float:
    """``gamma / (1 - beta)``, which every weight is a multiple of."""
    return spec.gamma / (1 - spec.beta)


def key_is_real(case: Case, device: torch.device) -> torch.Tensor | None:
    """[batch, 1, kv_len, 1] of booleans, or None where every key is real."""
    if case.lengths is None:
        return None
    lengths = torch.tensor(case.lengths, device=device)[:, None]
    return (torch.arange(case.kv_len, device=device) < lengths)[:, None, :, None]


def key_weight(case: Case, device: torch.device) -> torch.Tensor | None:
    """Eq 14's weight of each key, less the factor: u(N - j), [batch or 1, 1, kv_len, 1] in float32, where N
    is each sequence's own length. None for linear attention without padding, where all are 1."""
    real = key_is_real(case, device)
    if case.spec.kind == "linear":
        return None if real is None else real.float()
    lengths = torch.tensor(case.key_lengths if real is not None else [case.kv_len])[:, None]
    distance = lengths - 1 - torch.arange(case.kv_len)
    weight = torch.where(distance >= 0, u(case.spec, distance.clamp(min=0)), 0.0)
    return weight.float()[:, None, :, None].to(device)
