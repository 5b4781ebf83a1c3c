"""The weights of momentum attention, and which keys are real.

Every weight of eq 13 and 14 is ``gamma / (1 - beta)`` times ``u(n) = 1 - beta^(n+1)``, in [0, 1]. The forms
sum with u and multiply by that factor once, in float32. u is computed in float64 by expm1, since for beta
near 1 a difference of powers in float32 would lose its digits.
"""

from __future__ import annotations

import math

import torch

from mtbench.spec import AttentionSpec, Case

__all__ = ["Keys", "carry", "decay", "factor", "u"]


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


class Keys:
    """The keys of a case, by position: which are real and what they weigh. What depends on a batch's lengths
    is computed at the call, on the device, of a tensor [batch] of them, or of None where all are real."""

    def __init__(self, case: Case) -> None:
        self._positions = torch.arange(case.kv_len, device=case.device)
        self._u: torch.Tensor | None = None
        if case.spec.kind == "momentum" and not case.spec.causal:
            self._u = u(case.spec, torch.arange(case.kv_len)).float().to(case.device)

    def real(self, lengths: torch.Tensor | None) -> torch.Tensor | None:
        """[batch, 1, kv_len, 1] of booleans, or None where every key is real."""
        return None if lengths is None else (self._positions < lengths[:, None])[:, None, :, None]

    def weight(self, lengths: torch.Tensor | None) -> torch.Tensor | None:
        """Eq 14's weight of each key, less the factor: u(N - j), [batch or 1, 1, kv_len, 1] in float32, where
        N is each sequence's own length. None of linear attention, where all are 1. What it says of padding,
        which adds nothing, means nothing."""
        if self._u is None:
            return None
        if lengths is None:
            return self._u.flip(0)[None, None, :, None]
        before_last = (lengths[:, None] - 1 - self._positions).clamp(min=0)  # [batch, kv_len]
        return self._u[before_last][:, None, :, None]
