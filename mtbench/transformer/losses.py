"""Losses that tasks share."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["classified", "counted_cross_entropy", "each_cross_entropy"]


def counted_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean cross-entropy and the share of likeliest symbols that are right, over the positions that
    count.

    Args:
        logits: [batch, seq_len, vocabulary].
        targets: the right symbols, [batch, seq_len].
        counts: how much each position counts, [batch, seq_len], 1.0 or 0.0.
    """
    each = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    weights = counts.flatten()
    total = weights.sum()
    with torch.no_grad():
        right = (logits.argmax(-1) == targets).flatten() * weights
    return (each * weights).sum() / total, right.sum() / total


def each_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, lengths: torch.Tensor, likeliest: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each position, [batch, seq_len]: the cross-entropy, 1.0 where the likeliest symbol is right, and 1.0
    where the position is real; all are 0 where it is padding.

    Args:
        logits: [batch, seq_len, vocabulary].
        targets: the right symbols, [batch, seq_len].
        lengths: how many of them are real, [batch].
        likeliest: the symbols that have the largest logits, [batch, seq_len], where that is known.
    """
    right = targets.long()
    real = (torch.arange(targets.shape[1], device=targets.device) < lengths[:, None]).float()
    flat = functional.cross_entropy(logits.flatten(0, 1).float(), right.flatten(), reduction="none")
    with torch.no_grad():
        said = logits.argmax(-1) if likeliest is None else likeliest
        hits = (said == right).float() * real
    return flat.view_as(right) * real, hits, real


def classified(logits: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each sequence, [batch]: the cross-entropy of logits [batch, classes] and the right class [batch],
    and 1.0 where the likeliest is right."""
    wide = logits.float()
    loss = functional.cross_entropy(wide, classes, reduction="none")
    return loss, (wide.argmax(-1) == classes).float()
