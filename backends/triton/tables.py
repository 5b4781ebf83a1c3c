"""The weights of momentum attention (`by_distance`) as the Triton kernels take them: torch tensors, and what
becomes of a state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .. import by_distance

__all__ = ["Decay", "decay", "weights"]


@dataclass(frozen=True, kw_only=True)
class Decay:
    """What a state P, and S through it, become over some positions: ``S += carry P``, ``P *= keep``."""

    carry: float
    """beta (1 - beta^positions): c(positions) of the chunked form, over gamma / (1 - beta)."""
    keep: float
    """beta^positions."""


def decay(beta: float, positions: int) -> Decay:
    """The `Decay` over that many positions, at least one."""
    return Decay(
        carry=float(by_distance.carry(beta, positions)), keep=float(by_distance.keep(beta, positions))
    )


def weights(beta: float, length: int, device: str, chunk: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """``u(n)`` and ``beta^n`` for n = 0 .. `length` - 1, two float32 tensors [entries] on the device.

    They end early where beta^n stops counting, though not within a `chunk`, with a last entry, 1 and 0, for
    every n from there on.
    """
    counting = max(by_distance.counting(beta), chunk)
    n = np.arange(min(length, counting))
    u, b = by_distance.u(beta, n), by_distance.keep(beta, n)
    if counting < length:
        u, b = np.append(u, np.float32(1)), np.append(b, np.float32(0))
    return torch.from_numpy(u).to(device), torch.from_numpy(b).to(device)
