"""What a rank makes of the states of all ranks, [ranks, size] float32, S, P and z one after another."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch

from ..by_distance import carry, keep

__all__ = ["carried", "pulled"]


def carried(
    states: torch.Tensor, gaps: Mapping[int, int], beta: float, size: int, momentum: bool
) -> torch.Tensor | None:
    """The state that reaches a place: those of some ranks, each as many positions away as `gaps` says::

        S = sum_r S_r + c(n_r) P_r;  P = sum_r beta^(n_r) P_r;  z = sum_r z_r,  c(n) = beta (1 - beta^n)

    None where there is no rank. `size` is the numbers of S; without `momentum` there is no P.
    """
    if not gaps:
        return None
    ranks, distances = list(gaps), tuple(gaps.values())
    if len(ranks) == 1 and (distances == (0,) or not momentum):
        return states[ranks[0]]
    # A slice, and no index of a weight of 0: what another rank's state holds may be NaN.
    chosen = states[ranks[0] : ranks[-1] + 1]
    if not momentum:
        return chosen.sum(0)
    carries, keeps = _weights(beta, distances, states.device)
    swings = chosen[:, size : 2 * size]
    together = torch.empty_like(states[0])
    torch.sum(chosen[:, :size], 0, out=together[:size])
    together[:size].add_(carries @ swings)
    torch.mv(swings.T, keeps, out=together[size : 2 * size])
    torch.sum(chosen[:, 2 * size :], 0, out=together[2 * size :])
    return together


def pulled(
    gradients: torch.Tensor, gaps: Mapping[int, int], beta: float, size: int, momentum: bool
) -> torch.Tensor | None:
    """The gradient of a rank's own state, from those of what reached others: the transpose of `carried`::

    dS = sum_r dS_r;  dP = sum_r c(n_r) dS_r + beta^(n_r) dP_r;  dz = sum_r dz_r
    """
    if not gaps:
        return None
    chosen = gradients[min(gaps) : max(gaps) + 1]
    together = chosen.sum(0)
    if momentum:
        carries, keeps = _weights(beta, tuple(gaps.values()), gradients.device)
        swings = carries @ chosen[:, :size] + keeps @ chosen[:, size : 2 * size]
        together[size : 2 * size] = swings
    return together


@functools.lru_cache(maxsize=64)  # a copy to a card waits for all that the card has to do
def _weights(beta: float, distances: tuple[int, ...], device: torch.device) -> list[torch.Tensor]:
    """How P goes into S, and what is left of it, so many positions on: each [ranks] float32."""
    return [torch.from_numpy(weight(beta, distances)).to(device) for weight in (carry, keep)]
