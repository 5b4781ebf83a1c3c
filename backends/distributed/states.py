"""What a rank makes of the states of all ranks, [ranks, size] float32, S, P and z one after another."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .places import weights_over

__all__ = ["added", "carried", "pulled"]


def carried(
    states: torch.Tensor, gaps: Mapping[int, int], beta: float, size: int, momentum: bool
) -> torch.Tensor | None:
    """The state that reaches a place: those of some ranks, each as many positions away as `gaps` says::

        S = sum_r S_r + c(n_r) P_r;  P = sum_r beta^(n_r) P_r;  z = sum_r z_r,  c(n) = beta (1 - beta^n)

    None where there is no rank. `size` is the numbers of S; without `momentum` there is no P.
    """
    if not gaps:
        return None
    ranks, distances = list(gaps), list(gaps.values())
    if len(ranks) == 1 and (distances == [0] or not momentum):
        return states[ranks[0]]
    # A slice, and no index of a weight of 0: what another rank's state holds may be NaN.
    chosen = states[ranks[0] : ranks[-1] + 1]
    if not momentum:
        return chosen.sum(0)
    weights = torch.tensor(
        [weights_over(beta, distance) for distance in distances], dtype=torch.float32, device=states.device
    )
    swings = chosen[:, size : 2 * size]
    together = torch.empty_like(states[0])
    torch.sum(chosen[:, :size], 0, out=together[:size])
    together[:size].add_(weights[:, 0] @ swings)
    torch.mv(swings.T, weights[:, 1], out=together[size : 2 * size])
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
        weights = torch.tensor(
            [weights_over(beta, distance) for distance in gaps.values()],
            dtype=torch.float32,
            device=gradients.device,
        )
        swings = weights[:, 0] @ chosen[:, :size] + weights[:, 1] @ chosen[:, size : 2 * size]
        together[size : 2 * size] = swings
    return together


def added(states: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks."""
    return states.sum(0)
