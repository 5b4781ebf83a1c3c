"""The weights of momentum attention (eq 13, 14) by distance, computed in float64 on the host.

With ``n`` the number of positions between key and query, momentum weights a key by
``gamma (1 - beta^(n+1)) / (1 - beta)``. The kernels use ``u(n) = 1 - beta^(n+1)``, which lies in (0, 1], and
multiply by ``gamma / (1 - beta)`` once, at the end and in float32: so no operand grows with 1/(1 - beta).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Decay", "decay", "weights"]

NEGLIGIBLE = 2.0**-26
"""Below it beta^n adds nothing to a float32 near 1."""


@dataclass(frozen=True, kw_only=True)
class Decay:
    """What a state P, and S through it, become over some positions: ``S += carry P``, ``P *= keep``."""

    carry: float
    """beta (1 - beta^positions): c(positions) of the chunked form, over gamma / (1 - beta)."""
    keep: float
    """beta^positions."""


def decay(beta: float, positions: int) -> Decay:
    """The `Decay` over that many positions, at least one. Near beta = 1 a subtraction would cancel."""
    if beta == 0:
        return Decay(carry=0.0, keep=0.0)
    exponent = positions * math.log(beta)
    return Decay(carry=-beta * math.expm1(exponent), keep=math.exp(exponent))


def weights(beta: float, length: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """``u(n)`` and ``beta^n`` for n = 0 .. `length` - 1, two float32 tensors [entries] on the device.

    They end early where beta^n stops counting, with a last entry, 1 and 0, for every n from there on.
    """
    log = math.log(beta) if beta > 0 else -math.inf
    counting = math.ceil(math.log(NEGLIGIBLE) / log) if beta > 0 else 1
    n = np.arange(min(length, counting), dtype=np.float64)
    u, b = -np.expm1((n + 1) * log), np.power(beta, n)
    if counting < length:
        u, b = np.append(u, 1.0), np.append(b, 0.0)
    return _tensor(u, device), _tensor(b, device)


def _tensor(array: npt.NDArray[np.float64], device: str) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32)).to(device)
